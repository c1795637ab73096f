"""Destroying the secrets of retired keys, where that can be done, and saying where it cannot.

Everything here may be done again after a crash, and finds then that it was done.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from witness.core.keystore import softkey
from witness.core.keystore.base import KeyAbsent, KeyInvalid, KeystoreError
from witness.core.keystore.hostclient import HostClient
from witness.core.keystore.keyring import KeyEntry, Place, Ring, key_file
from witness.core.layout import StateLayout

DEADLINE: Final = 30.0
"""Seconds that a device has for each step."""


def absent_files(layout: StateLayout, ring: Ring) -> frozenset[Path]:
    """The key files of the ring that are not there. For who may still look: a core locked down cannot."""
    return frozenset(path for path in _files(layout, ring) if not path.exists())


def destroy_files(
    layout: StateLayout, ring: Ring, retired: Collection[str], *, absent: Collection[Path] = ()
) -> tuple[str, ...]:
    """Deletes the key files that hold nothing but retired keys.

    What a file system keeps of a deleted file, and what was copied from it before, is out of our reach.

    Args:
        layout: the state folder.
        ring: what is registered.
        retired: vkeys.
        absent: files that are known to be gone, and not looked at.

    Returns:
        What could not be deleted, a line each.
    """
    left = []
    needed = {key_file(layout, key) for key in ring.keys if _is_soft(key) and str(key.vkey) not in retired}
    for path in sorted(_files(layout, ring) - needed - set(absent)):
        try:
            inside = softkey.read_public(path).vkeys
        except KeyAbsent as error:
            # Absent is what a file is too that only another user may read: that one still holds its secrets.
            if not isinstance(error.__cause__, FileNotFoundError):
                left.append(f"{path.name} is not deleted yet: {error.reason}; the next start does it")
            continue
        except KeystoreError as error:
            left.append(f"{path.name}: {error.reason}")
            continue
        if not {str(vkey) for vkey in inside} <= set(retired):
            continue
        try:
            path.unlink(missing_ok=True)
            folder = os.open(layout.keys, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            left.append(f"{path.name} is not deleted yet: {error.strerror}; the next start does it")
    return tuple(left)


def destroy_in_devices(
    host: HostClient | None, ring: Ring, secrets: Mapping[str, str | None], retired: Collection[str]
) -> tuple[str, ...]:
    """Has devices make retired keys impossible: a counter moves on, a key object is destroyed.

    Blocks, for as long as the devices take.

    Returns:
        What no device destroyed, a line each.
    """
    left: list[str] = []
    done: list[Place] = []
    for key, place in _places(ring, retired):
        if place in done:  # two keys of one identity: the device ends both at once
            continue
        done.append(place)
        what = f"{key.vkey.name}+{key.vkey.key_id.hex()} in {place.device}"
        if others := _hanging_on(ring, place, retired):
            left.append(f"{what} stays there: {', '.join(others)} is made of the same secret")
            continue
        if host is None:
            left.append(f"{what} stays there: the device was not opened")
            continue
        try:
            _retire(host, ring, place, secrets.get(place.device))
        except KeystoreError as error:
            if not isinstance(error, KeyAbsent) or "no key" not in error.reason:
                left.append(f"{what} stays there: {error.reason}")
    return tuple(left)


def _retire(host: HostClient, ring: Ring, place: Place, secret: str | None) -> None:
    entry = ring.device(place.device)
    worker = f"{entry.name} (retiring)"  # its own: whatever else asks the device is not disturbed
    try:
        answer = host.call(
            worker, "open", DEADLINE, backend=entry.backend, settings=dict(entry.settings), secret=secret
        )
        if entry.unique_id and answer["unique_id"] != entry.unique_id:
            raise KeyInvalid(f"another device answers as {entry.name}")
        host.call(worker, "retire", DEADLINE, locator=dict(place.locator))
    finally:
        host.call(worker, "close", DEADLINE)


def _files(layout: StateLayout, ring: Ring) -> set[Path]:
    return {key_file(layout, key) for key in ring.keys if _is_soft(key)}


def _is_soft(key: KeyEntry) -> bool:
    return key.how == "soft"


def _places(ring: Ring, retired: Collection[str]) -> Iterator[tuple[KeyEntry, Place]]:
    for key in ring.witness_keys:
        if key.how != "soft" and str(key.vkey) in retired:
            for place in key.places:
                yield key, place


def _hanging_on(ring: Ring, place: Place, retired: Collection[str]) -> list[str]:
    return [
        f"{key.vkey.name}+{key.vkey.key_id.hex()}"
        for key in ring.keys
        if str(key.vkey) not in retired and place in key.places
    ]
