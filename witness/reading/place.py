"""How far a log was followed, kept in a folder so that it survives whatever ends the program.

The folder holds `place.json`, a lock, and evidence if the log was seen to fork. A write is whole or not at
all: a new file, fsync, rename, fsync of the folder. What cannot be read is an error, never a fresh start: to
begin anew would forget what the log has signed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from witness.bundles.evidence import Evidence, format_evidence
from witness.bundles.strict_json import MalformedJson, decode, integer_of, list_of, parse_object, text_of
from witness.reading.edge import Edge
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, encode_base64, parse_note

FORMAT: Final = "tlog-witness-place/v1"

_NAME: Final = "place.json"
_LOCK: Final = "lock"
_EVIDENCE: Final = "evidence-"
_MAX_SIZE: Final = 1 << 20


class BadPlace(Exception):
    """The folder cannot be used.

    Attributes:
        reason: why.
        hint: what to do about it.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was followed.

    Attributes:
        head: the newest checkpoint that was accepted, a signed note.
        edge: the tree of the entries that were handed over; its size is the index of the next one.
        written: bytes of the output file that hold them; None where there is no such file.
    """

    head: bytes
    edge: Edge = field(default_factory=Edge)
    written: int | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The head's text, parsed; it was when the place was made."""
        return parse_checkpoint(parse_note(self.head).text)


class PlaceFolder:
    """A log's place on disk. One program at a time: see `locked`.

    Args:
        folder: made where it is absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder; the kernel lets go of it with the process, however that ends.

        Raises:
            BadPlace: another program holds it, or evidence of a fork lies in it.
            OSError: it cannot be made or opened.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadPlace(f"another program follows this log in {self.folder}") from error
            self._check_evidence()
            yield
        finally:
            os.close(descriptor)

    def _check_evidence(self) -> None:
        found = sorted(self.folder.glob(f"{_EVIDENCE}*.json"))
        if found:
            raise BadPlace(
                f"the log was seen to fork: {found[0]}",
                "it proves it to third parties (witness verify); move it elsewhere to go on following",
            )

    def load(self) -> Place | None:
        """The place, or None where none was kept yet.

        Raises:
            BadPlace: there is one that cannot be read.
        """
        path = self.folder / _NAME
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        try:
            return decode_place(data)
        except (MalformedJson, MalformedNote, MalformedCheckpoint) as error:
            reason = f"{path} cannot be read: {error.reason}"
        except ValueError as error:
            reason = f"{path} cannot be read: {error}"
        raise BadPlace(reason, "restore it; without it, what the log has signed before is forgotten")

    def save(self, place: Place) -> None:
        """Keeps a place: when this returns, it is on disk.

        Raises:
            OSError: it could not be written; the one before is still there.
        """
        write_durably(self.folder / _NAME, encode_place(place))

    def keep_evidence(self, evidence: Evidence) -> Path:
        """Keeps evidence under a name of its own, for ever; returns where."""
        data = format_evidence(evidence)
        path = self.folder / f"{_EVIDENCE}{hashlib.sha256(data).hexdigest()[:16]}.json"
        write_durably(path, data)
        return path


def encode_place(place: Place) -> bytes:
    """Write a place; `decode_place` gives the same back."""
    members = {
        "format": FORMAT,
        "next": place.edge.size,
        "edge": [encode_base64(each) for each in place.edge.hashes],
        "written": place.written,
        "checkpoint": place.head.decode("utf-8"),
    }
    return json.dumps(members, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def decode_place(data: bytes) -> Place:
    """Read what `encode_place` wrote.

    Raises:
        MalformedJson, MalformedNote, MalformedCheckpoint, ValueError: it is anything else.
    """
    members = parse_object(data)
    if members.get("format") != FORMAT:
        raise MalformedJson(f"not of the format {FORMAT}")
    head = text_of(members, "checkpoint").encode("utf-8")
    checkpoint = parse_checkpoint(parse_note(head).text)
    size = _count(members, "next")
    written = None if members.get("written") is None else _count(members, "written")
    edge = Edge(size, tuple([decode(each, "a hash of edge") for each in list_of(members, "edge")]))
    if edge.size > checkpoint.size:
        raise MalformedJson("further than the checkpoint")
    if edge.size == checkpoint.size and edge.root() != checkpoint.root:
        raise MalformedJson("the edge has not the checkpoint's root")
    return Place(head, edge, written)


def _count(members: dict[str, Any], name: str) -> int:
    value = integer_of(members, name)
    if not 0 <= value <= MAX_TREE_SIZE:
        raise MalformedJson(f"{name} is no count")
    return value


def write_durably(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; it is on disk when this returns.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes what was made, renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
