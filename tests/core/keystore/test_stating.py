"""Which processes sign succession statements: a command's, and no core's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.keystore.rigs import NAME, Rig
from witness.core.keystore.base import Algorithm
from witness.core.keystore.keychain import Keychain
from witness.core.keystore.softkey import soft_signer
from witness.core.keystore.stating import state_succession
from witness.core.layout import StateLayout
from witness.tlog.note import parse_note
from witness.tlog.succession import is_stated_by

NEW = (soft_signer(Algorithm.ED25519, NAME, b"\x07" * 32),)


@pytest.fixture
def layout(agent: Rig) -> StateLayout:
    return agent.state(agent.root.parent / "s")


def stated(layout: StateLayout, **how: Any) -> bool | None:
    keychain = Keychain.prepare(layout, passphrase=None, **how)
    try:
        keychain.open()
        old = keychain.signers()
        note = state_succession(old, NEW, 1_800_000_000).note
        return is_stated_by(parse_note(note), old[0].vkey)
    finally:
        keychain.close()


def test_a_commands_devices_sign_a_statement(layout: StateLayout) -> None:
    assert stated(layout, statements=True)


def test_a_cores_devices_do_not(layout: StateLayout) -> None:
    """A core that is taken over has devices that cosign for it; a successor they do not name."""
    with pytest.raises(Exception, match="asked to sign what is no cosignature message"):
        stated(layout)
