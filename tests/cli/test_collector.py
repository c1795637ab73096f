"""What stays is set aside for a while after the number of logs changes, and not for ever."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from witness.cli.collector import ROUNDS, THRESHOLDS, set_aside_what_stays


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


async def test_newcomers_are_set_aside_until_they_have_settled() -> None:
    looks = [0] * 3 + [10] * (ROUNDS + 5) + [11] * (ROUNDS + 5)
    frozen: list[int] = []
    at = 0

    async def sleep(_: float) -> None:
        nonlocal at
        at += 1
        if at > len(looks):
            await asyncio.Event().wait()

    def logs() -> int:
        return looks[at - 1]

    task = asyncio.create_task(set_aside_what_stays(logs, freeze=lambda: frozen.append(at), sleep=sleep))
    while at <= len(looks):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    first, second = 4, 4 + ROUNDS + 5
    assert frozen == [*range(first, first + ROUNDS), *range(second, second + ROUNDS)]
    assert gc.get_threshold() == THRESHOLDS
