"""Why the core says no: every refusal is a type with its facts as fields.

Two families, as in the field's best clients:

- `Refusal`: the caller, or the log behind it, is wrong. Expected, counted, answered.
- `Unavailable`: the world failed (a key, the disk, the clock, the socket). Alarmed, and worth retrying.

The HTTP status of each stands in one table, `witness.front.endpoints.STATUS`; nothing else decides it.
Each class is a dataclass, so that it crosses the process boundary as its code and its fields. (Not a frozen
one: the standard library assigns `__traceback__` to exceptions that pass through a context manager.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


class CoreError(Exception):
    """Anything the core answers instead of a signature. `str()` is one plain line for the caller."""

    code: ClassVar[str] = "core-error"

    def __str__(self) -> str:
        return self.code

    def facts(self) -> dict[str, Any]:
        """The fields as JSON-ready values, in the order of their definition."""
        return dict(vars(self))


class Refusal(CoreError):
    """The caller or the log is wrong."""


class Unavailable(CoreError):
    """The world failed; the same request may succeed later."""


@dataclass(unsafe_hash=True)
class MalformedRequest(Refusal):
    """The body is not of the form the specification gives."""

    code: ClassVar[str] = "malformed"
    reason: str

    def __str__(self) -> str:
        return f"malformed request: {self.reason}"


@dataclass(unsafe_hash=True)
class UnknownOrigin(Refusal):
    """No log of this origin is configured."""

    code: ClassVar[str] = "unknown-origin"
    origin: str

    def __str__(self) -> str:
        return f"unknown log: origin {self.origin!r} is not configured at this witness"


@dataclass(unsafe_hash=True)
class DisabledLog(Refusal):
    """The log is known, and an operator has switched it off."""

    code: ClassVar[str] = "disabled-log"
    origin: str

    def __str__(self) -> str:
        return f"unknown log: origin {self.origin!r} is disabled at this witness"


@dataclass(unsafe_hash=True)
class NoTrustedSignature(Refusal):
    """No signature line carries the name and key ID of a key trusted for the origin."""

    code: ClassVar[str] = "no-trusted-signature"
    origin: str

    def __str__(self) -> str:
        return f"no signature from a key trusted for origin {self.origin!r}"


@dataclass(unsafe_hash=True)
class InvalidSignature(Refusal):
    """A line with a trusted name and key ID does not verify: the whole note is malformed."""

    code: ClassVar[str] = "invalid-signature"
    key_name: str
    key_id: str

    def __str__(self) -> str:
        return f"invalid signature by {self.key_name}+{self.key_id}"


@dataclass(unsafe_hash=True)
class UnsignedExtensions(Refusal):
    """Extension lines that none of the log's verified signatures covers: anybody could have added them."""

    code: ClassVar[str] = "unsigned-extensions"
    origin: str

    def __str__(self) -> str:
        return "the checkpoint has extension lines, and an ML-DSA-44 signature alone does not cover them"


@dataclass(unsafe_hash=True)
class OldSizeTooLarge(Refusal):
    """The old size is larger than the checkpoint's."""

    code: ClassVar[str] = "old-size-too-large"
    old_size: int
    size: int

    def __str__(self) -> str:
        return f"old size {self.old_size} is larger than the checkpoint's size {self.size}"


@dataclass(unsafe_hash=True)
class StaleOldSize(Refusal):
    """The old size is not that of the latest checkpoint cosigned; `known` is."""

    code: ClassVar[str] = "stale-old-size"
    known: int

    def __str__(self) -> str:
        return f"the latest cosigned checkpoint has size {self.known}"


@dataclass(unsafe_hash=True)
class WrongEmptyRoot(Refusal):
    """A checkpoint of size zero with a root that is not the empty tree's."""

    code: ClassVar[str] = "wrong-empty-root"
    origin: str

    def __str__(self) -> str:
        return "a checkpoint of size 0 must have the root hash of the empty tree"


@dataclass(unsafe_hash=True)
class RootMismatch(Refusal):
    """Same size, another root: the log contradicts itself. Kept as evidence."""

    code: ClassVar[str] = "root-mismatch"
    origin: str
    size: int

    def __str__(self) -> str:
        return f"root mismatch: a checkpoint of size {self.size} with another root hash was cosigned before"


@dataclass(unsafe_hash=True)
class InvalidProof(Refusal):
    """The consistency proof does not verify, or is there where none belongs."""

    code: ClassVar[str] = "invalid-proof"
    old_size: int
    size: int
    reason: str

    def __str__(self) -> str:
        return f"invalid consistency proof from size {self.old_size} to {self.size}: {self.reason}"


@dataclass(unsafe_hash=True)
class InvalidSubtree(Refusal):
    """`[start, end)` is no valid subtree, or ends beyond the checkpoint."""

    code: ClassVar[str] = "invalid-subtree"
    start: int
    end: int
    reason: str

    def __str__(self) -> str:
        return f"[{self.start}, {self.end}) cannot be signed: {self.reason}"


@dataclass(unsafe_hash=True)
class InvalidSubtreeProof(Refusal):
    """The subtree consistency proof does not verify."""

    code: ClassVar[str] = "invalid-subtree-proof"
    start: int
    end: int
    size: int
    reason: str

    def __str__(self) -> str:
        subtree = f"[{self.start}, {self.end}) in size {self.size}"
        return f"invalid subtree consistency proof of {subtree}: {self.reason}"


@dataclass(unsafe_hash=True)
class NoOwnCosignature(Refusal):
    """sign-subtree: the reference checkpoint carries no valid cosignature of ours."""

    code: ClassVar[str] = "no-own-cosignature"
    origin: str

    def __str__(self) -> str:
        return "the checkpoint carries no valid cosignature of this witness"


@dataclass(unsafe_hash=True)
class SubtreesUnsupported(Refusal):
    """sign-subtree: this witness has no key whose cosignature format covers subtrees."""

    code: ClassVar[str] = "subtrees-unsupported"

    def __str__(self) -> str:
        return "this witness has no ML-DSA-44 key and signs no subtrees"


@dataclass(unsafe_hash=True)
class NoCheckpoint(Refusal):
    """No checkpoint was ever cosigned for this origin hash."""

    code: ClassVar[str] = "no-checkpoint"
    origin_hash: str

    def __str__(self) -> str:
        return f"no checkpoint cosigned for origin hash {self.origin_hash}"


@dataclass(unsafe_hash=True)
class Overloaded(Refusal):
    """More waits than can be answered in time; come back in `retry_after` seconds."""

    code: ClassVar[str] = "overloaded"
    retry_after: int

    def __str__(self) -> str:
        return f"overloaded: try again in {self.retry_after} s"


@dataclass(unsafe_hash=True)
class ClockBehind(Unavailable):
    """The clock runs behind a timestamp already issued (seconds since the epoch)."""

    code: ClassVar[str] = "clock-behind"
    now: int
    issued: int

    def __str__(self) -> str:
        return f"the witness's clock ({self.now}) is behind a timestamp it has issued ({self.issued})"


@dataclass(unsafe_hash=True)
class ClockWrong(Unavailable):
    """The clock is plainly wrong: before this program was made, or far from where it must be."""

    code: ClassVar[str] = "clock-wrong"
    now: int
    reason: str

    def __str__(self) -> str:
        return f"the witness's clock ({self.now}) is wrong: {self.reason}"


@dataclass(unsafe_hash=True)
class StateBehind(Unavailable):
    """State is older than what this identity has signed: nothing is signed until an operator decides.

    `have` is the tree size that our state has for the origin (-1 for none), `seen` the larger or later one
    that this identity has signed, `source` where that was seen.
    """

    code: ClassVar[str] = "state-behind"
    origin: str
    have: int
    seen: int
    source: str

    def __str__(self) -> str:
        have = "no checkpoint" if self.have < 0 else f"size {self.have}"
        return (
            f"the witness's state is older than what it has signed: {self.origin!r} has {have} here,"
            f" and size {self.seen} was cosigned ({self.source})"
        )


@dataclass(unsafe_hash=True)
class SigningStopped(Unavailable):
    """An alarm other than old state stops signing until an operator settles it."""

    code: ClassVar[str] = "signing-stopped"
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"the witness signs nothing ({self.kind}): {self.reason}"


@dataclass(unsafe_hash=True)
class NotCompared(Unavailable):
    """After a start the state is first compared with what the world has of us."""

    code: ClassVar[str] = "not-compared"
    reason: str

    def __str__(self) -> str:
        return f"the witness does not sign yet: {self.reason}"


@dataclass(unsafe_hash=True)
class NotYetCosigned(Unavailable):
    """The head was fast-forwarded to what the log proved; it is served once it is cosigned anew."""

    code: ClassVar[str] = "not-yet-cosigned"
    origin_hash: str

    def __str__(self) -> str:
        return (
            f"the checkpoint for origin hash {self.origin_hash} was brought forward and is not cosigned yet"
        )


@dataclass(unsafe_hash=True)
class KeyUnavailable(Unavailable):
    """A key cannot sign now; no other key is used instead."""

    code: ClassVar[str] = "key-unavailable"
    key_name: str
    reason: str

    def __str__(self) -> str:
        return f"key {self.key_name} cannot sign now: {self.reason}"


@dataclass(unsafe_hash=True)
class StoreUnavailable(Unavailable):
    """State could not be made durable; nothing was signed."""

    code: ClassVar[str] = "store-unavailable"
    reason: str

    def __str__(self) -> str:
        return f"state cannot be stored now: {self.reason}"


@dataclass(unsafe_hash=True)
class Stopping(Unavailable):
    """The core is on its way out and takes nothing new."""

    code: ClassVar[str] = "stopping"

    def __str__(self) -> str:
        return "the witness is stopping"


@dataclass(unsafe_hash=True)
class CoreUnreachable(Unavailable):
    """The front has no connection to the core (made by the client, never by the core)."""

    code: ClassVar[str] = "core-unreachable"
    reason: str

    def __str__(self) -> str:
        return f"the witness's core does not answer: {self.reason}"


@dataclass(unsafe_hash=True)
class InternalError(Unavailable):
    """A bug: the core met an exception it does not know. Details are in its log, not here."""

    code: ClassVar[str] = "internal-error"

    def __str__(self) -> str:
        return "internal error; the witness's log has the details"


def _leaves(cls: type[CoreError]) -> list[type[CoreError]]:
    subclasses = cls.__subclasses__()
    return [leaf for sub in subclasses for leaf in _leaves(sub)] if subclasses else [cls]


BY_CODE: dict[str, type[CoreError]] = {cls.code: cls for cls in _leaves(CoreError)}
"""Every concrete error by its code, for the wire."""
