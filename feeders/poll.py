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
from typing import TYPE_CHECKING, Final

from feeders.protocol import BadLogData, FeedLog, FetchFailed, TooLong, TooSlow, WrongProof
from feeders.states import FeederState, Status
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

__all__ = ["FeedLog", "FeederState", "LogPoller", "Rejected", "Status", "Submit"]

Submit = Callable[[bytes], Awaitable[bytes]]
"""Takes an add-checkpoint body to the core and returns its signature lines; raises the core's refusals."""

STALE_SHOWN_AFTER: Final = 3
"""Stale polls in a row before the status says so: a cache of a log's is behind now and then."""


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
        self._judged: tuple[bytes, bytes, Checkpoint] | None = None
        self.state = FeederState()

    async def poll(self) -> Status:
        """One poll; `state` has its outcome, which is returned too (there a few stale polls do not show).

        Raises:
            FetchFailed: the log's server could not be asked (state: unreachable, too-slow).
            Unavailable: the core cannot sign now (state: witness-unavailable).
            Overloaded: the core has too much to do (state: witness-unavailable).
        """
        self.state = replace(self.state, last_poll=self._now(), next_poll=None)
        try:
            await self._feed()
        except Rejected as rejected:
            return self._failed(rejected.status, rejected)
        except BadLogData as error:
            return self._failed(_kind_of(error), error)
        except FetchFailed as error:
            self._failed(_kind_of(error), error)
            raise
        except (Unavailable, Overloaded) as error:
            self._failed(Status.WITNESS_UNAVAILABLE, error)
            raise
        except (RootMismatch, InvalidProof) as refusal:
            # The source returns only proofs that lead to the checkpoint's signed root: what does not fit
            # is the history before it. The core keeps the evidence.
            return self._failed(Status.FORK, refusal)
        except StaleOldSize as refusal:
            self._learn(refusal.known)
            return self._failed(Status.REFUSED, refusal)
        except Refusal as refusal:
            return self._failed(Status.REFUSED, refusal)
        return Status.CURRENT

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
        if self._judged is not None and self._judged[0] == served:
            return self._judged[1:]  # most polls of most logs: the very bytes of the last time
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
        signed = format_note(note.text, [known.signature for known in verified])
        self._judged = (served, signed, checkpoint)
        return signed, checkpoint

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

    def _failed(self, status: Status, error: Exception) -> Status:
        before, stale = self.state, status is Status.STALE
        stale_polls = before.stale_polls + 1 if stale else 0
        # A stale cache is tolerated: it is counted by itself and is no failure of the log.
        unseen = stale and before.status is Status.CURRENT and stale_polls < STALE_SHOWN_AFTER
        self.state = replace(
            before,
            status=before.status if unseen else status,
            consecutive_failures=0 if stale else before.consecutive_failures + 1,
            stale_polls=stale_polls,
            last_error=str(error),
        )
        return status


def _kind_of(error: BadLogData | FetchFailed) -> Status:
    match error:
        case TooSlow():
            return Status.TOO_SLOW
        case FetchFailed():
            return Status.UNREACHABLE
        case TooLong():
            return Status.TOO_LONG
        case WrongProof():
            return Status.WRONG_PROOF
        case _:
            return Status.BAD_DATA
