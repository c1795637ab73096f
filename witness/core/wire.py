"""The framed protocol between the core and its fronts, and the values that cross it.

A Unix stream socket carries frames in both directions. All integers are big-endian:

    request   u32 length | u32 request id | u8 verb | payload
    reply     u32 length | u32 request id | u8 kind | payload

`length` counts what follows it. Replies come in any order; the request id pairs them. The verbs are few
on purpose: none exports a key, none signs bytes of the caller's choosing, none changes which logs are
trusted. A front in an attacker's hands can ask only what any client of the witness can ask.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from witness.core.refusals import BY_CODE, CoreError, InternalError

MAX_BODY = 128 * 1024
"""Bytes of an add-checkpoint or sign-subtree body, at most (DESIGN.md: ML-DSA lines are 3.2 kB each)."""
MAX_REQUEST = MAX_BODY + 64
"""Bytes of a request frame after its length field, at most."""
MAX_REPLY = 16 * 1024 * 1024
"""Bytes of a reply frame after its length field, at most."""

_MAX_DIGITS = 18  # of a number that SQLite's 64 bits surely hold
_HEADER = struct.Struct(">IIB")
_OVERHEAD = _HEADER.size - 4  # what `length` counts besides the payload


class Verb(IntEnum):
    """What a front may ask of the core."""

    ADD_CHECKPOINT = 1
    SIGN_SUBTREE = 2
    CHECKPOINT = 3
    STATUS = 4
    LOGS = 5
    CHANGES = 6
    SEEN = 7
    COMPARED = 8


class Kind(IntEnum):
    """What a reply holds."""

    OK = 0
    ERROR = 1


class WireError(Exception):
    """The peer broke the framing; the connection is of no further use."""


def encode_frame(request_id: int, tag: int, payload: bytes) -> bytes:
    """One frame; `tag` is a `Verb` in requests and a `Kind` in replies."""
    return _HEADER.pack(len(payload) + _OVERHEAD, request_id, tag) + payload


class FrameReader:
    """Cuts a byte stream into frames; no I/O of its own.

    Args:
        limit: bytes of a frame after its length field, at most.
    """

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Takes bytes as they came and returns the frames now complete, as (request id, tag, payload).

        Raises:
            WireError: a frame is longer than the limit, or shorter than its own header.
        """
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, int, bytes]] = []
        at = 0
        available = len(buffer)
        while available - at >= _HEADER.size:
            length, request_id, tag = _HEADER.unpack_from(buffer, at)
            if not _OVERHEAD <= length <= self._limit:
                raise WireError(f"frame of {length} bytes")
            end = at + 4 + length
            if end > available:
                break
            frames.append((request_id, tag, bytes(buffer[at + _HEADER.size : end])))
            at = end
        if at:
            del buffer[:at]
        return frames


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A signing key as the operator sees it: `state` is ready, locked, absent, hung, refused or invalid.

    `rate` is what its devices have been measured at together, in signatures a second; 0 where it is held in
    the core's memory.
    """

    vkey: str
    algorithm: str
    backend: str
    state: str
    detail: str = ""
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class LockdownStep:
    """One step of a process's lock-down: `state` is done, unavailable (here), or off; `detail` says more."""

    name: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """How the core is.

    `started` and `last_issued` are POSIX seconds; `refusals` counts by code; `stages` are seconds spent in
    all (queue, judge, commit). `ready` is False while the core would refuse every signature, and `reasons`
    then says why, one line each. `warnings` never stop anything. `alarms` stand until an operator settles
    them, one line each. `audit` is the record's head: the last entry's number and its hash; `attested_head`
    the latest that was attested, a signed note, empty where nothing attests it. `restarts` and `hung` count
    how often the core was started anew since `witness run` began: it had ended, or was silent. `counter` is
    the rollback counter's device, its value, and when it was moved (POSIX seconds); empty without one.
    `rotation` tells of a rotation of the keys that is under way.
    """

    name: str
    version: str
    pid: int
    started: float
    ready: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    keys: tuple[KeyInfo, ...]
    logs: int
    heads: int
    pending: int
    last_issued: int
    accepted: int
    commits: int
    contradictions: int
    refusals: dict[str, int]
    stages: dict[str, float]
    selftests: tuple[str, ...]
    lockdown: tuple[LockdownStep, ...] = ()
    alarms: tuple[str, ...] = ()
    audit: str = ""
    restarts: int = 0
    hung: int = 0
    counter: str = ""
    attested_head: str = ""
    rotation: str = ""


@dataclass(frozen=True, slots=True)
class LogInfo:
    """A configured log: what feeders, metrics and pages need of it.

    `interval` is seconds between polls, `qpd` requests a day, `size` the latest cosigned tree size (-1 before
    the first cosignature) and `timestamp` its POSIX seconds.
    """

    origin: str
    vkeys: tuple[str, ...]
    disabled: bool
    feeder: str
    url: str | None
    interval: float | None
    qpd: int | None
    contact: str | None
    size: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class LogPage:
    """Logs whose configuration changed after the asked change number, oldest change first.

    Ask again with `change` while `more` is true, and later to learn what is new.
    """

    change: int
    more: bool
    logs: tuple[LogInfo, ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the core's sequence of head changes. `epoch` names one run of the core."""

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Origins whose latest cosigned checkpoint moved since a cursor, each once.

    After a restart of the core, or with no cursor, all origins that have one are named.
    """

    cursor: Cursor
    more: bool
    origins: tuple[str, ...]


MAX_SOURCE = 200
"""Bytes of the name of the place where a cosignature of ours was seen."""


class Core(Protocol):
    """What the core does for its callers. All raise `Refusal` or `Unavailable` types, nothing else."""

    async def add_checkpoint(self, body: bytes) -> bytes:
        """The cosignature lines for an add-checkpoint body (tlog-witness, add-checkpoint)."""
        ...

    async def sign_subtree(self, body: bytes) -> bytes:
        """The cosignature lines for a sign-subtree body (tlog-witness, sign-subtree)."""
        ...

    async def checkpoint(self, origin_hash: bytes) -> bytes:
        """The latest cosigned checkpoint, as a note, by the 32-byte SHA-256 of its origin."""
        ...

    async def status(self) -> CoreStatus:
        """How the core is."""
        ...

    async def logs(self, since: int = 0) -> LogPage:
        """Configured logs that changed after change number `since`, a page at a time."""
        ...

    async def changes(self, cursor: Cursor | None = None) -> Changes:
        """Heads that moved since the cursor, a page at a time."""
        ...


def encode_seen(source: str, note: bytes) -> bytes:
    """The payload of `Verb.SEEN`: where a checkpoint with a cosignature of ours was seen, and the note."""
    line = " ".join("".join(c if c.isprintable() else " " for c in source).split())
    return line.encode()[:MAX_SOURCE] + b"\n" + note


def decode_seen(payload: bytes) -> tuple[str, bytes]:
    """What `encode_seen` wrote.

    Raises:
        WireError: it is something else.
    """
    line, newline, note = payload.partition(b"\n")
    if not newline or len(line) > MAX_SOURCE:
        raise WireError("not a place and a note")
    return line.decode("utf-8", "replace"), note


def encode_error(error: CoreError) -> bytes:
    """An error as its code and facts."""
    return json.dumps([error.code, error.facts()]).encode()


def decode_error(payload: bytes) -> CoreError:
    """The error that `encode_error` wrote; an unknown one becomes `InternalError`."""
    try:
        code, facts = json.loads(payload.decode())
        return BY_CODE[code](**facts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return InternalError()


def encode_value(value: CoreStatus | LogPage | Changes | Cursor) -> bytes:
    """A status, page or cursor as JSON."""
    return json.dumps(dataclasses.asdict(value), separators=(",", ":"), ensure_ascii=False).encode()


def decode_status(payload: bytes) -> CoreStatus:
    """The status that `encode_value` wrote.

    Raises:
        WireError: it is none.
    """
    fields = _fields(payload)
    try:
        fields["keys"] = tuple(KeyInfo(**key) for key in fields["keys"])
        fields["lockdown"] = tuple(LockdownStep(**step) for step in fields["lockdown"])
        for name in ("reasons", "warnings", "selftests", "alarms"):
            fields[name] = tuple(fields[name])
        return CoreStatus(**fields)
    except (KeyError, TypeError) as error:
        raise WireError(f"not a status: {error}") from error


def decode_logs(payload: bytes) -> LogPage:
    """The page that `encode_value` wrote.

    Raises:
        WireError: it is none.
    """
    fields = _fields(payload)
    try:
        logs = tuple(LogInfo(**{**log, "vkeys": tuple(log["vkeys"])}) for log in fields["logs"])
        return LogPage(change=fields["change"], more=fields["more"], logs=logs)
    except (KeyError, TypeError) as error:
        raise WireError(f"not a page of logs: {error}") from error


def decode_changes(payload: bytes) -> Changes:
    """The changes that `encode_value` wrote.

    Raises:
        WireError: they are none.
    """
    fields = _fields(payload)
    try:
        cursor = Cursor(**fields["cursor"])
        return Changes(cursor=cursor, more=fields["more"], origins=tuple(fields["origins"]))
    except (KeyError, TypeError) as error:
        raise WireError(f"no changes: {error}") from error


def encode_since(change: int) -> bytes:
    """A change number, as the payload of `Verb.LOGS`: ASCII decimal."""
    return str(change).encode()


def decode_since(payload: bytes) -> int:
    """The change number that `encode_since` wrote; 0 for an empty payload.

    Raises:
        WireError: it is none.
    """
    if not payload:
        return 0
    if len(payload) > _MAX_DIGITS or not payload.isdigit():
        raise WireError("not a change number")
    return int(payload)


def decode_cursor(payload: bytes) -> Cursor | None:
    """A cursor, or None for an empty payload.

    Raises:
        WireError: it is neither.
    """
    if not payload:
        return None
    fields = _fields(payload)
    epoch, sequence = fields.get("epoch"), fields.get("sequence")
    if not isinstance(epoch, str) or not isinstance(sequence, int):
        raise WireError("not a cursor")
    return Cursor(epoch, sequence)


def _fields(payload: bytes) -> dict[str, Any]:
    try:
        # Decoded here: json would guess UTF-16 and load its codec, which a locked-down core may not.
        value = json.loads(payload.decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WireError("not a JSON object")
    return value
