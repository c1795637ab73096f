"""Who is silent, and who merely was not asked. Time is made here: nothing waits for a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from witness.cli.watchdog import NoAnswer, until_silent

LIMIT = 30.0
TICK = 0.5


class Time:
    """A monotonic clock that advances by one tick at every look at it, and by what it is told besides."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0
        self.at: dict[int, Callable[[], None]] = {}

    def __call__(self) -> float:
        self.looks += 1
        self.now += TICK
        if self.looks in self.at:
            self.at[self.looks]()
        return self.now


async def watch(time: Time, ask, looks: int) -> bool:
    """Whether silence was found within so many looks."""
    # The real pause between two looks is nothing; what counts as passed is what `time` says.
    watching = asyncio.create_task(until_silent(ask, LIMIT, tick=TICK, now=time, sleep=no_pause))
    async with asyncio.timeout(60):
        while not watching.done() and time.looks < looks:
            await asyncio.sleep(0)
    found = watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return found


async def no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    return


async def refused() -> None:
    raise NoAnswer("nobody listens")


@pytest.mark.parametrize("ask", [never, refused])
async def test_silence_is_found_when_the_time_is_up_and_not_before(ask) -> None:
    ticks = int(LIMIT / TICK)
    assert not await watch(Time(), ask, ticks - 1)
    assert await watch(Time(), ask, ticks + 10)


async def test_who_answers_is_not_silent_however_long_it_is_watched() -> None:
    assert not await watch(Time(), at_once, 1000)


async def test_one_answer_makes_up_for_all_silence_before_it() -> None:
    time = Time()

    async def now_and_then() -> None:
        if time.looks % 50:
            raise NoAnswer("not now")

    assert not await watch(time, now_and_then, 1000)


async def test_a_machine_that_was_suspended_for_an_hour_kills_nobody() -> None:
    time, asked = Time(), asyncio.Event()
    time.at[5] = lambda: setattr(time, "now", time.now + 3600)

    async def answers_once_it_runs_again() -> None:
        if time.looks < 6 and not asked.is_set():
            asked.set()
            while time.looks < 6:  # it stood still, as we did
                await asyncio.sleep(0)

    assert not await watch(time, answers_once_it_runs_again, 200)


async def test_who_is_silent_after_the_pause_too_is_still_found() -> None:
    time = Time()
    time.at[5] = lambda: setattr(time, "now", time.now + 3600)
    assert not await watch(time, never, 50)
    time = Time()
    time.at[5] = lambda: setattr(time, "now", time.now + 3600)
    assert await watch(time, never, 80)


async def test_the_question_is_let_go_at_the_end() -> None:
    ended = asyncio.Event()

    async def ask() -> None:
        try:
            await never()
        finally:
            ended.set()

    assert await watch(Time(), ask, 100)
    assert ended.is_set()
