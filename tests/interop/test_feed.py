"""`witness feed` brings a Tessera log, polled as files, to a real omniwitness and a real litewitness."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from nacl.signing import SigningKey

from tests.interop.processes import Program, fetch, free_port, poll, serve_folder
from tests.interop.programs import HERE, GoPrograms, cache_folder, find_go
from tests.interop.tessera_log import TesseraLog

pytestmark = pytest.mark.slow

OMNIWITNESS = "github.com/transparency-dev/witness/cmd/omniwitness"
CALL = "from witness.cli.main import main; main()"
LITEWITNESS = "filippo.io/torchwood/cmd/litewitness"


@pytest.fixture(scope="session")
def others() -> GoPrograms:
    """Other people's witnesses; a module of their own pins them."""
    return GoPrograms(find_go(), cache_folder(), HERE / "feeding")


def signer_key(name: str) -> str:
    """A note signer key as Go's note package writes it."""
    seed = hashlib.sha256(name.encode()).digest()
    public = b"\x01" + bytes(SigningKey(seed).verify_key)
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4].hex()
    private = base64.b64encode(b"\x01" + seed).decode()
    return f"PRIVATE+KEY+{name}+{key_id}+{private}"


@contextmanager
def omniwitness(programs: GoPrograms, log: TesseraLog, folder: Path) -> Iterator[str]:
    """A real omniwitness that knows the log; yields its submission prefix."""
    folder.mkdir()
    key, logs = folder / "key", folder / "logs.yaml"
    key.write_text(signer_key("omniwitness.example"))
    entry = {"Origin": log.origin, "PublicKey": log.vkey, "URL": "http://127.0.0.1:1", "Feeder": "none"}
    logs.write_text(yaml.safe_dump({"Logs": [entry]}))
    port = free_port()
    program = Program(
        [
            str(programs.path(OMNIWITNESS)),
            *("--listen", f"127.0.0.1:{port}", "--metrics_listen", ""),
            *(
                "--private_key_path",
                str(key),
                "--additional_logs",
                str(logs),
                "--db_file",
                str(folder / "db"),
            ),
        ],
        folder / "output",
    )
    try:
        await_answer(f"http://127.0.0.1:{port}/", program)
        yield f"http://127.0.0.1:{port}"
    finally:
        program.kill()


@contextmanager
def litewitness(programs: GoPrograms, log: TesseraLog, folder: Path) -> Iterator[str]:
    """A real litewitness that knows the log; its key lies in an ssh-agent, as it must."""
    tools = {name: shutil.which(name) for name in ("ssh-agent", "ssh-add", "ssh-keygen")}
    if None in tools.values():
        pytest.skip("litewitness needs OpenSSH's ssh-agent (Debian: apt-get install openssh-client)")
    folder.mkdir()
    key, socket, port = folder / "key", folder / "agent", free_port()
    run([tools["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    agent = Program([tools["ssh-agent"], "-D", "-a", str(socket)], folder / "agent.output")
    program = None
    try:
        poll("the agent listens", lambda: socket.exists() or None)
        run([tools["ssh-add"], str(key)], SSH_AUTH_SOCK=str(socket))
        fingerprint = run([tools["ssh-keygen"], "-lf", str(key)]).split()[1]
        command = [
            str(programs.path(LITEWITNESS)),
            *("-name", "litewitness.example/w", "-db", str(folder / "db"), "-key", fingerprint),
            *("-ssh-agent", str(socket), "-listen", f"127.0.0.1:{port}"),
        ]
        program = Program(command, folder / "output")
        await_answer(f"http://127.0.0.1:{port}/", program)
        with closing(sqlite3.connect(folder / "db")) as connection, connection:
            empty = base64.b64encode(hashlib.sha256().digest()).decode()
            connection.execute("INSERT INTO log VALUES (?, 0, ?)", (log.origin, empty))
            connection.execute("INSERT INTO key VALUES (?, ?)", (log.origin, log.vkey))
        yield f"http://127.0.0.1:{port}"
    finally:
        if program is not None:
            program.kill()
        agent.kill()


def run(command: list[str], **environ: str) -> str:
    """Runs a tool that must succeed; its stdout."""
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30, env=os.environ | environ
    ).stdout


def await_answer(url: str, program: Program) -> None:
    """Waits until something answers at `url`, whatever it says."""

    def ask() -> bool | None:
        if program.process.poll() is not None:
            pytest.fail(program.said())
        try:
            return bool(fetch(url).status)
        except OSError:
            return None

    poll(f"an answer from {url}", ask)


def feed(*args: str) -> tuple[int, list[dict[str, Any]], str]:
    """`witness feed … --once --json`: the exit code and the answers."""
    outcome = subprocess.run(
        [
            sys.executable,
            "-c",
            "from witness.cli.main import main; main()",
            "feed",
            *args,
            "--once",
            "--json",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return outcome.returncode, [json.loads(line) for line in outcome.stdout.splitlines()], outcome.stderr


def test_a_tessera_log_is_brought_to_both(programs: GoPrograms, others: GoPrograms, tmp_path: Path) -> None:
    log = TesseraLog(programs, tmp_path / "log", "interop.example/tessera/fed")
    assert "error" not in log.run("quorum none\n", [["a", "b", "c"]])
    with (
        serve_folder(log.folder) as url,
        omniwitness(others, log, tmp_path / "omni") as omni,
        litewitness(others, log, tmp_path / "lite") as lite,
    ):
        logs = tmp_path / "logs.yaml"
        entry = {"origin": log.origin, "vkeys": [log.vkey], "feeder": "tiles", "url": url}
        logs.write_text(yaml.safe_dump({"logs": [entry]}))
        args = ["--to", omni, "--to", lite, "--logs", str(logs)]
        for size, entries in ((3, 0), (703, 700), (703, 0), (704, 1)):
            if entries:
                assert "error" not in log.run("quorum none\n", [[f"{size} {n}" for n in range(entries)]])
            code, answers, said = feed(*args)
            assert code == 0, (answers, said)
            found = {
                each["witness"]: (each["status"], each["size"], len(each["cosigners"])) for each in answers
            }
            assert found == {omni: ("current", size, 1), lite: ("current", size, 1)}
        names = {each["cosigners"][0].rpartition("+")[0] for each in answers}
        assert names == {"omniwitness.example", "litewitness.example/w"}
