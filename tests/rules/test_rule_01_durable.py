"""Rule 1: a signature leaves the core only after the state that it implies is durable (fsync'd).

The guard: `Witness._committed` (witness/core/witness.py) is the only place that answers with
signatures, and it runs after the writer thread came back from `SQLiteStore.advance`
(witness/core/store/sqlite.py), which returns after COMMIT, which in WAL mode with synchronous=FULL
returns after the fsync.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.durability import Call, calls
from tests.core.processes import CoreProcess, SocketClient, short_folder
from tests.core.state import core, make_state, trust
from tests.rules.support import Gate, RecordingSigner, StoreAround, answer, state, turns, until
from tests.simulated_log import SimulatedLog
from witness.core.refusals import StoreUnavailable
from witness.core.store.base import Advance, Head, Store, StoreBroken
from witness.core.store.sqlite import SQLiteStore, connect
from witness.tlog.checkpoint import origin_hash


def test_every_connection_that_writes_waits_for_the_disk(tmp_path: Path) -> None:
    layout = make_state(tmp_path)
    store = SQLiteStore(layout.database)
    for connection in (store._writer, store._checkpointer, connect(layout.database)):
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.isolation_level is None, "transactions begin and end where our code says so"
    store.close()


class Blocking(StoreAround):
    """Waits before the transaction, or after its COMMIT."""

    def __init__(self, store: Store, *, before: Gate | None = None, after: Gate | None = None) -> None:
        super().__init__(store)
        self.before, self.after = before, after

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        if self.before is not None:
            self.before()
        made = self.store.advance(moves)
        if self.after is not None:
            self.after()
        return made


@pytest.mark.parametrize("where", ["before", "after"])
async def test_no_answer_while_the_commit_has_not_returned(tmp_path: Path, where: str) -> None:
    log = SimulatedLog("rule.example/1", size=5)
    layout = state(tmp_path, log)
    gate, signed = Gate(), []
    async with core(
        layout,
        wrap_store=lambda store: Blocking(store, **{where: gate}),
        wrap_signer=lambda signer: RecordingSigner(signer, signed),
    ) as running:
        request = asyncio.create_task(answer(running, log.add_checkpoint(0)))
        await until(gate.reached.is_set)
        await turns()
        assert signed, "the signature exists already, and waits"
        assert not request.done()
        log_state = running.witness.book.get(log.origin)
        assert log_state is not None
        assert log_state.head is None, "memory has not moved either"
        assert running.witness.book.changes(None).origins == ()
        gate.open()
        assert isinstance(await request, bytes)
        assert log_state.head == running.store.head(1)


class Failing(StoreAround):
    """Fails as a disk does: before anything is written, or after COMMIT in an unknown state."""

    def __init__(self, store: Store, *, lasting: bool, after: bool) -> None:
        super().__init__(store)
        self.failing = True
        self._lasting, self._after = lasting, after

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        if self.failing and self._after:
            self.store.advance(moves)
        if self.failing:
            raise StoreBroken("the disk failed", lasting=self._lasting)
        return self.store.advance(moves)


@pytest.mark.parametrize("after", [False, True], ids=["nothing was written", "it is unknown what was"])
async def test_a_commit_that_fails_releases_nothing(tmp_path: Path, *, after: bool) -> None:
    logs = [SimulatedLog(f"rule.example/{n}", size=5) for n in range(4)]
    layout = state(tmp_path, *logs)
    stores: list[Failing] = []

    def wrap(store: Store) -> Failing:
        stores.append(Failing(store, lasting=after, after=after))
        return stores[0]

    async with core(layout, wrap_store=wrap) as running:
        answers = await asyncio.gather(*(answer(running, log.add_checkpoint(0)) for log in logs))
        assert answers == [StoreUnavailable("the disk failed")] * 4
        for log in logs:
            log_state = running.witness.book.get(log.origin)
            assert log_state is not None
            assert log_state.head is None
            assert not log_state.busy
        assert running.witness.accepted == 0
        assert running.witness.book.changes(None).origins == ()
        stores[0].failing = False
        again = await answer(running, logs[0].add_checkpoint(0))
        if after:
            # What is on disk is unknown: nothing more is signed until a fresh process has read it.
            assert again == StoreUnavailable("the disk failed")
            assert running.witness.broken.is_set()
        else:
            assert isinstance(again, bytes)


async def test_an_answer_means_that_another_connection_can_read_it(tmp_path: Path) -> None:
    log = SimulatedLog("rule.example/1", size=5)
    layout = state(tmp_path, log)
    async with core(layout) as running:
        lines = await answer(running, log.add_checkpoint(0))
        other = sqlite3.connect(layout.database)
        row = other.execute("SELECT size, root, note, cosignatures FROM heads").fetchone()
        other.close()
        assert row == (5, log.root(), log.checkpoint(), lines)
        stored = running.store.cosigned(origin_hash(log.origin))
        assert stored is not None
        assert stored.head == Head(5, log.root(), int(running.clock.now))


def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "true"], check=False, capture_output=True, timeout=20
    )
    return tried.returncode == 0


TRACE = (
    "-f",
    "-ttt",
    "-T",
    "-xx",
    "-s",
    "9000",
    "-e",
    "trace=write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync",
)


def _covered(record: Sequence[Call], root: bytes, lines: bytes) -> tuple[int, bool]:
    """Socket writes of these lines, and whether each came after the fsync of what holds the root."""
    replies = [c for c in record if c.name in ("write", "writev", "sendto", "sendmsg") and lines in c.data]
    writes = [c for c in record if c.name == "pwrite64" and root in c.data]
    syncs = [c for c in record if c.name in ("fsync", "fdatasync") and c.result == 0]
    return len(replies), all(
        any(
            write.fd == sync.fd and write.ended <= sync.began and sync.ended <= reply.began
            for write in writes
            for sync in syncs
        )
        for reply in replies
    )


def test_the_kernel_saw_the_fsync_return_before_the_reply() -> None:
    if not _can_trace():
        pytest.skip("strace is not installed, or may not trace here")
    log = SimulatedLog("rule.example/traced", size=1)
    answered: list[tuple[bytes, bytes]] = []
    with short_folder() as folder:
        layout = make_state(folder, algorithms=("ed25519",))
        trust(layout, log)
        trace = folder / "trace"
        with CoreProcess(layout, prefix=("strace", *TRACE, "-o", str(trace))) as core_process:
            with SocketClient(layout.core_socket) as client:
                for old in range(8):
                    lines = client.add_checkpoint(log.add_checkpoint(old))
                    assert isinstance(lines, bytes)
                    answered.append((log.root(), lines))
                    log.append()
            core_process.close_life_line()
            assert core_process.wait() == 0, core_process.said()
        with trace.open(errors="replace") as text:
            record = list(calls(text, {}))
    for root, lines in answered:
        replies, covered = _covered(record, root, lines)
        assert replies == 1
        assert covered, "a reply left before its state was on disk"
    # The measure itself can fail: with the fsyncs taken out of the record nothing is covered.
    hasty = [call for call in record if call.name not in ("fsync", "fdatasync")]
    assert not any(_covered(hasty, root, lines)[1] for root, lines in answered)
