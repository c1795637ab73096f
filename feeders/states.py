"""How a log's polling stands: every way of going well, of failing and of being fooled has its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a log's last poll ended."""

    WAITING = "waiting"
    """It was not polled yet."""
    NOT_POLLED = "not-polled"
    """Its feeder is `none`: it pushes by itself."""
    UNKNOWN_FEEDER = "unknown-feeder"
    """Its feeder is unknown, or its URL is not of the form that the feeder wants."""
    CURRENT = "current"
    """Its latest checkpoint is cosigned."""
    STALE = "stale"
    """It served an older checkpoint than the latest cosigned one: a stale cache, or a roll-back."""
    UNREACHABLE = "unreachable"
    """Its server could not be asked; retried with back-off."""
    TOO_SLOW = "too-slow"
    """Its server gave no complete answer in time (a trickle is one of these); retried with back-off."""
    TOO_LONG = "too-long"
    """It served more bytes than the resource may have; an endless answer is one of these."""
    BAD_DATA = "bad-data"
    """It served what is no checkpoint, tile or proof."""
    WRONG_PROOF = "wrong-proof"
    """It served tiles or a proof that do not lead to its checkpoint's root hash."""
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
        status: how the last poll ended; a few stale checkpoints in a row do not show.
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
