"""One poll of one log: checkpoint, signature, proof, submission, in this order.

Rules of this file:

- Nothing is asked of a log's server for the sake of a checkpoint whose signature was not verified.
- What the log says about itself is never believed; what is submitted is judged again by the core.
- Our own idea of the core's state is a hint: it saves requests, and the core corrects it (`StaleOldSize`).
- Every outcome has a name (`Status`). Only `FetchFailed`, `Unavailable` and `Overloaded` leave `poll` as
  errors, for the caller to retry with back-off; any other exception is a bug and passes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from feeders.protocol import BadLogData, FetchFailed
from witness.core.refusals import (
    InvalidProof,
    Overloaded,
    Refusal,
    RootMismatch,
    StaleOldSize,
    Unavailable,
)
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import MalformedNote, format_note, parse_note
from witness.tlog.signature import InvalidNoteSignature, verify_note
from witness.tlog.submission import format_add_checkpoint

if TYPE_CHECKING:
    from feeders.protocol import LogSource
    from witness.tlog.checkpoint import Checkpoint
    from witness.tlog.note import VerifierKey

Submit = Callable[[bytes], Awaitable[bytes]]
"""Takes an add-checkpoint body to the core and returns its signature lines; raises the core's refusals."""


@dataclass(frozen=True, slots=True)
class FeedLog:
    """A log to poll.

    Attributes:
        origin: the checkpoint origin, which names the log.
        vkeys: the log's keys, as many as are trusted for the origin.
        kind: the family (`feeders.kinds`), or `none`.
        url: the log's prefix.
        interval: seconds from one poll to the next.
    """

    origin: str
    vkeys: tuple[VerifierKey, ...]
    kind: str
    url: str
    interval: float


class Status(StrEnum):
    """How a log's last poll ended."""

    WAITING = "waiting"
    """It was not polled yet."""
    NOT_POLLED = "not-polled"
    """Its feeder is `none`: it pushes by itself."""
    UNKNOWN_FEEDER = "unknown-feeder"
    """Its feeder is unknown, or not built yet."""
    CURRENT = "current"
    """Its latest checkpoint is cosigned."""
    STALE = "stale"
    """It served an older checkpoint than the latest cosigned one: a stale cache, or a roll-back."""
    UNREACHABLE = "unreachable"
    """Its server could not be asked; retried with back-off."""
    BAD_DATA = "bad-data"
    """It served what is no checkpoint, or tiles that do not lead to its root hash."""
    OTHER_ORIGIN = "other-origin"
    """It served a checkpoint of another origin."""
    UNKNOWN_KEY = "unknown-key"
    """None of the checkpoint's signatures is by a key trusted for the origin."""
    BAD_SIGNATURE = "bad-signature"
    """A signature by a trusted key's name and key ID does not verify."""
    FORK = "fork"
    """It signed two histories: its tiles are good, and not consistent with what we cosigned."""
    REFUSED = "refused"
    """The core refused the checkpoint for another reason."""
    WITNESS_UNAVAILABLE = "witness-unavailable"
    """Our own core cannot sign now; retried with back-off."""
    BROKEN = "broken"
    """A bug in this program ended the polling of this log; it is logged, and tried again after a pause."""


@dataclass(frozen=True, slots=True)
class FeederState:
    """What `witness status` shows of a log's feeder. Times are seconds since the epoch, None for never.

    Attributes:
        status: how the last poll ended.
        last_poll: when the last poll began.
        last_success: when a poll last found the log's latest checkpoint cosigned, or saw to it.
        size: the largest tree size that we know to be cosigned.
        consecutive_failures: polls in a row that neither succeeded nor met a stale checkpoint.
        stale_polls: polls in a row that met an older checkpoint.
        last_error: one line, empty after a success.
        next_poll: when it will be polled again.
    """

    status: Status = Status.WAITING
    last_poll: float | None = None
    last_success: float | None = None
    size: int | None = None
    consecutive_failures: int = 0
    stale_polls: int = 0
    last_error: str = ""
    next_poll: float | None = None


class Rejected(Exception):
    """The log's answer ends this poll under a named status."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class _Cosigned:
    """Our idea of the core's latest checkpoint. The root is None where only its size is known."""

    size: int = 0
    root: bytes | None = None
    when: float = float("-inf")


class LogPoller:
    """Polls one log; remembers what was cosigned, so that an unchanged log costs one request a poll.

    Args:
        log: which log.
        source: its family's client.
        submit: takes an add-checkpoint body to the core; raises the core's refusals.
        now: the time, seconds since the epoch.
        refresh: an unchanged checkpoint is cosigned anew once our cosignature is this many seconds old.
    """

    def __init__(
        self,
        log: FeedLog,
        source: LogSource,
        submit: Submit,
        now: Callable[[], float],
        refresh: float,
    ) -> None:
        self._log = log
        self._source = source
        self._submit = submit
        self._now = now
        self._refresh = refresh
        self._cosigned = _Cosigned()
        self.state = FeederState()

    async def poll(self) -> None:
        """One poll; its outcome is in `state`.

        Raises:
            FetchFailed: the log's server could not be asked (state: unreachable).
            Unavailable: the core cannot sign now (state: witness-unavailable).
            Overloaded: the core has too much to do (state: witness-unavailable).
        """
        self.state = replace(self.state, last_poll=self._now(), next_poll=None)
        try:
            await self._feed()
        except Rejected as rejected:
            self._failed(rejected.status, rejected)
        except BadLogData as error:
            self._failed(Status.BAD_DATA, error)
        except FetchFailed as error:
            self._failed(Status.UNREACHABLE, error)
            raise
        except (Unavailable, Overloaded) as error:
            self._failed(Status.WITNESS_UNAVAILABLE, error)
            raise
        except (RootMismatch, InvalidProof) as refusal:
            # The source returns only proofs that lead to the checkpoint's signed root: what does not fit
            # is the history before it. The core keeps the evidence.
            self._failed(Status.FORK, refusal)
        except StaleOldSize as refusal:
            self._learn(refusal.known)
            self._failed(Status.REFUSED, refusal)
        except Refusal as refusal:
            self._failed(Status.REFUSED, refusal)

    async def _feed(self) -> None:
        note, checkpoint = self._judge(await self._source.fetch_checkpoint())
        try:
            await self._advance(note, checkpoint)
        except StaleOldSize as refusal:
            # Somebody else fed it, or we have just started. What the core says is so, and is tried once:
            # who is overtaken a second time waits for the next poll.
            self._learn(refusal.known)
            await self._advance(note, checkpoint)

    def _judge(self, served: bytes) -> tuple[bytes, Checkpoint]:
        """The checkpoint, verified, and the note with only the signatures that were."""
        try:
            note = parse_note(served)
            checkpoint = parse_checkpoint(note.text)
        except (MalformedNote, MalformedCheckpoint) as error:
            raise Rejected(Status.BAD_DATA, f"malformed checkpoint: {error}") from error
        if checkpoint.origin != self._log.origin:
            raise Rejected(Status.OTHER_ORIGIN, f"the checkpoint is of origin {checkpoint.origin[:100]!r}")
        try:
            verified = verify_note(note, self._log.vkeys)
        except InvalidNoteSignature as error:
            raise Rejected(Status.BAD_SIGNATURE, f"invalid signature: {error}") from error
        if not verified:
            raise Rejected(Status.UNKNOWN_KEY, "no signature by a key trusted for this origin")
        return format_note(note.text, [known.signature for known in verified]), checkpoint

    async def _advance(self, note: bytes, checkpoint: Checkpoint) -> None:
        """Brings the core from the size it has (as far as we know) to this checkpoint.

        Raises:
            Rejected: the checkpoint is older.
            StaleOldSize: the core has another size than we thought.
        """
        known = self._cosigned
        if checkpoint.size < known.size:
            reason = f"a checkpoint of size {checkpoint.size} was served, {known.size} is cosigned"
            raise Rejected(Status.STALE, reason)
        unchanged = checkpoint.size == known.size and checkpoint.root == known.root
        if unchanged and self._now() - known.when < self._refresh:
            self._succeeded()
            return
        proof: tuple[bytes, ...] = ()
        if 0 < known.size < checkpoint.size:
            proof = await self._source.fetch_consistency_proof(known.size, checkpoint, known.root)
        await self._submit(format_add_checkpoint(known.size, proof, note))
        self._cosigned = _Cosigned(checkpoint.size, checkpoint.root, self._now())
        self._succeeded()

    def _learn(self, known: int) -> None:
        if known != self._cosigned.size:
            self._cosigned = _Cosigned(known)
        self.state = replace(self.state, size=known)

    def _succeeded(self) -> None:
        self.state = replace(
            self.state,
            status=Status.CURRENT,
            last_success=self._now(),
            size=self._cosigned.size,
            consecutive_failures=0,
            stale_polls=0,
            last_error="",
        )

    def _failed(self, status: Status, error: Exception) -> None:
        stale = status is Status.STALE
        self.state = replace(
            self.state,
            status=status,
            # A stale cache is tolerated: it is counted by itself and is no failure of the log.
            consecutive_failures=0 if stale else self.state.consecutive_failures + 1,
            stale_polls=self.state.stale_polls + 1 if stale else 0,
            last_error=str(error),
        )
