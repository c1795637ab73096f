"""The ring: what it refuses to read, and that it is replaced whole."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from witness.core.keystore import keyring, softkey
from witness.core.keystore.base import Algorithm, KeyAbsent, KeyFileInvalid, WrongSecret
from witness.core.keystore.keychain import Keychain
from witness.core.keystore.keyring import SOFT, DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.softkey import soft_signer
from witness.core.layout import StateLayout

NAME, IDENTITY = "witness.example/ring", "ab" * 16
KEYS = [soft_signer(algorithm, NAME, bytes(32)).vkey for algorithm in Algorithm]


def ring() -> Ring:
    agents = tuple(DeviceEntry(f"agent{n}", "ssh-agent", {"socket": f"/agent{n}"}) for n in range(2))
    tpm = DeviceEntry("tpm", "tpm2", {"tcti": "device:/dev/tpmrm0"}, "00aa", {"env": "OWNER"})
    return Ring(
        NAME, IDENTITY, (*agents, tpm),
        (
            KeyEntry(KEYS[0], "witness", "sign", (Place("agent0", {"a": "b"}), Place("agent1"))),
            KeyEntry(
                KEYS[1], "witness", "derive", (Place("tpm", {"index": "1"}),), "witness-v1", 3, dev=True
            ),
        ),
    )  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    layout = StateLayout(tmp_path)
    keyring.write(layout, ring())
    assert keyring.read(layout) == ring()
    assert layout.keyring.stat().st_mode & 0o777 == 0o600
    assert layout.keys.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in layout.keys.iterdir()] == ["keyring.json"]


def test_a_state_without_a_ring_has_the_key_files(tmp_path: Path) -> None:
    layout = StateLayout(tmp_path)
    vkeys = softkey.create(layout.softkey, name=NAME, identity=IDENTITY, passphrase=None)
    read = keyring.read(layout)
    assert (read.vkeys, read.name, read.identity) == (vkeys, NAME, IDENTITY)
    assert keyring.sealed(layout, read) is False
    layout.softkey.unlink()
    with pytest.raises(KeyAbsent):
        keyring.read(layout)


def changed(change: Callable[[Any], object]) -> Callable[[Any], Any]:
    def apply(content: Any) -> Any:
        content = copy.deepcopy(content)
        change(content)
        return content

    return apply


@pytest.mark.parametrize(
    "fault",
    [
        changed(lambda c: c.update(format="something else")),
        changed(lambda c: c.pop("identity")),
        changed(lambda c: c.update(keys=[])),
        changed(lambda c: c["keys"].append(c["keys"][0])),
        changed(lambda c: c["keys"][0].update(vkey="x")),
        changed(lambda c: c["keys"][0].update(vkey=c["keys"][0]["vkey"].replace("ring", "wing"))),
        changed(lambda c: c["keys"][0].update(how="borrow")),
        changed(lambda c: c["keys"][0].update(purpose="fun")),
        changed(lambda c: c["keys"][0].update(places=[])),
        changed(lambda c: c["keys"][0]["places"][0].update(device="nowhere")),
        changed(lambda c: c["keys"][1]["places"].append({"device": "agent0", "locator": {}})),
        changed(lambda c: c["keys"][1].update(generation="3")),
        changed(lambda c: c["keys"][1]["places"][0].update(locator={"index": 1})),
        changed(lambda c: c["devices"].append(c["devices"][0])),
        changed(lambda c: c["devices"][0].update(secret={"word": "open sesame"})),
        changed(lambda c: c["devices"][0].update(backend="softkey")),
        lambda _: [],
        lambda _: "ring",
    ],
)
def test_a_ring_that_is_none_is_refused(tmp_path: Path, fault: Callable[[Any], Any]) -> None:
    layout = StateLayout(tmp_path)
    keyring.write(layout, ring())
    content = json.loads(layout.keyring.read_text())
    layout.keyring.write_text(json.dumps(fault(content)))
    with pytest.raises(KeyFileInvalid) as refused:
        keyring.read(layout)
    assert str(layout.keyring) in refused.value.reason


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b" " * 300_000])
def test_any_bytes_are_a_ring_or_refused(tmp_path: Path, data: bytes) -> None:
    layout = StateLayout(tmp_path)
    layout.keys.mkdir()
    layout.keyring.write_bytes(data)
    with pytest.raises(KeyFileInvalid):
        keyring.read(layout)


def test_a_write_that_fails_leaves_the_old_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = StateLayout(tmp_path)
    keyring.write(layout, ring())

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keyring.write(layout, ring().with_device(DeviceEntry("agent9", "ssh-agent", {}), {KEYS[0]: {}}))
    assert keyring.read(layout) == ring()
    assert [path.name for path in layout.keys.iterdir()] == ["keyring.json"]


def test_a_device_is_added_or_replaced_under_its_name() -> None:
    moved = DeviceEntry("agent1", "ssh-agent", {"socket": "/elsewhere"})
    after = ring().with_device(moved, {KEYS[0]: {"c": "d"}})
    assert after.device("agent1") == moved
    assert after.keys[0].places == (Place("agent0", {"a": "b"}), Place("agent1", {"c": "d"}))
    assert after.keys[1] == ring().keys[1]
    with pytest.raises(KeyFileInvalid):
        after.device("agent7")


def soft_ring(layout: StateLayout, passphrase: str | None) -> Ring:
    vkeys = softkey.create(
        layout.softkey, name=NAME, identity=IDENTITY, passphrase=passphrase, scrypt_n=2**12
    )
    keys = tuple(KeyEntry(vkey, "witness", "soft", (Place(SOFT),)) for vkey in vkeys)
    return Ring(NAME, IDENTITY, (DeviceEntry(SOFT, SOFT),), keys)


def test_a_key_file_of_another_identity_is_not_opened(tmp_path: Path) -> None:
    layout = StateLayout(tmp_path)
    mine = soft_ring(layout, None)
    keyring.write(layout, mine)
    Keychain.prepare(layout, passphrase=None).close()
    layout.softkey.unlink()
    softkey.create(layout.softkey, name=NAME, identity="cd" * 16, passphrase=None)
    with pytest.raises(KeyFileInvalid, match="belongs to"):
        Keychain.prepare(layout, passphrase=None)
    layout.softkey.unlink()
    softkey.create(layout.softkey, name=NAME, identity=IDENTITY, passphrase=None)
    with pytest.raises(KeyFileInvalid, match="does not hold"):
        Keychain.prepare(layout, passphrase=None)


def test_a_sealed_key_file_waits_only_if_it_is_told_to(tmp_path: Path) -> None:
    layout = StateLayout(tmp_path)
    keyring.write(layout, soft_ring(layout, "right"))
    with pytest.raises(WrongSecret):
        Keychain.prepare(layout, passphrase="wrong")
    keychain = Keychain.prepare(layout, passphrase="wrong", wait=True)
    keychain.open()
    try:
        assert {state.state for state in keychain.states()} == {"locked"}
        layout.softkey.unlink()  # it was read: a core that may read no files any more can still open it
        keychain.unlock(SOFT, "still wrong", "1")
        with pytest.raises(WrongSecret):
            keychain.signers()[0].sign(b"")
        keychain.unlock(SOFT, "right", "2")
        assert {(state.state, state.detail) for state in keychain.states()} == {
            ("ready", "sealed [unlock 2]")
        }
        assert keychain.signers()[0].sign(b"")
    finally:
        keychain.close()
