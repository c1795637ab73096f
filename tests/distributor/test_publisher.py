"""The publisher, end to end: from what moved to what a distributor has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from distributor.http import HttpTarget, open_session
from distributor.protocol import PublishFailed, PublishRejected, Target, TargetUnavailable
from distributor.publisher import Publisher, PublisherSettings
from distributor.static import StaticTarget
from tests.distributor.world import (
    WITNESS,
    Distributor,
    Fault,
    Heads,
    ManualClock,
    cosigned,
    eventually,
    serving,
    settle,
    size_of,
)
from witness.core.refusals import CoreUnreachable, MalformedRequest, Overloaded
from witness.core.wire import Changes, Cursor

A, B, C, D = "log.example/a", "log.example/b", "log.example/c", "log.example/d"


class Shelf:
    """A target in memory, which fails as told."""

    def __init__(self, name: str = "shelf") -> None:
        self._name = name
        self.calls: list[str] = []
        self.notes: dict[str, bytes] = {}
        self.fail: Callable[[str], PublishFailed | None] = lambda origin: None
        self.gate: asyncio.Event | None = None

    @property
    def name(self) -> str:
        return self._name

    async def publish(self, origin: str, note: bytes) -> None:
        self.calls.append(origin)
        if self.gate is not None:
            await self.gate.wait()
        if (failure := self.fail(origin)) is not None:
            raise failure
        self.notes[origin] = note


@pytest.fixture
def heads() -> Heads:
    return Heads()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


def ours() -> set[str]:
    """The publisher's tasks that run now, by their coroutine; the test servers have others."""
    names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    return {name for name in names if name.startswith(("Publisher.", "Lane."))}


@asynccontextmanager
async def publishing(
    heads: Heads, clock: ManualClock, *targets: Target, settings: PublisherSettings | None = None
) -> AsyncIterator[Publisher]:
    """A running publisher without jitter; afterwards no task of it is left."""
    settings = settings or PublisherSettings(drain=0.5)
    publisher = Publisher(
        heads.changes, heads.checkpoint, targets, settings=settings, clock=clock, chance=lambda: 0.0
    )
    running = asyncio.create_task(publisher.run())
    await eventually(lambda: len(ours()) >= 2)  # `run` and a lane: so that their end shows
    try:
        yield publisher
    finally:
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=10)
        assert done, "it does not stop"
        assert running.cancelled()
        assert ours() == set()


def to(distributor: Distributor, session: aiohttp.ClientSession, clock: ManualClock) -> HttpTarget:
    return HttpTarget(distributor.base, WITNESS, session, clock=clock)


async def test_everything_after_a_start_and_then_what_moves(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 3)
    heads.move(B, 4)
    async with (
        serving(Distributor([A, B])) as distributor,
        publishing(heads, clock, to(distributor, session, clock)) as publisher,
    ):
        await eventually(lambda: distributor.stored == heads.notes)
        heads.move(A, 5)
        clock.advance(1)
        await eventually(lambda: distributor.stored == heads.notes)
        assert distributor.sizes[2:] == [5]  # B was not sent again
        await eventually(lambda: publisher.states()[0].published == 3)
        (state,) = publisher.states()
        assert (state.name, state.pending, state.rejected) == (distributor.base, 0, 0)
        assert (state.last_success, state.last_error, state.consecutive_failures) == (1_700_000_001, None, 0)


async def test_full_republication_after_a_restart_of_ours(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 3)
    heads.move(B, 4)
    async with serving(Distributor([A, B])) as distributor:
        for _ in range(2):
            async with publishing(heads, clock, to(distributor, session, clock)):
                await eventually(lambda: distributor.stored == heads.notes)
            distributor.stored.clear()  # as if it had lost its database meanwhile


@pytest.mark.parametrize("how", ["restart", "refusal"])
async def test_full_republication_when_the_cursor_leads_nowhere(
    how: str, heads: Heads, clock: ManualClock
) -> None:
    heads.move(A, 3)
    heads.move(B, 4)
    heads.move(C, 5)
    shelf = Shelf()
    shelf.fail = lambda origin: PublishRejected("shelf", origin, "no") if origin == C else None
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: publisher.states()[0].published == 2)
        await eventually(lambda: publisher.states()[0].rejected == 1)
        if how == "restart":
            heads.restart()
            clock.advance(1)
        else:
            asked = len(heads.asked)
            heads.error = MalformedRequest("no cursor of mine")
            clock.advance(1)
            # The refused cursor is given up at once, and not used again.
            await eventually(lambda: heads.asked[asked + 1 : asked + 2] == [None])
            heads.error = None
            clock.advance(2)
        await eventually(lambda: publisher.states()[0].published == 4)
        await eventually(lambda: sorted(shelf.calls) == [A, A, B, B, C, C])  # the rejected one too


async def test_overload_is_no_reason_to_start_anew(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 3)
    shelf = Shelf()
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: publisher.states()[0].published == 1)
        heads.error = Overloaded(1)
        asked = len(heads.asked)
        clock.advance(1)
        await eventually(lambda: len(heads.asked) > asked)
        await settle()
        refused = len(heads.asked)
        heads.error = None
        clock.advance(2)
        await eventually(lambda: len(heads.asked) > refused)
        assert None not in heads.asked[asked:]
        assert shelf.calls == [A]


async def test_core_out_of_reach_is_asked_again_with_patience(
    heads: Heads, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    heads.move(A, 3)
    heads.error = CoreUnreachable("no socket")
    shelf = Shelf()
    async with publishing(heads, clock, shelf):
        await eventually(lambda: bool(heads.asked))
        for wait in (1, 2, 4):
            await settle()
            asked = len(heads.asked)
            clock.advance(wait - 0.5)
            await settle()
            assert len(heads.asked) == asked
            clock.advance(0.5)
            await eventually(lambda asked=asked: len(heads.asked) == asked + 1)  # type: ignore[misc]
        heads.error = None
        clock.advance(8)
        await eventually(lambda: shelf.notes == heads.notes)
    assert (
        caplog.messages.count(
            "cannot learn which checkpoints moved: the witness's core does not answer: no socket"
        )
        == 1
    ), "told once, not at each attempt"


async def test_pages_are_walked_to_the_end(clock: ManualClock) -> None:
    heads = Heads(page=3)
    for n in range(10):
        heads.move(f"log.example/{n}", n)
    shelf = Shelf()
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: shelf.notes == heads.notes)
        for n in range(10):
            heads.move(f"log.example/{n}", n + 100)
        clock.advance(1)
        await eventually(lambda: shelf.notes == heads.notes)
        assert publisher.states()[0].published == 20


async def test_only_the_latest_of_an_origin_is_sent(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    async with serving(Distributor([A])) as distributor:
        distributor.gate = asyncio.Event()
        async with publishing(heads, clock, to(distributor, session, clock)) as publisher:
            await eventually(lambda: distributor.under_way == 1)
            for size in range(2, 50):  # while the first one is on its way
                heads.move(A, size)
                clock.advance(1)
                await asyncio.sleep(0.002)
            await settle()
            assert publisher.states()[0].pending == 1
            distributor.gate.set()
            await eventually(lambda: distributor.stored == heads.notes)
            await settle()
            assert distributor.sizes == [1, 49]
            assert publisher.states()[0].pending == 0


async def test_one_origin_is_never_sent_twice_at_once(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    """Else the older of two could arrive last."""
    heads.move(A, 1)
    async with serving(Distributor([A])) as distributor:
        distributor.gate = asyncio.Event()
        async with publishing(heads, clock, to(distributor, session, clock)):
            await eventually(lambda: distributor.under_way == 1)
            heads.move(A, 2)
            clock.advance(1)
            await settle()
            assert distributor.under_way == 1
            distributor.gate.set()
            await eventually(lambda: distributor.sizes == [1, 2])


async def test_concurrency_is_bounded(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    origins = [f"log.example/{n}" for n in range(20)]
    for origin in origins:
        heads.move(origin, 1)
    async with serving(Distributor(origins)) as distributor:
        distributor.gate = asyncio.Event()
        settings = PublisherSettings(concurrency=3, drain=0.5)
        async with publishing(heads, clock, to(distributor, session, clock), settings=settings):
            await eventually(lambda: distributor.under_way == 3)
            await settle()
            distributor.gate.set()
            await eventually(lambda: len(distributor.stored) == 20)
            assert distributor.most_under_way == 3


async def test_failure_is_retried_with_growing_patience(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    async with serving(Distributor([A])) as distributor:
        distributor.faults = [Fault(500, body=b"oh")] * 3
        async with publishing(heads, clock, to(distributor, session, clock)) as publisher:
            for failures, wait in ((1, 1.0), (2, 2.0), (3, 4.0)):
                await eventually(lambda n=failures: publisher.states()[0].consecutive_failures == n)  # type: ignore[misc]
                assert publisher.states()[0].pending == 1
                clock.advance(wait - 0.1)
                await settle()
                assert len(distributor.requests) == failures
                clock.advance(0.2)
            await eventually(lambda: distributor.stored == heads.notes)
            await eventually(lambda: publisher.states()[0].consecutive_failures == 0)
            (state,) = publisher.states()
            assert state.last_error == f"{distributor.base}: {A}: 500 oh"
            assert state.last_failure is not None
            assert state.last_success is not None
            assert state.last_failure < state.last_success
            # Patience begins anew with the next failure.
            distributor.faults = [Fault(500)]
            heads.move(A, 2)
            clock.advance(1)
            await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
            clock.advance(1.1)
            await eventually(lambda: distributor.stored == heads.notes)


async def test_what_is_retried_is_the_latest(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    async with serving(Distributor([A])) as distributor:
        distributor.faults = [Fault(500)]
        async with publishing(heads, clock, to(distributor, session, clock)) as publisher:
            await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
            heads.move(A, 2)
            clock.advance(1.1)
            await eventually(lambda: distributor.sizes == [2])


@pytest.mark.parametrize("value", ["120", "Tue, 14 Nov 2023 22:15:20 GMT"])  # the clock's start and 120 s
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_holds_for_the_whole_distributor(
    value: str, status: int, heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    async with serving(Distributor([A, B])) as distributor:
        distributor.faults = [Fault(status, {"Retry-After": value})]
        async with publishing(heads, clock, to(distributor, session, clock)) as publisher:
            await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
            heads.move(B, 1)
            clock.advance(119)
            await settle()
            assert len(distributor.requests) == 1
            clock.advance(2)
            await eventually(lambda: distributor.stored == heads.notes)


async def test_retry_after_of_an_origin_and_its_limit(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    shelf = Shelf()
    answers = [PublishFailed("shelf", A, "later", 50.0), TargetUnavailable("shelf", A, "much later", 1e9)]
    shelf.fail = lambda origin: answers.pop(0) if answers else None
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
        clock.advance(49)
        await settle()
        assert len(shelf.calls) == 1
        clock.advance(1)
        await eventually(lambda: publisher.states()[0].consecutive_failures == 2)
        clock.advance(3599)
        await settle()
        assert len(shelf.calls) == 2
        clock.advance(1)
        await eventually(lambda: shelf.notes == heads.notes)


async def test_rejection_is_not_retried_before_the_next_full_publication(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    heads.move(B, 1)
    async with (
        serving(Distributor([A])) as distributor,  # B is unknown there
        publishing(heads, clock, to(distributor, session, clock)) as publisher,
    ):
        await eventually(lambda: publisher.states()[0].rejected == 1)
        await eventually(lambda: publisher.states()[0].published == 1)
        for size in (2, 3):
            heads.move(B, size)
            heads.move(A, size)
            clock.advance(1000)
            await eventually(lambda size=size: distributor.sizes[-1] == size)  # type: ignore[misc]
        assert len(distributor.requests) == 4
        await eventually(lambda: publisher.states()[0].pending == 0)
        (state,) = publisher.states()
        assert state.last_error is not None
        assert "400 failed to update to new checkpoint" in state.last_error
        distributor.know(B)
        clock.advance(1600)
        await eventually(lambda: distributor.stored == heads.notes)
        await eventually(lambda: publisher.states()[0].rejected == 0)


async def test_periodic_republication(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    async with (
        serving(Distributor([A])) as distributor,
        publishing(heads, clock, to(distributor, session, clock)) as publisher,
    ):
        await eventually(lambda: publisher.states()[0].published == 1)
        distributor.stored.clear()
        clock.advance(3200)
        await settle()
        assert distributor.stored == {}
        clock.advance(50)  # without jitter a tenth before the hour: 3240 s
        await eventually(lambda: distributor.stored == heads.notes)


async def test_what_moved_goes_before_what_is_named_again(heads: Heads, clock: ManualClock) -> None:
    origins = [f"log.example/{n}" for n in range(50)]
    for origin in origins:
        heads.move(origin, 1)
    shelf = Shelf()
    shelf.gate = asyncio.Event()
    settings = PublisherSettings(concurrency=1, drain=0.5)
    async with publishing(heads, clock, shelf, settings=settings) as publisher:
        await eventually(lambda: len(shelf.calls) == 1)
        heads.move(origins[40], 2)
        asked = len(heads.asked)
        clock.advance(1)
        await eventually(lambda: len(heads.asked) > asked)
        await settle()
        shelf.gate.set()
        await eventually(lambda: publisher.states()[0].pending == 0)
        assert shelf.calls[:3] == [origins[0], origins[40], origins[1]]
        assert len(shelf.calls) == 50


async def test_dead_and_slow_targets_delay_no_other(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    heads.move(A, 1)
    async with serving(Distributor([A])) as dead:
        dead_target = to(dead, session, clock)
    async with serving(Distributor([A])) as slow, serving(Distributor([A])) as well:
        slow.gate = asyncio.Event()
        targets = (
            dead_target,
            to(slow, session, clock),
            to(well, session, clock),
            StaticTarget(tmp_path, WITNESS),
        )
        async with publishing(heads, clock, *targets) as publisher:
            for size in range(2, 6):
                await eventually(lambda: well.stored == heads.notes)
                await eventually(
                    lambda: [f.read_bytes() for f in tmp_path.glob("*/checkpoint")] == [heads.notes[A]]
                )
                heads.move(A, size)
                clock.advance(1)
            await eventually(lambda: publisher.states()[2].published >= 4)
            states = publisher.states()
            assert states[0].consecutive_failures > 0
            assert [state.published for state in states[:2]] == [0, 0]
            assert [state.pending for state in states[:2]] == [1, 1]
            slow.gate.set()
            await eventually(lambda: slow.stored == heads.notes)


async def test_dead_target_is_knocked_at_by_one_and_not_by_all(heads: Heads, clock: ManualClock) -> None:
    origins = [f"log.example/{n}" for n in range(100)]
    for origin in origins:
        heads.move(origin, 1)
    shelf = Shelf()
    shelf.fail = lambda origin: TargetUnavailable("shelf", origin, "gone")
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: len(shelf.calls) == 4)  # those that were under way together
        await settle()
        assert len(shelf.calls) == 4
        for n, wait in enumerate((1, 2, 4), start=5):
            clock.advance(wait)
            await eventually(lambda n=n: len(shelf.calls) == n)  # type: ignore[misc]
            await settle()
            assert len(shelf.calls) == n
        assert len(set(shelf.calls)) == 7  # each time another origin
        assert publisher.states()[0].pending == 100
        shelf.fail = lambda origin: None
        clock.advance(8)
        await eventually(lambda: shelf.notes == heads.notes)


async def test_one_sick_origin_does_not_hold_up_the_others(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    shelf = Shelf()
    shelf.fail = lambda origin: PublishFailed("shelf", origin, "500") if origin == A else None
    async with publishing(heads, clock, shelf) as publisher:
        for n in range(1, 8):
            await eventually(lambda n=n: publisher.states()[0].consecutive_failures == n)  # type: ignore[misc]
            clock.advance(64)
        heads.move(B, 1)
        clock.advance(1)
        await eventually(lambda: B in shelf.notes)


async def test_origin_that_the_target_chokes_on_does_not_hold_up_the_others(
    heads: Heads, clock: ManualClock
) -> None:
    for origin in (A, B, C, D):
        heads.move(origin, 1)
    shelf = Shelf()
    shelf.fail = lambda origin: TargetUnavailable("shelf", origin, "no answer") if origin == A else None
    settings = PublisherSettings(concurrency=1, drain=0.5)
    async with publishing(heads, clock, shelf, settings=settings) as publisher:
        await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
        clock.advance(1)
        await eventually(lambda: sorted(shelf.notes) == [B, C, D])


async def test_many_sick_origins_are_a_sick_target(heads: Heads, clock: ManualClock) -> None:
    origins = [f"log.example/{n}" for n in range(100)]
    for origin in origins:
        heads.move(origin, 1)
    shelf = Shelf()
    shelf.fail = lambda origin: PublishFailed("shelf", origin, "500")
    async with publishing(heads, clock, shelf):
        await eventually(lambda: len(shelf.calls) >= 3)
        await settle()
        assert len(shelf.calls) <= 6  # and not all hundred
        shelf.fail = lambda origin: None
        for _ in range(4):
            clock.advance(2)
            await settle()
        await eventually(lambda: shelf.notes == heads.notes)


async def test_rejections_leave_the_target_at_full_speed(heads: Heads, clock: ManualClock) -> None:
    for n in range(100):
        heads.move(f"log.example/{n}", 1)
    shelf = Shelf()
    shelf.fail = lambda origin: PublishRejected("shelf", origin, "400")
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: publisher.states()[0].rejected == 100)
        assert len(shelf.calls) == 100


async def test_origin_without_a_checkpoint_is_no_failure(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    del heads.notes[A]
    shelf = Shelf()
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: heads.fetched == [A])
        await eventually(lambda: publisher.states()[0].pending == 0)
        assert publisher.states()[0].consecutive_failures == 0
        assert shelf.calls == []


async def test_checkpoint_that_cannot_be_had_is_fetched_again(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    shelf = Shelf()
    real = heads.checkpoint
    failures = [CoreUnreachable("restarting")]

    async def checkpoint(origin: str) -> bytes:
        if failures:
            raise failures.pop()
        return await real(origin)

    heads.checkpoint = checkpoint  # type: ignore[method-assign]
    async with publishing(heads, clock, shelf) as publisher:
        await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
        clock.advance(1)
        await eventually(lambda: shelf.notes == heads.notes)


async def test_stop_sends_what_has_just_moved(
    heads: Heads, clock: ManualClock, session: aiohttp.ClientSession
) -> None:
    heads.move(A, 1)
    async with serving(Distributor([A])) as distributor:
        async with publishing(heads, clock, to(distributor, session, clock)) as publisher:
            await eventually(lambda: publisher.states()[0].published == 1)
            heads.move(A, 2)  # no poll comes any more: time stands still
        assert distributor.sizes == [1, 2]


async def test_stop_does_not_wait_for_a_target_that_hangs(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    hung, well = Shelf("hung"), Shelf("well")
    hung.gate = asyncio.Event()
    settings = PublisherSettings(drain=0.1)
    async with publishing(heads, clock, hung, well, settings=settings):
        await eventually(lambda: well.notes == heads.notes and bool(hung.calls))
        heads.move(B, 1)
    # `publishing` has seen that it stopped and that no task is left.
    assert B in well.notes
    assert hung.notes == {}


async def test_stop_does_not_wait_for_a_core_that_hangs(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    shelf = Shelf()
    hanging = asyncio.Event()

    async def changes(cursor: Cursor | None) -> Changes:
        if cursor is not None:
            await hanging.wait()
        return await Heads.changes(heads, cursor)

    heads.changes = changes  # type: ignore[method-assign]
    async with publishing(heads, clock, shelf, settings=PublisherSettings(drain=0.1)):
        await eventually(lambda: shelf.notes == heads.notes)


async def test_stop_leaves_what_is_only_named_again_to_the_next_start(
    heads: Heads, clock: ManualClock
) -> None:
    for n in range(50):
        heads.move(f"log.example/{n}", 1)
    shelf = Shelf()
    shelf.gate = asyncio.Event()
    settings = PublisherSettings(concurrency=1, drain=60)
    async with publishing(heads, clock, shelf, settings=settings):
        await eventually(lambda: len(shelf.calls) == 1)
        heads.move("log.example/40", 2)
        asyncio.get_running_loop().call_later(0.05, shelf.gate.set)
    assert shelf.calls == ["log.example/0", "log.example/40"]


async def test_core_that_promises_more_and_gives_nothing_is_not_asked_without_pause(
    clock: ManualClock, heads: Heads
) -> None:
    asked = 0

    async def changes(cursor: Cursor | None) -> Changes:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Changes(Cursor("1", 0), more=True, origins=())

    heads.changes = changes  # type: ignore[method-assign]
    async with publishing(heads, clock, Shelf()):
        await settle()
        assert asked == 2  # without a cursor, and with the one it gave


async def test_stop_retries_nothing(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    shelf = Shelf()
    shelf.fail = lambda origin: TargetUnavailable("shelf", origin, "gone")
    async with publishing(heads, clock, shelf, settings=PublisherSettings(drain=60)) as publisher:
        await eventually(lambda: publisher.states()[0].consecutive_failures == 1)
    assert shelf.calls == [A]


async def test_bug_in_a_target_ends_the_publisher_loudly(heads: Heads, clock: ManualClock) -> None:
    heads.move(A, 1)
    shelf = Shelf()

    def bug(origin: str) -> None:
        raise KeyError(origin)

    shelf.fail = bug
    publisher = Publisher(
        heads.changes, heads.checkpoint, [shelf], clock=clock, settings=PublisherSettings(drain=0.1)
    )
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(10):
            await publisher.run()
    assert caught.group_contains(KeyError)


def test_targets_have_names_of_their_own(heads: Heads) -> None:
    with pytest.raises(ValueError, match="one name"):
        Publisher(heads.changes, heads.checkpoint, [Shelf(), Shelf()])


def test_errors_read_well() -> None:
    assert str(PublishFailed("t", "o", "why", 7.0)) == "t: o: why (try again in 7 s)"
    assert str(PublishRejected("t", "o", "why")) == "t: o: why"
    assert size_of(cosigned(A, 7)) == 7
