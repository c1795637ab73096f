"""Our own witness as a thing to be measured: made in a folder of its own, configured, started, stopped.

Names of commands and settings stand in the block below and nowhere else in the benchmarks.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Memory, Probe, Shim, memory, tree

# -- the names of the witness under test ---------------------------------------------------------
ENTRY = "from witness.cli.main import main; main()"
NAME = "bench.example/witness"
CONFIGURATION = "witness.yaml"
INIT_ALGORITHM = "--algorithm"  # repeatable
PASSPHRASE_VARIABLE = "WITNESS_PASSPHRASE"
SETTING_MAX_BATCH = ("core", "max_batch")
ED25519 = ("ed25519",)
BOTH = ("ed25519", "ml-dsa-44")
HEALTH = "/healthz"
IN_PROCESS = "benchmarks.in_process"
# ------------------------------------------------------------------------------------------------

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class ServerFailed(Exception):
    """The server under test could not be made, started or stopped; the text has its last words."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    """Until GET `path` answers with any status below 500.

    Raises:
        ServerFailed: the process ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"ended with {process.returncode}: {last_words(log)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().status < 500:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.005)
        finally:
            connection.close()
    raise ServerFailed(f"no answer within {START_SECONDS:.0f} s: {last_words(log)}")


def last_words(log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return " / ".join(text.strip().splitlines()[-6:])


@dataclass
class Server:
    """A server process on loopback, ours or a peer's, with what is needed to load and measure it."""

    name: str
    folder: Path
    port: int = 0
    vkeys: tuple[str, ...] = ()
    companions: tuple[int, ...] = ()  # processes that work for it without being its children
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    counting: Path | None = None

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    def launch(self, argv: list[str], health: str, environment: dict[str, str]) -> float:
        """Starts `argv`; returns the seconds until it answered."""
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if k != PASSPHRASE_VARIABLE}
        begun = time.perf_counter()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                argv, cwd=self.folder, env={**inherited, **environment}, stdout=output, stderr=output
            )
        try:
            wait_until_healthy(self.process, self.port, health, self.log)
        except ServerFailed as error:
            self.stop()
            raise ServerFailed(f"{self.name}: {error}") from None
        return time.perf_counter() - begun

    def pids(self) -> list[int]:
        return [*tree(self.process.pid), *self.companions] if self.process else []

    def probe(self) -> Probe:
        return Probe(tuple(self.pids()), self.counting)

    def memory(self) -> dict[int, Memory]:
        return memory(self.pids())

    def stop(self, stop_signal: int = signal.SIGTERM) -> int | None:
        """The exit status; a process that does not stop in time is killed, its children with it."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        family = tree(process.pid)
        process.send_signal(stop_signal)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in family:
                os.kill(pid, signal.SIGKILL)
            return process.wait()


class OurWitness(Server):
    """`witness init`, `witness logs import`, `witness run`."""

    def __init__(self, name: str, folder: Path, log_list: Path, shim: Shim | None, **settings: Any) -> None:
        """`settings`: `algorithms` (a tuple) and `max_batch` (1: one commit a request)."""
        super().__init__(name, folder)
        self._log_list = log_list
        self._shim = shim
        self._settings = settings
        self._state = folder / "state"
        self.import_seconds = 0.0
        if shim is not None:
            self.counting = folder / "counts"

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", ENTRY, "--state", str(self._state), *arguments]

    def _do(self, *arguments: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != PASSPHRASE_VARIABLE}
        argv = self._command(*arguments)
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerFailed(f"{self.name}: witness {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def create(self) -> None:
        """Makes the state folder anew, with all logs."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        algorithms = self._settings.get("algorithms", BOTH)
        self._do("init", "--name", NAME, *(part for each in algorithms for part in (INIT_ALGORITHM, each)))
        self._configure()
        begun = time.perf_counter()
        self._do("logs", "import", str(self._log_list))
        self.import_seconds = time.perf_counter() - begun

    def _configure(self) -> None:
        max_batch = self._settings.get("max_batch")
        if max_batch is None:
            return
        path = self._state / CONFIGURATION
        settings = yaml.safe_load(path.read_text()) or {}
        section, key = SETTING_MAX_BATCH
        settings[section] = {**(settings.get(section) or {}), key: max_batch}
        path.write_text(yaml.safe_dump(settings, sort_keys=False))

    def start(self) -> float:
        """Seconds from the command to the first healthy answer."""
        self.port = free_port()
        environment = {}
        if self._shim is not None and self.counting is not None:
            environment = self._shim.environment(self.counting)
        took = self.launch(self._command("run", "--listen", f"127.0.0.1:{self.port}"), HEALTH, environment)
        self.vkeys = tuple(self._do("keys", "list").split())
        return took

    def start_in_process(self) -> float:
        """The same, with core and front in one process that is not locked down."""
        self.port = free_port()
        environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        if self._shim is not None and self.counting is not None:
            environment |= self._shim.environment(self.counting)
        argv = [sys.executable, "-m", IN_PROCESS, str(self._state), str(self.port)]
        took = self.launch(argv, HEALTH, environment)
        self.vkeys = tuple(self._do("keys", "list").split())
        return took

    def set_sync_delay(self, milliseconds: float) -> None:
        if self.counting is None:
            raise ServerFailed("no C compiler: fsyncs cannot be delayed")
        Shim.set_delay(self.counting, milliseconds)
