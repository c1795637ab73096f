"""What publishing is made of: the callables it is handed, its targets, their errors, and their state.

Nothing here knows how a checkpoint was made. The publisher is handed two callables (in the daemon they
lead to the core, in a test to a dictionary) and any number of targets, and carries notes from the one to
the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from witness.core.wire import Changes, Cursor

ChangesCall = Callable[[Cursor | None], Awaitable[Changes]]
"""Origins whose cosigned checkpoint moved since the cursor, a page at a time; all of them for None.

Raises `witness.core.refusals` errors: `Refusal` for a cursor that is not understood, `Unavailable` when
the core cannot answer now.
"""

CheckpointCall = Callable[[str], Awaitable[bytes]]
"""The latest cosigned checkpoint of an origin, as a note.

Raises `witness.core.refusals` errors: `NoCheckpoint` when there is none, others when there is no answer.
"""


class Target(Protocol):
    """A place that takes cosigned checkpoints: a distributor, a folder."""

    @property
    def name(self) -> str:
        """What operators know it by; unique among the targets, and without secrets."""
        ...

    async def publish(self, origin: str, note: bytes) -> None:
        """Hands over the cosigned checkpoint of an origin, and returns once the target has it.

        Raises:
            PublishRejected: it will not succeed before somebody changes something.
            TargetUnavailable: the target takes nothing now, of whatever origin.
            PublishFailed: it did not succeed this time.
        """
        ...


class PublishFailed(Exception):
    """A checkpoint did not reach a target this time; another try may succeed.

    Attributes:
        target: the target's name.
        origin: the log whose checkpoint it was.
        reason: one printable line.
        retry_after: seconds the target asked us to wait, or None.
    """

    def __init__(self, target: str, origin: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(target, origin, reason, retry_after)
        self.target = target
        self.origin = origin
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        wait = "" if self.retry_after is None else f" (try again in {self.retry_after:.0f} s)"
        return f"{self.target}: {self.origin}: {self.reason}{wait}"


class PublishRejected(PublishFailed):
    """The target understood and said no: the same checkpoint will fare no better in a minute.

    A distributor that does not know the log or the witness, a redirect that would change the method, a
    folder that somebody laid a trap in.
    """


class TargetUnavailable(PublishFailed):
    """The target takes nothing now, whatever the origin: unreachable, overloaded, out of disk."""


@dataclass(frozen=True, slots=True)
class TargetState:
    """How one target fares, for `status`.

    Attributes:
        name: the target's name.
        published: checkpoints it took since the start.
        pending: origins that wait to be sent, or to be sent again.
        rejected: origins it refused for good; they are tried again at the next full publication.
        last_success: POSIX seconds of the latest checkpoint it took, or None.
        last_error: the latest failure as one line, kept after later successes, or None.
        last_failure: POSIX seconds of that failure, or None.
        consecutive_failures: failures since the latest success.
    """

    name: str
    published: int
    pending: int
    rejected: int
    last_success: float | None
    last_error: str | None
    last_failure: float | None
    consecutive_failures: int
