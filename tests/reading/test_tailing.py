"""The loop: what is tried again and when, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from feeders.protocol import BadLogData, FetchFailed
from witness.reading.following import Turn
from witness.reading.handing import HandOverFailed
from witness.reading.heads import BadHead
from witness.reading.tailing import Told, tail

WELL = Turn(5, 5, accepted=True, handed=1)
QUIET = Turn(5, 5, accepted=False, handed=0)


class Follower:
    def __init__(self, stop: asyncio.Event, outcomes: list[Turn | Exception]) -> None:
        self._stop = stop
        self._outcomes = outcomes
        self.turns = 0

    async def turn(self, stopping: Callable[[], bool]) -> Turn:
        assert not stopping()
        outcome = self._outcomes[self.turns]
        self.turns += 1
        if self.turns == len(self._outcomes):
            self._stop.set()
            assert stopping()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def run(outcomes: list[Turn | Exception], interval: float = 0.0) -> tuple[int, list[str]]:
    stop = asyncio.Event()
    follower = Follower(stop, outcomes)
    said: list[str] = []
    await tail(follower, stop, interval, Told(said.append))
    return follower.turns, said


async def test_what_fails_is_told_once_and_tried_again() -> None:
    bad = FetchFailed("http://x", "status 503")
    unwitnessed = Turn(5, 5, accepted=False, handed=0, why_not="size 9 is not accepted")
    turns, said = await run(
        [bad, bad, BadLogData("u", "odd"), QUIET, bad, WELL, bad, unwitnessed, unwitnessed]
    )
    assert turns == 9
    assert said == ["http://x: status 503", "u: odd", "http://x: status 503", "size 9 is not accepted"]


async def test_bad_heads_too() -> None:
    assert (await run([BadHead("no signature"), WELL]))[1] == ["no signature"]


async def test_the_rest_ends_it() -> None:
    with pytest.raises(OSError, match="disk"):
        await run([WELL, OSError("disk"), WELL])


async def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def wait_for(waiting: object, seconds: float) -> None:
        pauses.append(seconds)
        waiting.close()  # type: ignore[attr-defined]
        raise TimeoutError

    monkeypatch.setattr("witness.reading.tailing.asyncio.wait_for", wait_for)
    away = FetchFailed("u", "away")
    busy = HandOverFailed("busy")
    await run([away] * 6 + [WELL, busy, busy, busy, QUIET], 60.0)
    assert pauses == [60, 120, 240, 480, 900, 900, 60, 1, 2, 4, 60]
    pauses.clear()
    await run([away] * 3, 3600.0)
    assert pauses == [3600, 3600, 3600]
