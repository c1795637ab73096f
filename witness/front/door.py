"""The door: every request from outside to the core passes here, whatever carried it.

It admits or sheds, asks the core, turns refusals into replies, counts and logs. A carrier brings the body,
bounded, and sends the reply.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from witness.core import refusals
from witness.core.refusals import CoreError, Overloaded, StaleOldSize
from witness.front import endpoints
from witness.front.metrics import ADD_CHECKPOINT, CHECKPOINT, SIGN_SUBTREE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from witness.core.wire import Core
    from witness.front.endpoints import Reply
    from witness.front.metrics import FrontMetrics

QUIET = 10.0
"""Seconds for which a line above DEBUG is not repeated; anybody may send the same bytes again and again."""

_LEVELS: dict[type[CoreError], int] = {
    refusals.RootMismatch: logging.ERROR,
    refusals.InternalError: logging.ERROR,
    refusals.InvalidSignature: logging.WARNING,
    # Signed by the log's own key, and yet not consistent: the log, or what feeds us from it, is broken.
    refusals.InvalidProof: logging.WARNING,
    refusals.WrongEmptyRoot: logging.WARNING,
    refusals.ClockBehind: logging.WARNING,
    refusals.KeyUnavailable: logging.WARNING,
    refusals.StoreUnavailable: logging.WARNING,
    refusals.CoreUnreachable: logging.WARNING,
}
"""Levels of refusals that an operator should see; all others, stale sizes above all, are DEBUG."""

_log = logging.getLogger(__name__)


class Door:
    """The core's public endpoints with admission, counts and a log line.

    Args:
        core: the core.
        metrics: where answers are counted.
        max_in_flight: requests that may wait for the core at once.
        clock: seconds, of any epoch.
    """

    def __init__(
        self,
        core: Core,
        metrics: FrontMetrics,
        *,
        max_in_flight: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.in_flight = 0
        self._core = core
        self._metrics = metrics
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._lines: dict[str, float] = {}

    @property
    def full(self) -> bool:
        """Whether a further request would be shed. Carriers look before they read a body."""
        return self.in_flight >= self._max_in_flight

    def shed(self, endpoint: str) -> Reply:
        """The reply to a request that is refused for there being too many."""
        self._metrics.shed()
        return self.answered(endpoint, endpoints.refusal(Overloaded(retry_after=1)))

    def answered(self, endpoint: str, reply: Reply, seconds: float | None = None) -> Reply:
        """Counts a reply and gives it back."""
        self._metrics.answered(endpoint, reply.outcome, seconds)
        return reply

    async def add_checkpoint(self, body: bytes) -> Reply:
        """The answer to an add-checkpoint body; raises nothing."""
        reply = await self._post(ADD_CHECKPOINT, endpoints.add_checkpoint, body)
        if reply.outcome is endpoints.OK:
            # The core accepted the body, so this is where a configured origin stands in it.
            self._metrics.accepted(_origin_line(body))
        return reply

    async def sign_subtree(self, body: bytes) -> Reply:
        """The answer to a sign-subtree body; raises nothing."""
        return await self._post(SIGN_SUBTREE, endpoints.sign_subtree, body)

    async def checkpoint(self, origin_hash: str, if_none_match: str | None) -> Reply:
        """The answer to a monitor; raises nothing."""
        began = self._clock()
        try:
            reply = await endpoints.checkpoint(self._core, origin_hash, if_none_match)
        except CoreError as error:
            self._report(CHECKPOINT, error, b"")
            reply = endpoints.refusal(error)
        return self.answered(CHECKPOINT, reply, self._clock() - began)

    async def _post(
        self, endpoint: str, ask: Callable[[Core, bytes], Awaitable[Reply]], body: bytes
    ) -> Reply:
        if self.full:
            return self.shed(endpoint)
        began = self._clock()
        self.in_flight += 1
        try:
            reply = await ask(self._core, body)
        except CoreError as error:
            self._report(endpoint, error, body)
            reply = endpoints.refusal(error)
        finally:
            self.in_flight -= 1
        return self.answered(endpoint, reply, self._clock() - began)

    def _report(self, endpoint: str, error: CoreError, body: bytes) -> None:
        level = _LEVELS.get(type(error), logging.DEBUG)
        if not _log.isEnabledFor(level):
            return
        facts = " ".join(f"{name}={value!r}" for name, value in error.facts().items())
        if level == logging.DEBUG:
            if isinstance(error, StaleOldSize):
                # The caller's own words, unverified, escaped and cut: who it claims to be and what it asked.
                asked = body.partition(b"\n")[0]
                facts += f" asked={asked[:40]!r} origin={_origin_line(body)[:255]!r}"
            _log.debug("%s refused code=%s %s", endpoint, error.code, facts)
            return
        now = self._clock()
        key = f"{error.code} {facts}"
        if now - self._lines.get(key, float("-inf")) < QUIET:
            return
        if len(self._lines) >= 1024:  # noqa: PLR2004  # enough to be quiet, little enough to hold
            self._lines.clear()
        self._lines[key] = now
        _log.log(level, "%s refused code=%s %s", endpoint, error.code, facts)


def _origin_line(body: bytes) -> bytes:
    """The origin in an add-checkpoint body of the right form: the line after the first empty one."""
    start = body.find(b"\n\n") + 2
    return body[start : body.find(b"\n", start)]
