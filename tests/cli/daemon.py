"""A real `witness run`, as its operator starts it, with its output read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEADLINE = 30.0
"""Seconds until a wait is a failure. Nothing is measured by it."""

# -P: as with the installed command, the folder that it is called in is not searched for modules.
COMMAND = [sys.executable, "-P", "-c", "from witness.cli.start import main; main(prog_name='witness')"]
ROOT = Path(__file__).resolve().parents[2]


def eventually(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """The condition's first true answer."""
    until = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {deadline:g} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would lead the daemon elsewhere."""
    names = ("WITNESS_STATE", "STATE_DIRECTORY", "WITNESS_PASSPHRASE")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    return {**clean, "PYTHONPATH": str(ROOT), **more}


class Daemon:
    """One `witness run`; stdout and stderr go to files beside the state."""

    def __init__(self, state: Path, *args: str, cwd: Path | None = None, **environ: str) -> None:
        self.state = state
        # Files, not pipes: nobody reads them while the daemon runs, and children inherit stderr.
        self.out, self.err = state.parent / f"{state.name}.out", state.parent / f"{state.name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, "--state", str(state), "run", *(args or ("--listen", "127.0.0.1:0"))],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd or state.parent,
                env=environment(**environ),
            )

    def started(self) -> Daemon:
        """Waits until it has introduced itself."""

        def introduced() -> bool:
            assert self.process.poll() is None, self.err.read_text()
            return bool(re.search(r"^  logs  ", self.out.read_text(), re.MULTILINE))

        eventually("the daemon introduces itself", introduced)
        return self

    @property
    def url(self) -> str:
        return re.search(r"^  page  (http://[^/\s]+)", self.out.read_text(), re.MULTILINE)[1]

    def children(self) -> dict[str, int]:
        """The processes that the supervisor has now, by name."""
        found = {}
        names = {b"witness.core": "core", b"feeding_process": "feeder"}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread, or a child, that has ended meanwhile
                for pid in (task / "children").read_text().split():
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if alive(int(pid)):
                        found[next((names[part] for part in names if part in line), "front")] = int(pid)
        return found

    def get(self, path: str) -> tuple[int, bytes]:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=DEADLINE)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether /healthz and /readyz answer 200."""
        try:
            return self.get("/healthz")[0] == 200 and self.get("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def end(self) -> None:
        """Makes sure that nothing of it is left."""
        children = self.children().values() if self.process.poll() is None else ()
        self.process.kill()
        self.process.wait()
        eventually("the children are gone", lambda: not any(alive(pid) for pid in children))


@contextlib.contextmanager
def daemon(state: Path, *args: str, **environ: str) -> Iterator[Daemon]:
    """A running daemon that has introduced itself."""
    running = Daemon(state, *args, **environ)
    try:
        yield running.started()
    finally:
        running.end()


def call(*args: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A `witness …` in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(**environ),
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


def facts(outcome: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(outcome.stdout)
