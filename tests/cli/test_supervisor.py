"""The supervisor over programs that die, stall and lie on command."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from witness.cli.child import Child, Program, StartFailed
from witness.cli.supervisor import GaveUp, Patience, supervise

ROOT = Path(__file__).resolve().parents[2]

WELL_BEHAVED = """
import json, os, signal, sys
line = sys.stdin.readline()
def note(word):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{NAME} {word} {os.getpid()}\\n")
signal.signal(signal.SIGTERM, lambda *_: (note("terminated"), sys.exit(0)))
note("started " + line.strip())
print(json.dumps({"ready": True, "listening": ["http://x"]}), flush=True)
try:
    print("more output, which nobody reads " * 10000, flush=True)
except BrokenPipeError:
    pass
sys.stdin.read()
note("orphaned")
"""


def program(name: str, code: str, notes: Path, **more) -> Program:
    source = f"NAME = {name!r}\n" + textwrap.dedent(code)
    environ = {**os.environ, "NOTES": str(notes)}
    return Program(name, (sys.executable, "-c", source), f"settings of {name}", environ, **more)


def read(notes: Path) -> list[list[str]]:
    return [line.rsplit(" ", 1) for line in notes.read_text().splitlines()] if notes.exists() else []


class Run:
    """A supervisor in this process."""

    def __init__(
        self,
        tmp_path: Path,
        core: str = WELL_BEHAVED,
        front: str = WELL_BEHAVED,
        *,
        feeder: str = "",
        ask=None,
        **patience,
    ):
        self.notes = tmp_path / "notes"
        self.lines: list[str] = []
        self.ready: list[dict] = []
        self.began = asyncio.Event()
        self._core = program("core", core, self.notes, ask=ask, again=str)
        self._fronts = [program("front", front, self.notes)]
        if feeder:
            self._fronts.append(program("feeder", feeder, self.notes))
        self._patience = Patience(**{"first_pause": 0.01, "longest_pause": 0.02, "stop": 5.0, **patience})

    async def __aenter__(self):
        async def started(ready):
            self.ready.append(ready)
            self.began.set()

        self.task = asyncio.create_task(
            supervise(
                self._core, self._fronts, started=started, say=self.lines.append, patience=self._patience
            )
        )
        return self

    async def __aexit__(self, *_):
        if not self.task.done():
            self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for pid in self.pids("core") + self.pids("front") + self.pids("feeder"):
            assert not alive(pid), "a child outlived its supervisor"

    def pids(self, name: str) -> list[int]:
        return [int(pid) for words, pid in read(self.notes) if words.startswith(f"{name} started")]

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_tells_each_its_settings_and_reports_readiness(tmp_path):
    async with Run(tmp_path) as run:
        await run.began.wait()
        assert [words for words, _ in read(run.notes)] == [
            "core started settings of core",
            "front started settings of front",
        ]
        assert run.ready == [{"ready": True, "listening": ["http://x"]}]
        assert run.lines == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_the_front_first_and_then_the_core(tmp_path, number):
    async with Run(tmp_path) as run:
        await run.began.wait()
        os.kill(os.getpid(), number)
        assert await run.task is True
        assert [words for words, _ in read(run.notes)][2:] == ["front terminated", "core terminated"]


@pytest.mark.parametrize("name", ["core", "front"])
async def test_whoever_dies_is_started_anew_and_the_other_is_left_alone(tmp_path, name):
    async with Run(tmp_path) as run:
        await run.began.wait()
        os.kill(run.pids(name)[0], signal.SIGKILL)
        await run.until(lambda: len(run.pids(name)) == 2)
        other = "front" if name == "core" else "core"
        assert len(run.pids(other)) == 1
        assert alive(run.pids(other)[0])
        await run.until(lambda: len(run.lines) == 2)
        assert run.lines[0] == f"the {name} ended (SIGKILL) and is started anew"
        assert f"the {name} runs again" in run.lines[1]


async def test_a_silent_child_is_killed_and_started_anew_and_told_of_it(tmp_path):
    silent = asyncio.Event()

    async def ask():
        if silent.is_set():
            await asyncio.Event().wait()

    async with Run(tmp_path, ask=ask, silence=0.2, tick=0.01) as run:
        await run.began.wait()
        silent.set()
        await run.until(lambda: run.lines)
        silent.clear()
        await run.until(lambda: len(run.lines) == 3)
        assert run.lines[0] == "the core has not answered for 0.2 s and is killed"
        assert run.lines[1] == "the core ended (SIGKILL, having been silent for 0.2 s) and is started anew"
        assert "the core runs again" in run.lines[2]
        assert not alive(run.pids("core")[0])
        assert len(run.pids("front")) == 1
        os.kill(run.pids("core")[1], signal.SIGKILL)
        await run.until(lambda: len(run.pids("core")) == 3)
        told = [words for words, _ in read(run.notes) if words.startswith("core started")]
        assert told == [
            "core started settings of core",
            "core started Restarts(ended=0, hung=1)",
            "core started Restarts(ended=1, hung=1)",
        ]


async def test_a_fault_in_asking_ends_everything_and_is_told(tmp_path):
    async def ask():
        raise RuntimeError("a bug")

    async with Run(tmp_path, ask=ask, tick=0.01) as run:
        with pytest.raises(RuntimeError, match="a bug"):
            await run.task


async def test_fronts_are_started_side_by_side_watched_each_and_end_before_the_core(tmp_path):
    async with Run(tmp_path, feeder=WELL_BEHAVED) as run:
        await run.began.wait()
        assert run.ready == [{"ready": True, "listening": ["http://x"]}]
        os.kill(run.pids("feeder")[0], signal.SIGKILL)
        await run.until(lambda: len(run.lines) == 2)
        assert run.lines[0] == "the feeder ended (SIGKILL) and is started anew"
        assert (len(run.pids("core")), len(run.pids("front")), len(run.pids("feeder"))) == (1, 1, 2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run.task is True
        words = [words for words, _ in read(run.notes)]
        assert sorted(words[-3:-1]) == ["feeder terminated", "front terminated"]
        assert words[-1] == "core terminated"


async def test_a_front_that_does_not_start_ends_the_one_beside_it(tmp_path):
    refuses = 'import json; print(json.dumps({"error": "no room"}), flush=True)'
    async with Run(tmp_path, feeder=refuses) as run:
        with pytest.raises(StartFailed, match="feeder: no room"):
            await run.task
        assert run.ready == []


async def test_too_many_deaths_end_everything(tmp_path):
    async with Run(tmp_path, deaths=4) as run:
        await run.began.wait()
        for count in range(1, 5):
            await run.until(lambda count=count: len(run.pids("core")) == count)
            os.kill(run.pids("core")[-1], signal.SIGKILL)
        with pytest.raises(GaveUp, match="the core ended 4 times within 60 s, lastly: SIGKILL"):
            await run.task
        assert read(run.notes)[-1][0] == "front terminated"
        assert len(run.pids("core")) == 4


async def test_deaths_far_apart_are_forgiven(tmp_path):
    async with Run(tmp_path, deaths=2, window=0.05) as run:
        await run.began.wait()
        for count in range(1, 5):
            await run.until(lambda count=count: len(run.pids("core")) == count)
            await asyncio.sleep(0.1)
            os.kill(run.pids("core")[-1], signal.SIGKILL)
        await run.until(lambda: len(run.pids("core")) == 5)
        assert not run.task.done()


async def test_a_child_that_does_not_start_again_counts_as_dead(tmp_path):
    once = """
        import os, sys
        if os.path.exists(os.environ["NOTES"] + ".once"):
            print('{"error": "not again", "hint": ""}')
            sys.exit(3)
        open(os.environ["NOTES"] + ".once", "w").close()
    """
    async with Run(tmp_path, core=textwrap.dedent(once) + WELL_BEHAVED) as run:
        await run.began.wait()
        os.kill(run.pids("core")[0], signal.SIGKILL)
        with pytest.raises(GaveUp, match="lastly: not again"):
            await run.task
        assert run.lines.count("the core did not start: not again") == 4


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        ('print(\'{"error": "no state", "hint": "make one"}\')', "no state", "make one"),
        ("import sys; sys.exit(7)", r"ended before it was ready \(exit status 7\)", ""),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"ended before it was ready \(SIGKILL\)",
            "",
        ),
        ("print('hello')", "said b'hello", ""),
        ("print('[]')", "instead of its one line", ""),
        ("print('x' * 200000)", "not its one line", ""),
        ("import time; time.sleep(60)", "was not ready within 1 s", ""),
    ],
)
@pytest.mark.parametrize("name", ["core", "front"])
async def test_a_start_that_fails_is_told_and_ends_everything(tmp_path, name, code, reason, hint):
    async with Run(tmp_path, **{name: code}, start=1.0) as run:
        with pytest.raises(StartFailed, match=reason) as caught:
            await run.task
        assert caught.value.name == name
        assert caught.value.hint == hint
        if name == "front":
            assert read(run.notes)[-1][0] == "core terminated"


async def test_a_program_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StartFailed, match="cannot be started"):
        await Child.start(Program("core", (str(tmp_path / "none"),), "", {}), 1.0)


STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
""" + WELL_BEHAVED.replace('signal.signal(signal.SIGTERM, lambda *_: (note("terminated"), sys.exit(0)))', "")


async def test_a_child_that_does_not_end_is_killed(tmp_path):
    async with Run(tmp_path, front=STUBBORN, stop=0.3) as run:
        await run.began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run.task is False
        assert read(run.notes)[-1][0] == "core terminated"


async def test_a_second_signal_cuts_the_drain_short(tmp_path):
    async with Run(tmp_path, front=STUBBORN, stop=60.0) as run:
        await run.began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            await run.task
        assert read(run.notes)[-1][0] == "core terminated"


async def test_children_have_sessions_of_their_own(tmp_path):
    async with Run(tmp_path) as run:
        await run.began.wait()
        for pid in run.pids("core") + run.pids("front"):
            assert os.getsid(pid) == pid


def test_children_end_when_their_supervisor_is_killed(tmp_path):
    notes = tmp_path / "notes"
    script = f"""
import asyncio, json, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.cli.test_supervisor import WELL_BEHAVED, program
from witness.cli.supervisor import supervise
async def started(ready):
    print("started", flush=True)
notes = Path({str(notes)!r})
core, front = program("core", WELL_BEHAVED, notes), program("front", WELL_BEHAVED, notes)
asyncio.run(supervise(core, [front], started=started, say=print))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"started\n"
        children = [int(pid) for words, pid in read(notes) if " started" in words]
        assert len(children) == 2
        process.kill()
        process.wait()
        until = time.monotonic() + 20
        while any(alive(pid) for pid in children):
            assert time.monotonic() < until, "a child outlived its killed supervisor"
            time.sleep(0.01)
        assert sorted(words for words, _ in read(notes)[2:]) == ["core orphaned", "front orphaned"]
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("witness.cli.supervisor", {"aiohttp", "uvloop", "sqlite3", "yaml", "click"}),
        ("witness.cli.run", {"aiohttp", "uvloop", "feeders", "distributor", "prometheus_client"}),
        (
            "witness.cli.front_process",
            {"click", "yaml", "sqlite3", "sqlite_utils", "witness.core.store", "witness.core.keystore"},
        ),
    ],
)
def test_what_each_process_does_not_load(module, forbidden):
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)))
    assert loaded & forbidden == set()
