"""Checkpoints that were heard of: each signed by the log, with the cosignatures of all who vouch for it.

Sources are not trusted: a checkpoint counts when the log has signed it, a cosignature when it verifies, and a
set of cosignatures when `witness.bundles.verify` says that the policy holds. What did not verify is dropped,
not passed on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from witness.bundles import MalformedBundle, Options, Report, verify
from witness.bundles.evidence import SAME_SIZE, Evidence
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import (
    MAX_SIGNATURES,
    MalformedNote,
    Note,
    Signature,
    VerifierKey,
    format_note,
    parse_note,
)
from witness.tlog.policy import NONE, Policy
from witness.tlog.signature import InvalidNoteSignature, cosignature_timestamp, verify_note

_MAX_HEADS: Final = 256
"""Different checkpoints of one gathering: more sources than that are not asked."""


class BadHead(Exception):
    """No checkpoint of the log: malformed, of another origin, or without a good signature by its key."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Forked(Exception):
    """The log has signed two histories.

    Attributes:
        reason: what contradicts what.
        evidence: what convinces a third party offline.
    """

    def __init__(self, reason: str, evidence: Evidence) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence


class Trust:
    """Who is believed, as `witness.bundles` has it.

    Args:
        options: policy, keys, origin and age; nothing about an entry.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        policy = options.policy
        unwitnessed = None if policy is None else replace(policy, quorum=NONE)
        self._log_only = replace(options, policy=unwitnessed, witnesses=(), max_age=None)

    def at(self, now: int) -> Trust:
        """The same at another time, POSIX seconds: what the age of cosignatures is counted from."""
        return Trust(replace(self.options, now=now))

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys that may sign for an origin: the rule of `witness.bundles.judge.Judge.log_keys`."""
        options = self.options
        keys = [key for key in options.logs if origin in (options.origin, key.name)]
        of_policy = options.policy.logs if options.policy is not None else ()
        return tuple(dict.fromkeys([*keys, *(log.key for log in of_policy if log.key.name == origin)]))

    def witness_keys(self, lines: Iterable[Signature]) -> tuple[VerifierKey, ...]:
        """The keys of all known witnesses; one without a name (Sigsum's) may have that of any line."""
        names = dict.fromkeys(line.name for line in lines)
        keys = list(self.options.witnesses)
        for witness in self.options.policy.witnesses if self.options.policy else ():
            if witness.key is not None:
                keys.append(witness.key)
            else:
                named = [witness.key_named(name) for name in names]
                keys += [key for key in named if key is not None]
        return tuple(dict.fromkeys(keys))

    def log_report(self, note: bytes) -> Report:
        """Whether the log has signed a checkpoint, its witnesses aside; raises MalformedBundle."""
        return verify(note, self._log_only)

    def report(self, note: bytes) -> Report:
        """Whether the log has signed a checkpoint and the policy holds; raises MalformedBundle."""
        return verify(note, self.options)

    def fewest(self) -> int:
        """The least number of witnesses that can satisfy the policy."""
        asked = len(self.options.witnesses)
        return max(asked, _fewest(self.options.policy)) if self.options.policy is not None else asked

    def most(self) -> int:
        """How many witnesses are known."""
        policy = self.options.policy
        return len(self.options.witnesses) + (len(policy.witnesses) if policy is not None else 0)


def _fewest(policy: Policy) -> int:
    cost = {witness.name: 1 for witness in policy.witnesses}
    cost[NONE] = 0
    for group in policy.groups:
        cost[group.name] = sum(sorted(cost[member] for member in group.members)[: group.threshold])
    return cost[policy.quorum]


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint that the log has signed, with the signatures that verified and no others.

    Attributes:
        checkpoint: its text, parsed.
        text: the note's text.
        signatures: the log's and the known witnesses', each verified.
    """

    checkpoint: Checkpoint
    text: bytes
    signatures: tuple[Signature, ...]

    @property
    def note(self) -> bytes:
        """The signed note."""
        return format_note(self.text, self.signatures)

    @property
    def size(self) -> int:
        """The tree size."""
        return self.checkpoint.size


def read_head(data: bytes, trust: Trust) -> Head:
    """A checkpoint as some source gave it.

    Raises:
        BadHead: malformed, of another origin, not signed by the log, or with a bad line by a known key.
    """
    try:
        report = trust.log_report(data)
        note = parse_note(data)
        checkpoint = parse_checkpoint(note.text)
    except (MalformedBundle, MalformedNote, MalformedCheckpoint) as error:
        raise BadHead(f"not a signed checkpoint: {error.reason}") from error
    if not report.verified:
        raise BadHead("; ".join(check.detail for check in report.checks if not check.ok))
    keys = (*trust.log_keys(checkpoint.origin), *trust.witness_keys(note.signatures))
    try:
        verified = verify_note(note, keys)
    except InvalidNoteSignature as error:
        raise BadHead(str(error)) from error
    return Head(checkpoint, note.text, tuple(each.signature for each in verified))


class Gathering:
    """All checkpoints of one log that were heard of, and who cosigned them.

    Args:
        trust: who is believed.
    """

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._heads: dict[bytes, Head] = {}
        self._holding: dict[bytes, Report] = {}

    @property
    def heads(self) -> tuple[Head, ...]:
        """The largest first."""
        return tuple(sorted(self._heads.values(), key=lambda head: head.size, reverse=True))

    def add(self, data: bytes) -> Head:
        """Takes a checkpoint from some source.

        Raises:
            BadHead: it does not count.
            Forked: the log has signed another root at this size.
        """
        head = read_head(data, self.trust)
        for other in self._heads.values():
            if other.checkpoint.origin != head.checkpoint.origin:
                raise BadHead(f"of origin {head.checkpoint.origin!r}, not {other.checkpoint.origin!r}")
            same_size_check(other, head, self.trust)
        if head.text not in self._heads and len(self._heads) >= _MAX_HEADS:
            raise BadHead(f"more than {_MAX_HEADS} different checkpoints")
        return self._merge(head)

    def add_lines(self, head: Head, lines: Iterable[Signature]) -> Head:
        """Takes a witness's answer to add-checkpoint: signature lines for a checkpoint that was added.

        Raises:
            BadHead: a line by a known key does not verify, or none is by one.
        """
        lines = tuple(lines)
        try:
            verified = verify_note(Note(head.text, lines), self.trust.witness_keys(lines))
        except InvalidNoteSignature as error:
            raise BadHead(str(error)) from error
        if not verified:
            raise BadHead("no cosignature by a known witness")
        return self._merge(replace(head, signatures=tuple(each.signature for each in verified)))

    def best(self, above: int = -1) -> Head | None:
        """The largest checkpoint of more than `above` entries that the policy accepts."""
        for head in self.heads:
            if head.size > above and self.report(head).verified:
                return head
        return None

    def report(self, head: Head) -> Report:
        """What the policy says of a checkpoint with the cosignatures known so far."""
        if head.text not in self._holding:
            self._holding[head.text] = self.trust.report(self._heads[head.text].note)
        return self._holding[head.text]

    def _merge(self, head: Head) -> Head:
        known = self._heads.get(head.text)
        lines = dict.fromkeys((*known.signatures, *head.signatures) if known is not None else head.signatures)
        merged = replace(head, signatures=_newest(lines, self.trust, head))
        if known is None or merged != known:
            self._heads[head.text] = merged
            self._holding.pop(head.text, None)
        return merged


def _newest(lines: Iterable[Signature], trust: Trust, head: Head) -> tuple[Signature, ...]:
    """Of each key one line, of a cosigner the newest; the log's first."""
    lines = tuple(lines)
    keys = {(key.name, key.key_id): key for key in trust.witness_keys(lines)}
    kept: dict[tuple[str, bytes], Signature] = {}
    for line in lines:
        place = (line.name, line.key_id)
        if place not in kept or _time(keys.get(place), line) > _time(keys.get(place), kept[place]):
            kept[place] = line
    logs = {(key.name, key.key_id) for key in trust.log_keys(head.checkpoint.origin)}
    ordered = sorted(kept, key=lambda place: place not in logs)
    return tuple([kept[place] for place in ordered[:MAX_SIGNATURES]])


def _time(key: VerifierKey | None, line: Signature) -> int:
    return (cosignature_timestamp(key, line.value) or 0) if key is not None else 0


def same_size_check(one: Head, other: Head, trust: Trust) -> None:
    """Raises Forked when two checkpoints have one size and two roots."""
    if one.size == other.size and one.checkpoint.root != other.checkpoint.root:
        keys = trust.log_keys(one.checkpoint.origin)
        raise Forked(
            f"{one.checkpoint.origin} has signed two roots at size {one.size}",
            Evidence(SAME_SIZE, keys, (one.note, other.note)),
        )
