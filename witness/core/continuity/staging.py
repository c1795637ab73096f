"""Staging a new generation of keys: stated, handed the records' keys, and written down; it signs nothing yet.

This runs in a command's process, which has the old and the new keys open; the core takes the generation up
at its next start. The order of writing makes every crash harmless: the key file first (nobody knows it), then
the database (a generation without keys is never taken up), and the ring last, which makes it count.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from witness.core.continuity.secret import record_keys, seal, source, sources_of
from witness.core.keystore import keyring
from witness.core.keystore.base import Signer
from witness.core.keystore.keyring import ATTESTATION, DeviceEntry, KeyEntry, Ring
from witness.core.keystore.stating import Stated, state_succession
from witness.core.layout import StateLayout
from witness.core.store import generations
from witness.core.store.audit import Event, leave
from witness.core.store.desk import Desk
from witness.core.store.generations import Generation, Generations, Stage


@dataclass(frozen=True, slots=True)
class Staged:
    """What is to be staged.

    Attributes:
        number: the new generation's.
        ring: the ring with it.
        stated: the succession statement.
        overlap: seconds for which the old generation signs beside it.
    """

    number: int
    ring: Ring
    stated: Stated
    overlap: int


def next_number(layout: StateLayout, ring: Ring, known: Generations) -> int:
    """The number of the next generation: beyond any that keys, database or a left-behind file know of."""
    number = max([key.rotation for key in ring.witness_keys] + [row.number for row in known]) + 1
    while new_file(layout, number).exists():
        number += 1
    return number


def new_file(layout: StateLayout, number: int) -> Path:
    """The key file of a generation's soft keys. Each has its own, so that it can be deleted alone."""
    return layout.keys / f"softkey-{number}.json"


def with_generation(ring: Ring, devices: Sequence[DeviceEntry], keys: Sequence[KeyEntry]) -> Ring:
    """The ring with further keys behind those that it has, and devices that it lacks.

    The attestation key of key files moves on to the new file, where there is one, and ends with the last.
    """
    names = {device.name for device in ring.devices}
    new = tuple(device for device in devices if device.name not in names)
    kept = [key for key in ring.keys if key.purpose != ATTESTATION or key.how != "soft"]
    return replace(ring, devices=(*ring.devices, *new), keys=(*kept, *keys))


def prepare(
    layout: StateLayout, ring: Ring, number: int, old: Sequence[Signer], new: Sequence[Signer], *,
    overlap: int, now: int,
) -> Staged:  # fmt: skip
    """Has the keys state the succession, and hands the records' keys on.

    Args:
        layout: the state folder.
        ring: the ring with the new generation in it.
        number: the new generation's.
        old: the keys that sign now, open.
        new: the new generation's keys, open.
        overlap: seconds for which both are to sign.
        now: POSIX seconds.

    Raises:
        KeystoreError: a key cannot be used.
    """
    context = ring.identity.encode()
    keys = record_keys(sources_of(ring, old, layout.records_key), context)
    sealed = seal(keys, source(new, layout.records_key).secret, context)
    records = {**ring.records, str(number): base64.b64encode(sealed).decode()}
    return Staged(number, replace(ring, records=records), state_succession(old, new, now), overlap)


def commit(layout: StateLayout, desk: Desk, staged: Staged, now: int) -> None:
    """Writes it down, durably: from the next start on it signs.

    Raises:
        NotInOrder: another rotation is under way.
        OSError: the ring cannot be written; then nothing is staged.
    """
    ring, number = staged.ring, staged.number
    before = [each for each in ring.generations if each[0] != number]
    vkeys = dict(ring.generations)[number]
    with desk.transaction() as connection:
        generations.begin(connection, before[-1][0], [str(vkey) for vkey in before[-1][1]], now)
        new = Generation(
            number, Stage.STAGED, tuple(map(str, vkeys)), now, overlap=staged.overlap,
            statement=staged.stated.note,
        )  # fmt: skip
        generations.stage(connection, new)
        facts = {
            "generation": number,
            "vkeys": [f"{vkey.name}+{vkey.key_id.hex()}" for vkey in vkeys],
            "overlap": staged.overlap,
        }
        leave(connection, Event("rotation-staged", facts), now)
    keyring.write(layout, ring)
