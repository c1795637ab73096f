"""The whole daemon under `witness run`: core, front and supervisor are killed under HTTP load."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.core.processes import clean_environ, poll, short_folder
from tests.core.state import NAME, make_state, trust
from tests.crash.load import Story, enough
from tests.crash.promise import Ledger
from witness.core.keystore import softkey
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError, RootMismatch, StaleOldSize

LOGS = 4
CLIENTS = 2


class HttpLoader(threading.Thread):
    """A client that goes on whatever happens, over connections that break."""

    def __init__(self, port: int, stories: list[Story], ledger: Ledger, seed: int) -> None:
        super().__init__(daemon=True)
        self._port, self._stories, self._ledger = port, stories, ledger
        self._choose = random.Random(seed)
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self._until_it_breaks()
                self.stop.wait(0.02)
        except BaseException as error:
            self.failure = error

    def _until_it_breaks(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        with contextlib.closing(connection):
            while not self.stop.is_set():
                story = self._choose.choice(self._stories)
                body = story.body(self._choose)
                connection.request("POST", "/add-checkpoint", body)
                story.learn(body, self._answer(body, connection.getresponse(), story))
                name = sha256(story.origin.encode()).hexdigest()
                connection.request("GET", f"/{name}/checkpoint")
                response = connection.getresponse()
                note = response.read()
                if response.status == 200:
                    self._ledger.served(note)

    def _answer(self, body: bytes, response: http.client.HTTPResponse, story: Story) -> bytes | CoreError:
        data = response.read()
        if response.status == 200:
            self._ledger.answered(body, data)
            return data
        if response.status == 409:
            assert response.headers["Content-Type"] == "text/x.tlog.size"
            return StaleOldSize(int(data))
        assert response.status in (400, 422, 429, 503), (response.status, data)
        if response.status == 422 and data.startswith(b"root mismatch"):
            return RootMismatch(story.origin, story.known)
        return CoreError()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def daemon(layout: StateLayout, port: int) -> Iterator[subprocess.Popen[bytes]]:
    entry = "from witness.cli.main import main; main()"
    with (layout.root / "daemon.output").open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", entry, "--state", str(layout.root), "run", f"--listen=127.0.0.1:{port}"],
            cwd=ROOT, env=clean_environ(), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def children(supervisor: int) -> dict[str, int]:
    """The process IDs of the supervisor's children, as far as they are there."""
    found = {}
    for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"witness.core" in command:
                found["core"] = int(child)
            elif b"witness.cli.front_process" in command:
                found["front"] = int(child)
            elif b"witness.cli.feeding_process" in command:
                found["feeder"] = int(child)
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended; whoever is to reap it may not have done so yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def run_campaign(runs: int, seed: int, *, size: int = 400) -> Ledger:
    """Each run kills core and front twice, and then the supervisor itself."""
    choose = random.Random(seed)
    stories = [Story(f"daemon.example/{n}", size) for n in range(LOGS)]
    with short_folder() as folder:
        layout = make_state(folder, algorithms=("ed25519",))
        layout.config.write_text(f"name: {NAME}\n")
        trust(layout, *(story.truth for story in stories))
        vkeys = softkey.read_public(layout.softkey).vkeys
        ledger = Ledger(vkeys, {story.origin: [story.truth, story.lie] for story in stories})
        for run in range(runs):
            port = free_port()
            loaders = [HttpLoader(port, stories, ledger, seed + run * CLIENTS + n) for n in range(CLIENTS)]
            with daemon(layout, port) as supervisor:
                for loader in loaders:
                    loader.start()
                output = layout.root / "daemon.output"
                for victim in choose.sample(["core", "front", "core", "front"], 4):
                    wanted = ledger.answers + choose.randint(5, 40)
                    poll(
                        f"answers of run {run} before the {victim} is killed",
                        lambda want=wanted, of=loaders: (
                            supervisor.poll() is not None or enough(ledger, want, of)
                        ),
                    )
                    assert supervisor.poll() is None, output.read_text()[-3000:]
                    pid = poll(f"a {victim}", lambda name=victim: children(supervisor.pid).get(name))
                    os.kill(pid, signal.SIGKILL)
                    poll(f"the end of the {victim}", lambda dead=pid: gone(dead) or None)
                    ledger.check_state(layout.database)
                wanted = ledger.answers + 10
                poll("answers after all that", lambda want=wanted, of=loaders: enough(ledger, want, of))
                left = children(supervisor.pid)
                assert set(left) == {"core", "front", "feeder"}
                supervisor.kill()
                # Its children hold its pipes: they notice, and end.
                for pid in left.values():
                    poll("the children's end", lambda dead=pid: gone(dead) or None)
            for loader in loaders:
                loader.stop.set()
                loader.join(30)
                assert not loader.is_alive()
                if loader.failure is not None:
                    raise loader.failure
            ledger.check_state(layout.database)
    return ledger


@pytest.mark.slow
def test_core_and_front_and_supervisor_are_killed() -> None:
    ledger = run_campaign(2, seed=3)
    assert len(ledger.disk) == LOGS


@pytest.mark.campaign
def test_two_hundred_kills() -> None:
    ledger = run_campaign(40, seed=random.SystemRandom().randrange(10**9), size=8000)
    assert len(ledger.disk) == LOGS
