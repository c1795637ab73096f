"""Is our state behind what this identity has signed? Pure comparisons; what comes of them is the guard's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from witness.core.book import LogBook
from witness.core.continuity.highwater import Mark, Marks
from witness.core.store.alarms import Alarm, Kind
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.cosignature import parse_timestamped
from witness.tlog.note import MalformedNote, VerifierKey, parse_note
from witness.tlog.signature import InvalidNoteSignature, verify_note

HIGH_WATER = "the high-water record"


@dataclass(frozen=True, slots=True)
class OwnCosignature:
    """What a note says that we have signed: the checkpoint, and the latest of our timestamps on it."""

    checkpoint: Checkpoint
    timestamp: int


def own_cosignature(data: bytes, vkeys: Sequence[VerifierKey]) -> OwnCosignature | None:
    """What a cosigned checkpoint, from wherever it comes, proves that we have signed; None for nothing.

    Nobody but this witness can make one, so that whoever brings it need not be trusted. A signature of ours
    that does not verify proves nothing, and neither does a copy that lacks ours.

    Args:
        data: a signed note, of any bytes.
        vkeys: all keys of this identity, present and past.
    """
    try:
        note = parse_note(data)
        checkpoint = parse_checkpoint(note.text)
        verified = verify_note(note, vkeys)
        stamps = [parse_timestamped(v.signature.value, v.key.type).timestamp for v in verified]
    except (MalformedNote, MalformedCheckpoint, InvalidNoteSignature):
        return None
    # Timestamp zero is a subtree's: it says nothing about a checkpoint (tlog-witness, sign-subtree).
    stamps = [stamp for stamp in stamps if stamp > 0]
    return OwnCosignature(checkpoint, max(stamps)) if stamps else None


def with_own(book: LogBook, seen: OwnCosignature, source: str, now: int, note: bytes) -> Alarm | None:
    """Holds our state against a cosignature of our own that the world has.

    What has left this core is durable and in the book before it leaves. So a cosignature of something larger,
    of another root, or of a later time than the book has, was not made from this state.
    """
    checkpoint = seen.checkpoint
    mark = Mark(checkpoint.origin, checkpoint.size, checkpoint.root, seen.timestamp, "")
    return _with_mark(book, mark, source, now, note)


@dataclass(slots=True)
class Survey:
    """How our state stands beside the high-water record.

    Attributes:
        behind: alarms, for logs whose state is older than the record.
        rekeyed: origins whose keys are others than when the record was written.
        ahead: origins that the record is yet to be told of.
    """

    behind: list[Alarm] = field(default_factory=list)
    rekeyed: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)


def survey(book: LogBook, marks: Marks, now: int) -> Survey:
    """Holds our state against the high-water record, in one pass: there may be 100,000 logs."""
    found = Survey()
    heads = marks.heads
    for mark in heads.values():
        log = book.get(mark.origin)
        head = log.head if log is not None else None
        # What is good is told first: it is what nearly all are.
        good = head is not None and (
            head.size > mark.size
            or (head.size == mark.size and head.root == mark.root and head.timestamp >= mark.timestamp)
        )
        if not good and (alarm := _with_mark(book, mark, HIGH_WATER, now, None)) is not None:
            found.behind.append(alarm)
        if log is not None and mark.keys and log.keys_digest != mark.keys:
            found.rekeyed.append(mark.origin)
        elif head is not None and (head.size != mark.size or head.timestamp != mark.timestamp):
            found.ahead.append(mark.origin)
    found.ahead += [log.origin for log in book if log.head is not None and log.origin not in heads]
    return found


def marks_of(book: LogBook, origins: Iterable[str]) -> list[Mark]:
    """The durable heads of some logs, as marks."""
    found = []
    for origin in origins:
        log = book.get(origin)
        head = log.head if log is not None else None
        if log is not None and head is not None:
            found.append(Mark(origin, head.size, head.root, head.timestamp, log.keys_digest))
    return found


def _with_mark(book: LogBook, mark: Mark, source: str, now: int, note: bytes | None) -> Alarm | None:
    log = book.get(mark.origin)
    head = log.head if log is not None else None
    if head is None or head.size < mark.size:
        kind, have = Kind.STATE_BEHIND, -1 if head is None else head.size
        detail = "" if log is not None else "the log is not even configured here"
    elif head.size > mark.size:
        return None
    elif head.root != mark.root:
        kind, have, detail = Kind.OTHER_ROOT, head.size, "another root of the same size was cosigned"
    elif head.timestamp < mark.timestamp:
        # Our own record is no second copy: it tells of what this state did, and has forgotten.
        kind, have = Kind.STATE_BEHIND if note is None else Kind.SECOND_COPY, head.size
        detail = (
            f"cosigned again {mark.timestamp - head.timestamp} s after the last time that this state knows"
        )
    else:
        return None
    return Alarm(
        kind, mark.origin, now, have, mark.size, mark.root, mark.timestamp, source, detail, note
    )  # fmt: skip
