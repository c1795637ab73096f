"""Which of a ring's keys are attested by whom, and the files that attestations are kept in.

A key is attested by the key that shares its place: a derived key by its device's, a key in the key file by
the key file's, one that a token signs with by a key that the token derives beside it, if it was made to. An
agent, or a core elsewhere, has no secret beside its key that would outlive it: there nobody attests.

An attestation says nothing that is secret. The files have the names that the
Armored Witness gives them: `SERIAL.pub` for the key that verifies, `SERIAL.witness.GENERATION` for the note,
and after that `.ed25519` or `.ml-dsa-44`, since a generation has two keys here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from witness.core.keystore.attestation import AttestationKey, attestation_vkey, serial_of
from witness.core.keystore.keyring import ATTESTATION, KeyEntry, Ring
from witness.core.keystore.softkey import algorithm_of
from witness.tlog.note import VerifierKey

AttestationKeys = Mapping[str, AttestationKey]
"""Opened attestation keys, by the name of the device that they are of."""


@dataclass(frozen=True, slots=True)
class Attested:
    """An attestation: whose key, which key, of which generation, and the note that says so."""

    by: VerifierKey
    serial: str
    key: VerifierKey
    generation: int
    note: bytes

    @property
    def file_name(self) -> str:
        """What its file is called."""
        return f"{self.serial}.witness.{self.generation}.{algorithm_of(self.key)}"


def attest(ring: Ring, keys: AttestationKeys, *, generation: int | None = None) -> tuple[Attested, ...]:
    """Attests the witness keys that can be attested. The same again gives the same notes, byte for byte.

    Args:
        ring: which keys there are, and where.
        keys: the attestation keys that are open.
        generation: the one whose keys are attested; None for all.
    """
    made = []
    for entry in ring.witness_keys:
        by = next((keys[place.device] for place in entry.places if place.device in keys), None)
        if by is None or generation not in {None, entry.generation}:
            continue
        note = by.attest(entry.vkey, entry.generation)
        made.append(Attested(by.vkey, by.serial, entry.vkey, entry.generation, note))
    return tuple(made)


def attestation_entries(ring: Ring) -> tuple[KeyEntry, ...]:
    """The ring's attestation keys."""
    return tuple(key for key in ring.keys if key.purpose == ATTESTATION)


def attestation_vkeys(ring: Ring) -> tuple[VerifierKey, ...]:
    """The vkeys of the ring's attestation keys.

    Rings made before attestations were name the key after the witness; its name is its device's now.
    """
    found = []
    for entry in attestation_entries(ring):
        if entry.how == "derive":
            serial = serial_of(ring.device(entry.places[0].device).unique_id, entry.scheme)
            found.append(attestation_vkey(entry.vkey.public_key, serial, dev=entry.dev))
        else:
            found.append(entry.vkey)
    return tuple(dict.fromkeys(found))


def write_attestations(
    folder: Path, made: Iterable[Attested], *, for_others: bool = False
) -> tuple[Path, ...]:
    """Writes attestations, and the keys that verify them, each file whole; those of other keys stay.

    Args:
        folder: where; it is made.
        made: the attestations.
        for_others: whether everybody may read them. In a state folder nobody reads anything.

    Returns:
        The notes' files.

    Raises:
        OSError: one cannot be written.
    """
    folder.mkdir(mode=0o755 if for_others else 0o700, parents=True, exist_ok=True)
    mode = 0o644 if for_others else 0o600
    paths = []
    for each in made:
        _write(folder / f"{each.serial}.pub", f"{each.by}\n".encode(), mode)
        paths.append(_write(folder / each.file_name, each.note, mode))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return tuple(paths)


def _write(path: Path, content: bytes, mode: int) -> Path:
    building = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        building.rename(path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise
    return path
