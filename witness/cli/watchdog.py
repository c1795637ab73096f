"""Noticing a child that lives and does not answer: stopped, in a loop, or waiting for what never comes.

Silence is measured by our own wakings and not by the clock alone. Where the whole machine, or all of the
witness, stood still (a suspended laptop, a paused virtual machine, a frozen container), the clock may say
that an hour passed in which nobody answered; but nobody was asked either. So the time between two wakings
counts as no more than two ticks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

Ask = Callable[[], Awaitable[object]]
"""Asks a child anything; returns once it has answered, and raises `NoAnswer` when it cannot be asked."""

TICK: Final = 0.5
"""Seconds between two looks at the time."""


class NoAnswer(Exception):
    """The child could not be asked: nobody listens, or the connection broke."""


async def until_silent(
    ask: Ask,
    limit: float,
    *,
    tick: float = TICK,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Asks again and again; returns when there was no answer for `limit` seconds.

    Args:
        ask: one question. It is not asked again while it waits for its answer.
        limit: seconds, of which only those count that we saw pass.
        tick: seconds between two looks at the time; after an answer the next question waits for a sixth of
            `limit`, since a witness that has nothing to do shall do nothing.
        now: seconds, never set back.
        sleep: waits for seconds.
    """
    silence, seen = 0.0, now()
    asking: asyncio.Future[object] | None = None
    try:
        while silence < limit:
            if asking is None:
                asking = asyncio.ensure_future(ask())
            await sleep(tick)
            moment = now()
            silence, seen = silence + min(moment - seen, 2 * tick), moment
            if asking.done():
                answered, asking = _answered(asking), None
                if answered:
                    await sleep(limit / 6)
                    silence, seen = 0.0, now()
    finally:
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


def _answered(asking: asyncio.Future[object]) -> bool:
    try:
        asking.result()
    except NoAnswer:
        return False
    return True
