"""The load generator counts what a server really did, and its bodies are what they claim to be."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter

import pytest

from benchmarks import stub
from benchmarks.chains import Chains, sizes
from benchmarks.loadgen import Load
from benchmarks.measure import Probe, Shim, tree
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.merkle import EMPTY_ROOT, verify_consistency
from witness.tlog.note import parse_vkey
from witness.tlog.signature import verify_note
from witness.tlog.submission import parse_add_checkpoint


@pytest.mark.parametrize("distinct", [False, True])
def test_each_body_extends_the_one_before_and_is_signed_by_its_log(distinct):
    chains = Chains(3, distinct=distinct)
    key = parse_vkey(chains.vkey(2))
    size, root = 0, EMPTY_ROOT
    for step in range(5):
        submission = parse_add_checkpoint(chains.body(2, step))
        assert submission.old_size == size
        verify_consistency(
            size, submission.checkpoint.size, root, submission.checkpoint.root, submission.proof
        )
        assert [verified.key for verified in verify_note(submission.note, [key])] == [key]
        assert submission.note.text == chains.checkpoint_text(2, step)
        size, root = submission.checkpoint.size, submission.checkpoint.root
    assert chains.step_of_size(size) == 4


def test_distinct_chains_have_distinct_roots_and_others_share_them():
    def roots(chains):
        return {parse_checkpoint(chains.checkpoint_text(log, 1)).root for log in range(4)}

    assert len(roots(Chains(4))) == 1
    assert len(roots(Chains(4, distinct=True))) == 4


def test_sizes_ascend_and_their_proofs_are_long():
    chains = Chains(1)
    assert all(a < b for a, b in zip(sizes(), sizes()[1:], strict=False))
    lines = [chains.step(0, step).lines for step in range(1, 2000, 50)]
    assert min(lines) >= 26
    assert 27.5 < sum(lines) / len(lines) < 29


class Judge(stub.Stub):
    """Answers as a witness would from the sizes alone; every `REFUSE`th request is refused with 429."""

    REFUSE = 7
    heads: Counter[bytes]
    answered: Counter[int]

    def data_received(self, data):
        self.body = (self.buffer + data).partition(b"\r\n\r\n")[2]
        super().data_received(data)

    def answer(self):
        old = int(self.body[4 : self.body.index(b"\n")])
        origin, size = self.body.partition(b"\n\n")[2].split(b"\n")[:2]
        served = self.answered
        if sum(served.values()) % self.REFUSE == self.REFUSE - 1:
            status, body = 429, b""
        elif self.heads[origin] != old:
            status, body = 409, b"%d\n" % self.heads[origin]
        else:
            self.heads[origin] = int(size)
            status, body = 200, b"a line\n"
        served[status] += 1
        self.transport.write(b"HTTP/1.1 %d X\r\ncontent-LENGTH: %d\r\n\r\n%s" % (status, len(body), body))


@pytest.fixture
def judge(unused_tcp_port):
    """A running `Judge`: (address, heads, answered)."""
    kind = type("OneJudge", (Judge,), {"heads": Counter(), "answered": Counter()})
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run():
        server = await loop.create_server(kind, "127.0.0.1", unused_tcp_port)
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(5)
    yield ("127.0.0.1", unused_tcp_port), kind.heads, kind.answered
    loop.call_soon_threadsafe(stop.set)
    thread.join(5)
    loop.close()


def test_closed_load_follows_each_log_and_counts_every_answer(judge):
    address, heads, answered = judge
    load = Load(address, logs=6, connections=3)
    load.prime()
    primed = Counter(answered)
    result = load.closed(seconds=30, budget=600)
    load.close()
    assert result.ran_dry
    # The slice ends when a connection has no work left: the others' last answers may be missing from it.
    counted = Counter(result.statuses)
    seen = answered - primed
    assert sum(seen.values()) - 3 <= sum(counted.values()) <= sum(seen.values())
    assert counted[200] > 400
    assert counted[429] > 50
    assert counted[409] == 0, "a refused step is submitted again, not skipped"
    for log in range(6):
        assert heads[load.chains.origin(log)] == sizes()[load.next_step[log] - 1]
    assert result.latency_ms["p50"] <= result.latency_ms["p99"] <= result.latency_ms["max"]


def test_scheduled_load_sends_what_is_due_and_counts_refusals(judge):
    address, heads, answered = judge
    load = Load(address, logs=50, connections=8)
    result = load.scheduled(rate=500, seconds=0.4)
    load.close()
    assert sum(result.statuses.values()) + result.skipped == 200
    assert result.statuses == dict(answered)
    assert answered[409] == 0
    assert result.skipped > 0, "the body after a refused one is stale and is not sent"
    assert sum(1 for head in heads.values() if head) > 40


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_preloaded_library_counts_and_delays_every_sync(tmp_path):
    shim = Shim.build(tmp_path)
    environment = shim.environment(tmp_path / "counts")
    Shim.set_delay(tmp_path / "counts", 20)
    program = (
        "import os,sqlite3,sys,time\n"
        "f = open(sys.argv[1] + '/file', 'wb')\n"
        "begun = time.monotonic()\n"
        "for _ in range(3): os.fdatasync(f.fileno())\n"
        "os.fsync(f.fileno())\n"
        "assert time.monotonic() - begun >= 0.08\n"
        "db = sqlite3.connect(sys.argv[1] + '/db', isolation_level=None)\n"
        "db.execute('pragma journal_mode=wal'); db.execute('pragma synchronous=full')\n"
        "db.execute('create table t (a)')\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, env={**os.environ, **environment}
    )
    sample = Probe((), tmp_path / "counts").sample()
    assert sample.fsyncs >= 1
    assert sample.fdatasyncs >= 4, "SQLite's own syncs count too"
    assert sample.sync_seconds >= 0.08


def test_a_process_tree_holds_the_children():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(tree(os.getpid()))
    finally:
        child.communicate(b"\n")
