"""The core as a real process, and a blocking client of its socket.

with CoreProcess(layout) as core:              # waits for the ready line
    with SocketClient(layout.core_socket) as client:
        answer = client.ask(Verb.STATUS)       # bytes, or a CoreError as a value
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.conftest import ROOT
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError
from witness.core.settings import CoreSettings
from witness.core.wire import MAX_REPLY, FrameReader, Kind, Verb, decode_error, encode_frame

DEADLINE = 30.0
"""Seconds after which a test that waits for something has failed. Never a measure of anything."""

_T = TypeVar("_T")


def poll(what: str, ask: Callable[[], _T | None], *, seconds: float = DEADLINE) -> _T:
    """Asks until the answer is not None; fails with `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a socket's name (about a hundred bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="wit", dir="/tmp") as folder:
        yield Path(folder)


class CoreProcess:
    """`python -m witness.core` on a state folder. `first_line` is what it said on its standard output."""

    def __init__(
        self,
        layout: StateLayout,
        *,
        environ: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        self.layout = layout
        self.settings = CoreSettings(str(layout.root), **{"log_level": "WARNING", **settings})
        self.errors = layout.root / "core.stderr"
        with self.errors.open("ab") as sink:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "witness.core"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=ROOT,
                env={**clean_environ(), **(environ or {})},
            )
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(self.settings.to_json().encode() + b"\n")
            self.process.stdin.flush()
            self.first_line: dict[str, Any] = json.loads(self._read_line() or "{}")
        except BaseException:
            self.kill()
            raise

    def _read_line(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        assert ready, f"the core said nothing: {self.said()}"
        return self.process.stdout.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """The last of its log."""
        return self.errors.read_text(errors="replace")[-4000:]

    def close_life_line(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(DEADLINE)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and reaps it."""
        self.process.kill()
        self.process.wait(DEADLINE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def __enter__(self) -> CoreProcess:
        if self.first_line != {"ready": True}:
            self.kill()
            raise AssertionError(f"the core is not ready: {self.first_line} {self.said()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def clean_environ() -> dict[str, str]:
    """Our environment without what would configure a witness."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WITNESS_")}


class SocketClient:
    """A blocking connection to the core's socket. Errors come back as values, in whatever order asked."""

    def __init__(self, path: Path, *, timeout: float = DEADLINE) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(str(path))
        except BaseException:
            self.socket.close()
            raise
        self._reader = FrameReader(MAX_REPLY)
        self._next = 0
        self._answers: dict[int, bytes | CoreError] = {}

    def send(self, verb: int, payload: bytes = b"") -> int:
        """Sends one request; returns its number."""
        self._next += 1
        self.socket.sendall(encode_frame(self._next, verb, payload))
        return self._next

    def receive(self, request_id: int) -> bytes | CoreError:
        """Waits for the answer to a request.

        Raises:
            ConnectionError: the connection ended before it.
        """
        while request_id not in self._answers:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError("the core closed the connection")
            for number, kind, payload in self._reader.feed(data):
                assert number not in self._answers, "two answers to one request"
                self._answers[number] = payload if kind == Kind.OK else decode_error(payload)
        return self._answers.pop(request_id)

    def ask(self, verb: int, payload: bytes = b"") -> bytes | CoreError:
        """One request and its answer."""
        return self.receive(self.send(verb, payload))

    def add_checkpoint(self, body: bytes) -> bytes | CoreError:
        return self.ask(Verb.ADD_CHECKPOINT, body)

    def at_end(self) -> bool:
        """Whether the peer closes the connection, without a further byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> SocketClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
