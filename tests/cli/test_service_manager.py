"""What systemd is told, by a socket of our own in its place."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import make
from tests.cli.daemon import DEADLINE, daemon
from tests.core.processes import short_folder
from witness.cli.service_manager import ServiceManager


class Manager:
    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self._said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while said := self.socket.recv(4096).decode():
            self._said.put(said)

    def next(self, *, but: str = "") -> str:
        """What is said next that is not `but`."""
        while (said := self._said.get(timeout=DEADLINE)) == but:
            pass
        return said


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


def test_nothing_is_said_where_nobody_asked() -> None:
    manager = ServiceManager({})
    assert not manager.say("READY=1")
    assert manager.interval == 0.0
    asyncio.run(asyncio.wait_for(manager.keep_telling(), DEADLINE))


def test_a_manager_that_has_gone_is_no_fault(folder: Path) -> None:
    assert not ServiceManager({"NOTIFY_SOCKET": str(folder / "gone")}).say("READY=1")


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
    ],
)
def test_how_often_it_wants_to_hear(environ: dict[str, str], interval: float) -> None:
    assert ServiceManager(environ, pid=7).interval == interval


def test_an_abstract_socket(folder: Path) -> None:
    name = str(folder)  # unique; no file is made
    manager = Manager("\0" + name)
    assert ServiceManager({"NOTIFY_SOCKET": "@" + name}).say("READY=1", "STATUS=well")
    assert manager.next() == "READY=1\nSTATUS=well"


def test_a_daemon_says_that_it_serves_that_it_lives_and_that_it_ends(tmp_path: Path, folder: Path) -> None:
    address = folder / "notify"
    manager = Manager(str(address))
    state = make(tmp_path / "state")
    with daemon(state, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="200000") as running:
        assert manager.next(but="WATCHDOG=1") == "READY=1"
        assert running.ready(), "it is said when it is so"
        for _ in range(3):
            assert manager.next() == "WATCHDOG=1"
        for pid in running.children().values():
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" not in environ
            assert b"WATCHDOG" not in environ
        assert running.stop() == 0
        assert manager.next(but="WATCHDOG=1") == "STOPPING=1"
