"""Which keys of a state sign, for commands: the ring and what the database says of its generations."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

from witness.core.continuity import secret
from witness.core.continuity.secret import AUDIT, HIGH_WATER, MacKey, sources_of
from witness.core.keystore import keyring
from witness.core.keystore.keychain import Keychain
from witness.core.keystore.keyring import KeyEntry, Ring
from witness.core.layout import StateLayout
from witness.core.store import generations
from witness.core.store.generations import Generations, Stage

SIGNING = (Stage.ACTIVE, Stage.RETIRING)


def known(layout: StateLayout) -> Generations:
    """What the database says of the generations; nothing where it cannot be read: the keys are known."""
    try:
        with closing(sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True)) as connection:
            return generations.read(connection)
    except sqlite3.Error:
        return Generations()


def signing(layout: StateLayout) -> Ring:
    """The ring with those witness keys alone that sign now."""
    found = known(layout)
    return keyring.read(layout).only(lambda key: stage(found, key) in SIGNING)


def stage(found: Generations, key: KeyEntry) -> Stage:
    """Where a key is in its life."""
    return found.stage_of(str(key.vkey))


def record_keys(
    layout: StateLayout, passphrase: str | None, secrets: Mapping[str, str | None] | None = None
) -> tuple[MacKey, MacKey]:
    """The keys of the high-water record and of the record of events, made of the keys that are at hand.

    Args and errors as of `open_record_keys`.
    """
    keys = open_record_keys(layout, passphrase, secrets)
    return MacKey(keys[HIGH_WATER]), MacKey(keys[AUDIT])


def open_record_keys(
    layout: StateLayout, passphrase: str | None, secrets: Mapping[str, str | None] | None = None
) -> dict[str, bytes]:
    """The keys of the witness's own records, by purpose.

    Args:
        layout: the state folder.
        passphrase: the witness's own.
        secrets: of devices, by name, where they are at hand already.

    Raises:
        KeystoreError: the keys are locked or away.
        FileNotFoundError: they come from a file, and that is missing.
    """
    keychain = Keychain.prepare(
        layout, passphrase=passphrase, retired=known(layout).retired, wait=True, secrets=secrets
    )
    try:
        keychain.open()
        ring = keychain.ring
        sources = sources_of(ring, keychain.signers(), layout.records_key, make=False)
        return secret.record_keys(sources, ring.identity.encode())
    finally:
        keychain.close()
