"""Making a state folder: all of it, or nothing.

Rules of this file:

- Nothing that stands is overwritten, and no existing state is touched.
- The folder is built under another name beside its place and renamed into it: there is never half a state.
  Where the place is a folder that exists and is empty (a mounted volume, systemd's StateDirectory) it is
  built inside, and the database, without which nothing runs, is moved into place last.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from witness.cli.errors import Failure
from witness.cli.importing import Imported, import_logs
from witness.cli.key_devices import DeviceKeys
from witness.cli.log_lists import ListedLog
from witness.cli.state import check_path, is_present
from witness.core.continuity.counter import COUNTER
from witness.core.keystore import keyring, softkey
from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.attesting import AttestationKeys, attest, write_attestations
from witness.core.keystore.keyring import SOFT, WITNESS, DeviceEntry, KeyEntry, Ring
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.core.store import schema
from witness.core.store.desk import Desk
from witness.core.store.logs import LogBook
from witness.tlog.note import VerifierKey

_IGNORED = frozenset({"lost+found"})  # stands in the root of every freshly made ext4 volume


@dataclass(frozen=True, slots=True)
class NewWitness:
    """What a new state is made of.

    Attributes:
        name: the witness's name.
        algorithms: its keys' algorithms.
        passphrase: what seals the key file; None leaves it unsealed.
        ed25519_seed: 32 bytes of an existing Ed25519 key, instead of a fresh one.
        device_keys: the keys that are in a device, which was prepared for them; the others are made in the
            key file.
        config: the text of witness.yaml.
        logs: logs to begin with.
        source: where those are from.
        now: POSIX seconds.
    """

    name: str
    algorithms: tuple[str, ...]
    passphrase: str | None
    ed25519_seed: bytes | None
    config: str
    logs: Sequence[ListedLog]
    source: str
    now: int
    device_keys: DeviceKeys | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """What was made."""

    vkeys: tuple[VerifierKey, ...]
    imported: Imported


def create(layout: StateLayout, new: NewWitness) -> Created:
    """Makes the state folder.

    Raises:
        Failure: a state, or anything else, stands there.
        KeystoreError, StoreError, OSError: it cannot be made; nothing is left behind.
    """
    root = layout.root
    refuse_existing(layout)
    if root.is_dir():
        return _build(root / f".init-{secrets.token_hex(4)}", new, lambda built: _move_contents(built, root))
    root.parent.mkdir(parents=True, exist_ok=True)
    building = root.parent / f".{root.name}.init-{secrets.token_hex(4)}"
    return _build(building, new, lambda built: _move_folder(built, root))


def refuse_existing(layout: StateLayout) -> None:
    """Makes sure that a state can be made in the folder.

    Raises:
        Failure: a state, or anything else, stands there, or its path is of no use.
    """
    check_path(layout)
    root = layout.root
    if is_present(layout):
        raise Failure(
            f"a witness's state stands in {root} already",
            "nothing was changed; witness run starts it, and another --state makes another witness",
        )
    if root.is_dir():
        other = sorted(path.name for path in root.iterdir() if path.name not in _IGNORED)
        if other:
            raise Failure(
                f"{root} is not empty: {other[0]} stands there", "name a folder that is new or empty"
            )
    elif root.exists() or root.is_symlink():
        raise Failure(f"{root} is not a folder", "name a folder that is new or empty")


def _build(folder: Path, new: NewWitness, place: Callable[[Path], None]) -> Created:
    folder.mkdir(mode=0o700)
    try:
        created = _fill(StateLayout(folder), new)
        _sync(folder)
        place(folder)
    except BaseException:  # an interrupted init leaves nothing behind either
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return created


def _fill(layout: StateLayout, new: NewWitness) -> Created:
    # The database and the key file carry the same identifier: neither is ever used with another's.
    identity = secrets.token_hex(16)
    ring, attesting = _make_keys(layout, new, identity)
    write_attestations(layout.attestations, attest(ring, attesting))
    layout.config.write_text(new.config, encoding="utf-8")
    layout.config.chmod(0o600)
    schema.create(layout.database, name=new.name, identity=identity, now=new.now)
    if new.device_keys is not None and new.device_keys.counter is not None:
        with Desk(layout.database) as desk:
            desk.set_fact(COUNTER, str(new.device_keys.counter))
    with LogBook(layout.database) as book:
        imported = import_logs(book, new.logs, source=new.source, now=new.now, pause=lambda _: None)
    return Created(ring.vkeys, imported)


def _make_keys(layout: StateLayout, new: NewWitness, identity: str) -> tuple[Ring, AttestationKeys]:
    held = new.device_keys
    inside = {algorithm_of(key.vkey) for key in held.keys if key.purpose == WITNESS} if held else set()
    attesting: dict[str, AttestationKey] = {}
    algorithms = tuple(algorithm for algorithm in new.algorithms if algorithm not in inside)
    if algorithms:
        seed = secrets.token_bytes(softkey.SEED_SIZE)
        softkey.create(
            layout.softkey,
            name=new.name,
            identity=identity,
            passphrase=new.passphrase,
            algorithms=algorithms,
            ed25519_seed=new.ed25519_seed,
            attestation_seed=seed,
        )
        attesting[SOFT] = softkey.attestation_key(new.name, identity, seed)
    if held is None:
        return keyring.read(layout), attesting
    soft = keyring.of_key_file(softkey.read_public(layout.softkey)).keys if algorithms else ()
    keys = sorted((*held.keys, *soft), key=lambda key: _rank(key, new.algorithms))
    devices = (held.device, DeviceEntry(SOFT, SOFT)) if soft else (held.device,)
    ring = Ring(new.name, identity, devices, tuple(keys))
    keyring.write(layout, ring)
    if held.attestation is not None:
        attesting[held.device.name] = held.attestation
    return ring, attesting


def _rank(key: KeyEntry, algorithms: Sequence[str]) -> int:
    return algorithms.index(algorithm_of(key.vkey)) if key.purpose == WITNESS else len(algorithms)


def _move_folder(built: Path, root: Path) -> None:
    try:
        built.rename(root)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise Failure(f"{root} was made by somebody else meanwhile") from error
        raise
    _sync_folder(root.parent)


def _move_contents(built: Path, root: Path) -> None:
    target = StateLayout(root)
    database = StateLayout(built).database.name
    moved: list[Path] = []
    try:
        for path in sorted(built.iterdir(), key=lambda path: path.name == database):
            moved.append(_move(path, root / path.name))  # noqa: PERF401 - what has moved is known at a fault
        built.rmdir()
        with suppress(PermissionError):  # a volume's root may belong to somebody else
            root.chmod(0o700)
    except BaseException:
        for path in moved:
            _remove(path)
        raise
    assert is_present(target)
    _sync_folder(root)


def _move(path: Path, place: Path) -> Path:
    if place.exists():  # another init was faster
        raise Failure(f"{place} was made by somebody else meanwhile")
    return path.rename(place)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Makes every file in the folder durable: a state that a power cut empties would be a lost identity."""
    for directory, _, files in os.walk(folder):
        for file in files:
            descriptor = os.open(Path(directory) / file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(directory))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
