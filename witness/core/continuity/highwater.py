"""The high-water record: the largest state this identity is known to have signed, kept beside the database.

It is two files, `PATH.a` and `PATH.b`, of which one is current. Each is lines of `MAC JSON`. The first line
is a snapshot, the further ones are what moved since. The MAC of each line covers the MAC of the line before,
so that none can be changed, moved or taken out; only the end can be cut off, which is the same as keeping an
older record. When a file has grown, the other is written anew with the next generation number. Both stay
open from before the lock-down on, and are locked against a second process.

The record *follows* the database, a few seconds behind: it holds only what is durable there already. So a
crash never makes state look old (no false alarm), and a rollback of less than that lag goes unseen by it
(see docs/decisions/0006).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from witness.core.continuity.secret import MacKey
from witness.core.ownership import leave_to_folder
from witness.core.store.base import StoreError

FORMAT: Final = "tlog-witness high-water v1"
_MAC_HEX: Final = 64
_GROWTH: Final = 4
_SMALL: Final = 1 << 20
"""Bytes up to which a file is not worth writing anew."""


class RecordHeld(StoreError):
    """Another process has the high-water record open: a second copy of this witness runs."""


class RecordInvalid(StoreError):
    """The high-water record is not one that this witness wrote."""


class Mark(NamedTuple):  # and no dataclass: 100,000 of them are made at a start
    """What was signed for an origin: tree size, root hash, our timestamp, and a digest of its keys."""

    origin: str
    size: int
    root: bytes
    timestamp: int
    keys: str


@dataclass(slots=True)
class Marks:
    """All that the record says.

    Attributes:
        record: a random name for this record; the database knows it too.
        identity: the identifier that keys and database share.
        heads: by origin.
        issued: the largest timestamp issued, POSIX seconds.
        written: the clock when the record was last written, POSIX seconds.
        audit: number and hash of the last entry of the audit record; (0, "") for none.
        counter: what the hardware counter was to show, 0 where there is none.
        retired: vkeys that must never sign again.
        ended: what an operator ended for good: origins given up, and the empty one for the whole identity.
    """

    record: str = ""
    identity: str = ""
    heads: dict[str, Mark] = field(default_factory=dict)
    issued: int = 0
    written: int = 0
    audit: tuple[int, str] = (0, "")
    counter: int = 0
    retired: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()

    def take(self, line: dict[str, Any]) -> None:
        """Applies one line's JSON."""
        unhex = bytes.fromhex
        for origin, size, root, timestamp, keys in line.get("heads", ()):
            self.heads[origin] = Mark(origin, size, unhex(root), timestamp, keys)
        self.record = line.get("record", self.record)
        self.identity = line.get("identity", self.identity)
        self.issued = max(self.issued, line.get("issued", 0))
        self.written = line.get("written", self.written)
        self.counter = max(self.counter, line.get("counter", 0))
        if "audit" in line:
            number, digest = line["audit"]
            self.audit = (number, digest)
        if "retired" in line:
            self.retired = tuple(line["retired"])
        if "ended" in line:
            self.ended = tuple(line["ended"])


class HighWater:
    """The two open files. Not for several threads at once."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Opens and locks them.

        Args:
            path: without the suffixes `.a` and `.b`.
            create: make empty files where there are none; else they are only opened.

        Raises:
            RecordHeld: another process has them.
            OSError: they cannot be opened.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        self.path = path
        self._files: list[int] = []
        try:
            for file in slots(path):
                self._files.append(os.open(file, flags, 0o600))
                leave_to_folder(self._files[-1], file)
            try:
                fcntl.flock(self._files[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RecordHeld(
                    f"another process holds the high-water record {path}",
                    "two copies of one witness must never run: find the other and stop it",
                ) from error
        except BaseException:
            self.close()
            raise
        self._current = 0
        self._generation = 0
        self._mac = b""
        self._size = 0
        self._fresh = 0

    def close(self) -> None:
        """Lets the files go."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files = []

    @property
    def empty(self) -> bool:
        """Whether nothing was ever written."""
        return all(os.fstat(file).st_size == 0 for file in self._files)

    @property
    def grown(self) -> bool:
        """Whether it is time for a new snapshot."""
        return self._size > max(_SMALL, _GROWTH * self._fresh)

    def read(self, key: MacKey) -> Marks:
        """What the record says; what is written next continues it.

        Raises:
            RecordInvalid: neither file is whole under this key, or a line other than the last is not.
        """
        best: tuple[int, int, Marks, bytes, int, int] | None = None
        faults = []
        for slot, descriptor in enumerate(self._files):
            data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            if not data:
                continue
            try:
                generation, marks, mac, size, fresh = _parse(data, key)
            except ValueError as error:
                faults.append(str(error))
                continue
            if best is None or generation > best[0]:
                best = generation, slot, marks, mac, size, fresh
        if best is None:
            raise RecordInvalid(
                f"the high-water record {self.path} is not this witness's: {'; '.join(faults) or 'empty'}",
                "restore it; or, if it is lost for good, witness recover tells what remains",
            )
        self._generation, self._current, marks, self._mac, self._size, self._fresh = best
        os.ftruncate(self._files[self._current], self._size)  # a torn last line
        return marks

    def begin(self, key: MacKey, marks: Marks) -> None:
        """Writes a whole new snapshot into the file that is not current, and makes that current."""
        generation = self._generation + 1
        line = {
            "format": FORMAT,
            "generation": generation,
            "record": marks.record,
            "identity": marks.identity,
            "issued": marks.issued,
            "written": marks.written,
            "audit": list(marks.audit),
            "counter": marks.counter,
            "retired": list(marks.retired),
            "ended": list(marks.ended),
            "heads": _rows(marks.heads.values()),
        }
        slot = 1 - self._current
        descriptor = self._files[slot]
        text = _encode(line)
        mac = key.mac(text)
        data = mac.hex().encode() + b" " + text + b"\n"
        os.ftruncate(descriptor, 0)
        _write(descriptor, data, 0)
        self._current, self._generation, self._mac = slot, generation, mac
        self._size = self._fresh = len(data)

    def append(self, key: MacKey, heads: Iterable[Mark] = (), **more: Any) -> None:
        """Writes what moved, durably."""
        rows = _rows(heads)
        line: dict[str, Any] = {**({"heads": rows} if rows else {}), **more}
        text = _encode(line)
        mac = key.mac(self._mac, text)
        data = mac.hex().encode() + b" " + text + b"\n"
        _write(self._files[self._current], data, self._size)
        self._mac = mac
        self._size += len(data)


def slots(path: Path) -> tuple[Path, Path]:
    """The record's two files."""
    return path.with_name(path.name + ".a"), path.with_name(path.name + ".b")


def fresh(identity: str, written: int) -> Marks:
    """The record of an identity that has signed nothing."""
    return Marks(record=secrets.token_hex(8), identity=identity, written=written)


def read_only(path: Path, key: MacKey) -> Marks:
    """What a record says, without opening it for writing or locking it.

    Raises:
        RecordInvalid: it is none of ours.
        OSError: it cannot be read.
    """
    found = []
    for file in slots(path):
        data = file.read_bytes()
        try:
            found.append(_parse(data, key)[:2])
        except ValueError:
            continue
    if not found:
        raise RecordInvalid(f"the high-water record {path} is not this witness's")
    return max(found, key=lambda each: each[0])[1]


def _rows(heads: Iterable[Mark]) -> list[list[Any]]:
    return [[mark.origin, mark.size, mark.root.hex(), mark.timestamp, mark.keys] for mark in heads]


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()


def _write(descriptor: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], at + done)
    os.fsync(descriptor)


def _mac_of(text: bytes) -> bytes:
    try:
        mac = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return b""
    return mac if mac.hex().encode() == text else b""


def _parse(data: bytes, key: MacKey) -> tuple[int, Marks, bytes, int, int]:
    """Generation, content, last MAC, bytes that are good, and bytes of the snapshot; ValueError otherwise."""
    end = data.rfind(b"\n") + 1  # what follows the last newline was torn by a crash
    lines = data[:end].split(b"\n")[:-1]
    if not lines:
        raise ValueError("no whole line")
    marks = Marks()
    mac, good, generation, first = b"", 0, 0, 0
    for number, line in enumerate(lines):
        given, text = line[:_MAC_HEX], line[_MAC_HEX + 1 :]
        claimed = _mac_of(given) if line[_MAC_HEX : _MAC_HEX + 1] == b" " else b""
        if not key.fits(claimed, mac, text):
            if 0 < number == len(lines) - 1:
                break  # torn inside: as good as not written, and no more than cutting it off would do
            raise ValueError(f"line {number + 1} was not written by this witness")
        content = json.loads(text)
        if number == 0:
            if content.get("format") != FORMAT:
                raise ValueError("not a high-water record of a form this program knows")
            generation, first = content["generation"], len(line) + 1
        marks.take(content)
        mac = claimed
        good += len(line) + 1
    return generation, marks, mac, good, first
