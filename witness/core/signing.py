"""The desk where requests wait for keys that take their time, and how many may.

Keys in the core's own memory sign in a judge's thread, in less time than handing over would take. A key in a
device may need a tenth of a second: judges must not wait for it, since they also answer everything that is
refused. So requests that were judged good come here, and no more of them than the devices can answer within
the budget: who would come too late is told at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from witness.core.cosigner import Cosigner
from witness.core.refusals import CoreError, Overloaded

_THREADS_A_LANE: Final = 2
"""One waits for the device while the other computes what is computed here."""


class SigningDesk:
    """Admits and signs. Everything but the jobs runs on the event loop's thread.

    Args:
        cosigner: the keys, some of them slow.
        budget: seconds that an admitted request may wait, by the devices' measured times.
    """

    def __init__(self, cosigner: Cosigner, budget: float) -> None:
        self._cosigner = cosigner
        self._budget = budget
        self._admitted = 0
        self._running = 0
        self._size = _THREADS_A_LANE * cosigner.most_lanes
        self._threads = ThreadPoolExecutor(self._size, "signer")

    def admit(self) -> CoreError | None:
        """Lets one more request in, which must `leave` again; or says why not."""
        unavailable = self._cosigner.unavailable()
        if unavailable is not None:
            return unavailable
        if self.full:
            return Overloaded(retry_after=1)
        self._admitted += 1
        return None

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return self._admitted >= self._cosigner.capacity(self._budget)

    def leave(self) -> None:
        """An admitted request was answered, whatever the answer."""
        self._admitted -= 1

    @property
    def free(self) -> bool:
        """Whether a job would be started at once."""
        return self._running < self._size

    def start(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Starts a job on a thread; `ended` must follow its end."""
        self._running += 1
        return self._threads.submit(job, *arguments)

    def ended(self) -> None:
        """A job ended."""
        self._running -= 1

    def shutdown(self) -> None:
        """Waits for the jobs that run, and ends the threads."""
        self._threads.shutdown()
