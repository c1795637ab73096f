"""One poll of one log: each outcome has its name, and costs no request more than it needs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from feeders.poll import STALE_SHOWN_AFTER, LogPoller
from feeders.protocol import BadLogData, FeedError, FeedLog, FetchFailed, TooLong, TooSlow, WrongProof
from feeders.states import FeederState, Status
from tests.feeders.world import Clock, JudgingCore
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.refusals import (
    CoreError,
    CoreUnreachable,
    DisabledLog,
    Overloaded,
    StaleOldSize,
    Stopping,
    UnknownOrigin,
)
from witness.tlog.note import SignatureType, VerifierKey

if TYPE_CHECKING:
    from witness.tlog.checkpoint import Checkpoint

REFRESH = 600.0


class CountingSource:
    """A simulated log as a source, counting what is asked of it; fails on command."""

    def __init__(self, log: SimulatedLog) -> None:
        self.log = log
        self.checkpoints = 0
        self.proofs: list[tuple[int, int]] = []
        self.old_roots: list[bytes | None] = []
        self.checkpoint_fails: Exception | None = None
        self.proof_fails: Exception | None = None
        self.served: bytes | None = None  # instead of the log's checkpoint

    async def fetch_checkpoint(self) -> bytes:
        self.checkpoints += 1
        if self.checkpoint_fails is not None:
            raise self.checkpoint_fails
        return self.log.checkpoint() if self.served is None else self.served

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        self.proofs.append((old_size, checkpoint.size))
        self.old_roots.append(old_root)
        if self.proof_fails is not None:
            raise self.proof_fails
        return self.log.proof(old_size, checkpoint.size)


class Bench:
    """A log, its source, a core, a clock and the poller under test."""

    def __init__(self, log: SimulatedLog | None = None, vkeys: tuple[VerifierKey, ...] | None = None) -> None:
        self.log = log or SimulatedLog("log.example", size=5)
        self.source = CountingSource(self.log)
        self.core = JudgingCore()
        self.clock = Clock()
        settings = FeedLog("log.example", self.log.vkeys if vkeys is None else vkeys, "tiles", "http://x", 30)
        self.poller = LogPoller(settings, self.source, self.core.submit, self.clock.now, REFRESH)

    async def poll(self, after: float = 30) -> FeederState:
        self.clock.advance(after)
        await self.poller.poll()
        return self.poller.state

    def head(self) -> int:
        return self.core.heads.get("log.example", (-1, b""))[0]


async def test_starts_waiting() -> None:
    assert Bench().poller.state == FeederState()
    assert FeederState().status is Status.WAITING


@pytest.mark.parametrize("size", [0, 1, 5])
async def test_first_contact_and_growth(size: int) -> None:
    bench = Bench(SimulatedLog("log.example", size=size))
    state = await bench.poll()
    now = bench.clock.now()
    assert state == FeederState(Status.CURRENT, last_poll=now, last_success=now, size=size)
    bench.log.append(6)
    assert (await bench.poll()).size == size + 6
    assert bench.head() == size + 6
    assert bench.source.proofs == ([(size, size + 6)] if size else [])
    assert [submission.old_size for submission in bench.core.submissions] == [0, size]


@pytest.mark.parametrize("type_", list(SignatureType))
async def test_logs_may_sign_with_any_type_of_key(type_: SignatureType) -> None:
    bench = Bench(SimulatedLog("log.example", size=5, keys=[SimulatedKey("log.example", type_)]))
    assert (await bench.poll()).status is Status.CURRENT


async def test_unchanged_is_skipped_until_our_cosignature_is_old() -> None:
    bench = Bench()
    await bench.poll()
    for _ in range(19):
        state = await bench.poll(30)
        assert state.status is Status.CURRENT
        assert state.last_success == bench.clock.now()
    assert bench.core.cosigned == 1
    await bench.poll(30)
    assert bench.core.cosigned == 2
    assert bench.core.submissions[-1].old_size == 5
    assert bench.source.proofs == []


async def test_learns_the_cores_size_once_and_proves_from_there() -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (3, bench.log.root(3))
    assert (await bench.poll()).status is Status.CURRENT
    assert [submission.old_size for submission in bench.core.submissions] == [0, 3]
    assert bench.source.proofs == [(3, 5)]
    bench.log.append(1)
    await bench.poll()
    assert [submission.old_size for submission in bench.core.submissions] == [0, 3, 5]
    # The root that was cosigned here is known, and may spare the source a request; the core's is not.
    assert bench.source.old_roots == [None, bench.log.root(5)]


async def test_a_checkpoint_that_another_feeder_brought_needs_no_proof() -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (5, bench.log.root())
    assert (await bench.poll()).status is Status.CURRENT
    assert bench.source.proofs == []
    assert bench.core.cosigned == 1


async def test_who_is_overtaken_twice_waits_for_the_next_poll() -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (4, bench.log.root(4))
    bench.core.failures = [StaleOldSize(2), StaleOldSize(4)]
    state = await bench.poll()
    assert (state.status, state.consecutive_failures, state.size) == (Status.REFUSED, 1, 4)
    assert len(bench.core.submissions) == 2
    assert (await bench.poll()).status is Status.CURRENT
    assert bench.source.proofs[-1] == (4, 5)


async def test_an_older_checkpoint_is_tolerated_and_counted() -> None:
    bench = Bench()
    old = bench.log.checkpoint(3)
    await bench.poll()
    succeeded = bench.clock.now()
    bench.source.served = old
    for count in (1, 2, 3, 4):
        bench.clock.advance(30)
        assert await bench.poller.poll() is Status.STALE  # each one counts; what is shown is patient
        state = bench.poller.state
        shown = Status.CURRENT if count < STALE_SHOWN_AFTER else Status.STALE
        assert (state.status, state.stale_polls, state.consecutive_failures) == (shown, count, 0)
        assert (state.size, state.last_success) == (5, succeeded)
        assert "size 3" in state.last_error
    assert len(bench.core.submissions) == 1
    assert bench.source.proofs == []
    bench.source.served = None
    state = await bench.poll()
    assert (state.status, state.stale_polls, state.last_error) == (Status.CURRENT, 0, "")


async def test_an_older_checkpoint_is_recognised_after_a_restart_too() -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (9, bytes(32))
    state = await bench.poll()
    assert (state.status, state.size) == (Status.STALE, 9)
    assert len(bench.core.submissions) == 1


@pytest.mark.parametrize(
    ("served", "status"),
    [
        (b"", Status.BAD_DATA),
        (b"<html>not found</html>", Status.BAD_DATA),
        (b"log.example\n5\nAAAA\n\n\xe2\x80\x94 log.example AAAAAAA=\n", Status.BAD_DATA),
        (SimulatedLog("other.example", size=5).checkpoint(), Status.OTHER_ORIGIN),
        (
            SimulatedLog("log.example", size=5, keys=[SimulatedKey("log.example", number=7)]).checkpoint(),
            Status.UNKNOWN_KEY,
        ),
    ],
)
async def test_what_is_no_checkpoint_of_the_log_is_named_and_costs_nothing(
    served: bytes, status: Status
) -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (3, bench.log.root(3))
    bench.source.served = served
    for count in (1, 2):
        state = await bench.poll()
        assert (state.status, state.consecutive_failures) == (status, count)
        assert state.last_error
    assert (bench.source.proofs, bench.core.submissions) == ([], [])
    bench.source.served = None
    state = await bench.poll()
    assert (state.status, state.consecutive_failures) == (Status.CURRENT, 0)


async def test_a_wrong_signature_costs_nothing() -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (3, bench.log.root(3))
    bench.log.sign_wrongly = True
    state = await bench.poll()
    assert (state.status, state.consecutive_failures) == (Status.BAD_SIGNATURE, 1)
    assert (bench.source.proofs, bench.core.submissions) == ([], [])


async def test_a_log_without_keys_is_never_submitted() -> None:
    bench = Bench(vkeys=())
    assert (await bench.poll()).status is Status.UNKNOWN_KEY
    assert bench.core.submissions == []


async def test_only_verified_signatures_are_submitted() -> None:
    mine, stranger = SimulatedKey("log.example"), SimulatedKey("stranger.example")
    log = SimulatedLog("log.example", size=5, keys=[stranger, mine])
    bench = Bench(log, vkeys=(mine.vkey,))
    assert (await bench.poll()).status is Status.CURRENT
    (submission,) = bench.core.submissions
    assert [signature.name for signature in submission.note.signatures] == ["log.example"]


async def test_extension_lines_are_submitted_as_served() -> None:
    bench = Bench()
    bench.log.extensions = ("an extension", "another")
    await bench.poll()
    assert bench.core.submissions[0].checkpoint.extensions == ("an extension", "another")


@pytest.mark.parametrize("known", [True, False])
async def test_a_fork_at_another_size_is_named(*, known: bool) -> None:
    bench = Bench()
    if known:
        await bench.poll()
    else:
        bench.core.heads["log.example"] = (5, bench.log.root())
    fork = bench.log.fork(2)
    fork.append(8)
    bench.source.log = fork
    state = await bench.poll()
    assert (state.status, state.consecutive_failures) == (Status.FORK, 1)
    assert bench.head() == 5
    # The core was shown the contradiction: it is what it keeps as evidence.
    assert bench.core.submissions[-1].checkpoint == fork.value()
    assert bench.core.submissions[-1].proof == fork.proof(5)


async def test_a_fork_at_the_same_size_is_named_though_the_size_is_unchanged() -> None:
    bench = Bench()
    await bench.poll()
    bench.log.wrong_root = True
    state = await bench.poll()
    assert state.status is Status.FORK
    assert bench.core.submissions[-1].checkpoint.root == bench.log.value().root


async def test_tiles_that_do_not_fit_are_the_logs_fault_and_never_submitted() -> None:
    bench = Bench()
    await bench.poll()
    bench.log.append(1)
    bench.source.proof_fails = BadLogData("http://x/", "the tiles do not lead to the root hash")
    state = await bench.poll()
    assert (state.status, state.consecutive_failures) == (Status.BAD_DATA, 1)
    assert len(bench.core.submissions) == 1


@pytest.mark.parametrize("where", ["checkpoint_fails", "proof_fails"])
async def test_a_server_out_of_reach_is_named_and_left_to_the_caller(where: str) -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (3, bench.log.root(3))
    setattr(bench.source, where, FetchFailed("http://x/", "status 500"))
    with pytest.raises(FetchFailed):
        await bench.poll()
    state = bench.poller.state
    assert (state.status, state.last_error) == (Status.UNREACHABLE, "http://x/: status 500")
    assert state.consecutive_failures == 1


@pytest.mark.parametrize("error", [CoreUnreachable("no socket"), Stopping(), Overloaded(2)])
async def test_our_own_failures_are_named_and_left_to_the_caller(error: CoreError) -> None:
    bench = Bench()
    bench.core.failures = [error]
    with pytest.raises(type(error)):
        await bench.poll()
    assert bench.poller.state.status is Status.WITNESS_UNAVAILABLE
    assert (await bench.poll()).status is Status.CURRENT


@pytest.mark.parametrize("error", [UnknownOrigin("log.example"), DisabledLog("log.example")])
async def test_other_refusals_are_shown(error: CoreError) -> None:
    bench = Bench()
    bench.core.failures = [error]
    state = await bench.poll()
    assert (state.status, state.last_error) == (Status.REFUSED, str(error))


async def test_bugs_pass_through() -> None:
    bench = Bench()
    bench.source.checkpoint_fails = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        await bench.poll()


@pytest.mark.parametrize("where", ["checkpoint_fails", "proof_fails"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TooLong("http://x/", "the body is longer than 9 bytes"), Status.TOO_LONG),
        (WrongProof("http://x/", "do not lead"), Status.WRONG_PROOF),
        (BadLogData("http://x/", "malformed tile"), Status.BAD_DATA),
        (TooSlow("http://x/", "no complete answer"), Status.TOO_SLOW),
        (FetchFailed("http://x/", "status 500"), Status.UNREACHABLE),
    ],
)
async def test_each_way_of_being_fooled_has_its_name(where: str, error: FeedError, status: Status) -> None:
    bench = Bench()
    bench.core.heads["log.example"] = (3, bench.log.root(3))
    setattr(bench.source, where, error)
    with suppress(FetchFailed):
        assert await bench.poll()
    assert bench.poller.state.status is status
    assert bench.poller.state.last_error == str(error)


async def test_the_same_bytes_are_verified_once() -> None:
    bench = Bench()
    await bench.poll()
    before = bench.poller._judged
    assert before is not None
    await bench.poll()
    assert bench.poller._judged is before
    bench.source.served = bench.log.checkpoint()[:-4] + b"AA=\n"
    assert (await bench.poll()).status is Status.BAD_SIGNATURE
