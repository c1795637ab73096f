"""The garbage collector in the feeders' process, told how that process lives.

Ten thousand polled logs are some seven hundred thousand objects that stay. The collector, left alone, walks
all of them again and again for the sake of the few that come and go, and the event loop stands still
meanwhile: measured with 10,000 logs, half of the time, and seconds at once. What stays is therefore set
aside (`gc.freeze`), and the collector asked to come less often. Reference counts free what polls leave
behind, as before. What is garbage is collected first: nothing that was set aside is ever looked at again.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Final

THRESHOLDS: Final = (100_000, 50, 1000)
"""Allocations before a young collection, and collections before an older one (the default is 700, 10, 10)."""
ROUND: Final = 10.0
"""Seconds from one look to the next."""
ROUNDS: Final = 12
"""Looks for which newcomers are set aside after a change: until each new log was polled, and has grown."""


def _collect_and_freeze() -> None:
    gc.collect()
    gc.freeze()


async def set_aside_what_stays(
    logs: Callable[[], int],
    *,
    freeze: Callable[[], None] = _collect_and_freeze,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Keeps the collector away from what stays, until cancelled.

    Args:
        logs: how many logs are polled.
        freeze: sets aside all objects that there are.
        sleep: waits for seconds.
    """
    gc.set_threshold(*THRESHOLDS)
    known, rounds = 0, 0
    while True:
        await sleep(ROUND)
        count = logs()
        if count != known:
            known, rounds = count, ROUNDS
        if rounds:
            rounds -= 1
            freeze()
