"""Programs that tests start and take down; they end with the test's process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DEADLINE = 30.0
"""Seconds until a wait is a failure. Nothing is measured by it."""


def eventually(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """The condition's first true answer."""
    until = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {deadline:g} s: {what}"
        time.sleep(0.01)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


class Program:
    """One program and its runs; what it says goes to a file."""

    def __init__(
        self, argv: Sequence[str], up: Callable[[], bool], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._argv = list(argv)
        self._up = up
        self._log = log
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl, before any thread of the test
            )  # fmt: skip

        def up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            return self._up()

        eventually(f"{self._argv[0]} is up", up)

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
