"""The real programs of an interop test as processes: the witness, MariaDB, a distributor, a static server."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

START_SECONDS = 60.0
STOP_SECONDS = 30.0
COMMAND_SECONDS = 60.0
HTTP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, the Content-Type header as sent, body."""

    status: int
    content_type: str
    body: bytes


def fetch(url: str, *, body: bytes | None = None, method: str | None = None) -> Answer:
    """One request to a loopback address; every status is an answer, none an error."""
    request = urllib.request.Request(url, data=body, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HTTP_SECONDS) as reply:
            return Answer(reply.status, reply.headers.get("Content-Type", ""), reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers.get("Content-Type", ""), error.read())


_T = TypeVar("_T")


def poll(what: str, ask: Callable[[], _T | None], *, seconds: float = START_SECONDS) -> _T:
    """Asks until there is an answer; fails the test with `what` when the deadline passes."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return answer


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A child process whose output goes to a file; stopped by SIGTERM, at worst by SIGKILL."""

    def __init__(self, command: Sequence[str], output: Path, *, env: dict[str, str] | None = None) -> None:
        self.output = output
        with output.open("ab") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env
            )

    def await_url(self, url: str) -> None:
        """Waits until `url` answers 200; else ends the program and fails with what it printed."""

        def ready() -> bool | None:
            code = self.process.poll()
            if code is not None:
                pytest.fail(f"{self.process.args!r} ended with {code}:\n{self.said()}")
            try:
                return True if fetch(url).status == http.HTTPStatus.OK else None
            except (OSError, http.client.HTTPException):
                return None

        try:
            poll(f"200 from {url}", ready)
        except BaseException:
            self.kill()
            raise

    def said(self) -> str:
        """The last of what the program printed."""
        return self.output.read_text(errors="replace")[-4000:]

    def stop(self) -> int:
        """SIGTERM, then the exit code; a program that does not go within the deadline fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.process.args!r} did not stop after SIGTERM:\n{self.said()}")

    def kill(self) -> None:
        """SIGKILL; for cleaning up after a failure."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_SECONDS)


class Witness:
    """The real `witness` command on a state folder of its own, without any log at first.

    Args:
        state: the state folder; `witness init` makes it.
        name: the witness's name.
    """

    def __init__(self, state: Path, name: str) -> None:
        self.state = state
        self.name = name
        self.url = ""
        self._program: Program | None = None
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("WITNESS_") and key != "STATE_DIRECTORY"
        }
        self.command("init", "--name", name, "--logs", "none")
        self.vkeys = tuple(self.command("keys", "list").split())

    def vkey(self, kind: int) -> str:
        """The one vkey of a signature type (4 or 6)."""
        found = [vkey for vkey in self.vkeys if _type_of(vkey) == kind]
        assert len(found) == 1, f"type {kind} among {self.vkeys}"
        return found[0]

    def command(self, *arguments: str) -> str:
        """Runs one management command; it must exit 0. Returns its stdout."""
        outcome = subprocess.run(
            [*_witness_command(), "--state", str(self.state), *arguments],
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        assert outcome.returncode == 0, f"witness {' '.join(arguments)}: {outcome.stdout}{outcome.stderr}"
        return outcome.stdout

    def start(self) -> None:
        """`witness run` on a free loopback port; returns once it says that it is ready."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._program = Program(
            [*_witness_command(), "--state", str(self.state), "run", "--listen", f"127.0.0.1:{port}"],
            self.state.parent / f"{self.state.name}.output",
            env=self._environment,
        )
        self._program.await_url(f"{self.url}/readyz")

    def stop(self) -> None:
        """SIGTERM; the contract is exit code 0."""
        if self._program is not None:
            program, self._program = self._program, None
            code = program.stop()
            assert code == 0, f"witness run ended with {code}:\n{program.said()}"

    def said(self) -> str:
        """The last of what the daemon printed."""
        return "" if self._program is None else self._program.said()

    def configure(self, **settings: object) -> None:
        """Sets top-level keys of the state's `witness.yaml`; before the start."""
        file = self.state / "witness.yaml"
        known = yaml.safe_load(file.read_text()) or {}
        file.write_text(yaml.safe_dump(known | settings))

    def add_log(self, vkey: str, *options: str) -> None:
        """`witness logs add`; a running daemon notices within a second, not at once."""
        self.command("logs", "add", vkey, *options)

    def submit(self, body: str | bytes) -> Answer:
        """POST /add-checkpoint."""
        return fetch(f"{self.url}/add-checkpoint", body=body.encode() if isinstance(body, str) else body)

    def submit_once_known(self, body: str | bytes) -> bytes:
        """The first add-checkpoint for a log that was just added; the daemon has a moment to notice it."""

        def ask() -> Answer | None:
            answer = self.submit(body)
            return None if answer.status == http.HTTPStatus.NOT_FOUND else answer

        answer = poll("the daemon knows a log that was added", ask, seconds=10)
        assert answer.status == http.HTTPStatus.OK, answer
        return answer.body

    def checkpoint(self, origin: str) -> str | None:
        """The monitoring endpoint's note for an origin, None while there is none."""
        answer = fetch(f"{self.url}/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint")
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return None
        assert answer.status == http.HTTPStatus.OK, answer
        return answer.body.decode()


def _type_of(vkey: str) -> int:
    return base64.b64decode(vkey.split("+", 2)[2])[0]


def _witness_command() -> list[str]:
    """The console script beside this interpreter, else the module."""
    script = shutil.which("witness", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "witness.cli.main"]


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serves a folder's files on loopback; yields the URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def mariadb(folder: Path, databases: Sequence[str]) -> Iterator[Path]:
    """MariaDB on a Unix socket alone, with empty databases; yields the socket's path.

    Skips where the Debian package's programs are not installed. `folder` must have a short path: a
    socket's name has a hundred bytes.
    """
    install, server = _sbin("mariadb-install-db"), _sbin("mariadbd")
    if install is None or server is None:
        pytest.skip("MariaDB is not installed (Debian: apt-get install mariadb-server)")
    data, bootstrap, at = folder / "data", folder / "init.sql", folder / "sock"
    bootstrap.write_text("".join(f"CREATE DATABASE {name};\n" for name in databases))
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
         "--skip-test-db", *as_root],
        check=True, capture_output=True, timeout=START_SECONDS,
    )  # fmt: skip
    program = Program(
        [server, "--no-defaults", f"--datadir={data}", f"--socket={at}", f"--pid-file={folder / 'pid'}",
         "--skip-networking", f"--init-file={bootstrap}", "--innodb-buffer-pool-size=16M", *as_root],
        folder / "mariadb.output",
    )  # fmt: skip
    try:
        poll(f"MariaDB listens\n{program.said()}", lambda: True if at.exists() else None)
        yield at
    finally:
        program.stop()


def find_distributor() -> str:
    """The server's program: what $WITNESS_INTEROP_DISTRIBUTOR names; skips where it names none.

    The tests do not build it, because github.com/transparency-dev/distributor is not to be had as a Go
    module everywhere.
    """
    program = os.environ.get("WITNESS_INTEROP_DISTRIBUTOR")
    if not program:
        pytest.skip("no distributor: WITNESS_INTEROP_DISTRIBUTOR does not name the server's program")
    return program


@contextmanager
def distributor(
    mariadb_socket: Path, database: str, witness_vkeys: Sequence[str], output: Path
) -> Iterator[str]:
    """The real transparency-dev/distributor on a database of MariaDB's; yields its URL.

    The logs it accepts are the public ones, built into it.
    """
    program = find_distributor()
    address = f"127.0.0.1:{free_port()}"
    keys = [f"-witkey={vkey}" for vkey in witness_vkeys]
    running = Program(
        [
            program,
            f"-listen={address}",
            f"-mysql_uri=root@unix({mariadb_socket})/{database}",
            "-logtostderr",
            *keys,
        ],
        output,
    )
    try:
        running.await_url(f"http://{address}/distributor/v0/logs")
        yield f"http://{address}"
    finally:
        running.kill()  # it has no orderly stop


def _sbin(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
