"""The two Go witnesses, where Go is at hand, driven alternately with ours.

Built from published versions through the Go module proxy into a temporary folder (go.sum is made there,
checked by the Go checksum database; nothing is committed). All on loopback; the omniwitness gets no
distributor, no bastion and no list to poll. litewitness signs through an ssh-agent of its own, whose CPU
counts as its own too.

Read the figures with this in mind: litewitness of this version opens SQLite with its defaults (rollback
journal, one commit a request); omniwitness uses WAL with synchronous=FULL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import yaml
from nacl.bindings import crypto_sign_seed_keypair

from benchmarks import ours
from benchmarks.chains import Chains
from benchmarks.load_result import Result
from benchmarks.ours import Server, ServerFailed, free_port
from benchmarks.scenarios import COLUMNS, Bench, Contestant, ratio, row
from witness.tlog.note import SignatureType, make_vkey

LOGS = 50
BUILD_SECONDS = 600


@dataclass(frozen=True)
class Recipe:
    """What to build, of which published module versions. `replaced` names versions the proxy has instead
    of ones a module asks for and the proxy does not serve."""

    module: str
    version: str
    packages: tuple[str, ...]
    go: str
    replaced: tuple[tuple[str, str], ...] = ()

    @property
    def mod(self) -> str:
        lines = [f"module example.org/peers/{self.module.replace('/', '-')}", f"go {self.go}"]
        lines.append(f"require {self.module} {self.version}")
        lines += [f"replace {module} => {module} {version}" for module, version in self.replaced]
        return "\n".join(lines) + "\n"


LITEWITNESS = Recipe("filippo.io/torchwood", "v0.9.0", ("cmd/litewitness",), "1.24.0")
OMNIWITNESS = Recipe(
    "github.com/transparency-dev/witness",
    "v0.0.0-20260701145555-54dbcdd14f82",
    ("cmd/omniwitness",),
    "1.25.0",
    (("github.com/transparency-dev/formats", "v0.1.2-0.20260710124811-af9e607161b6"),),
)


class NotBuilt(Exception):
    """This peer cannot be had here; the text says why."""


def build(recipe: Recipe, folder: Path) -> Path:
    """The folder of the built programs.

    Raises:
        NotBuilt: no Go, no proxy, or the build failed.
    """
    if shutil.which("go") is None:
        raise NotBuilt("Go is not installed")
    source = folder / recipe.module.replace("/", "-")
    source.mkdir(parents=True)
    (source / "go.mod").write_text(recipe.mod)
    packages = [f"{recipe.module}/{package}" for package in recipe.packages]
    imports = "".join(f"import _ {package!r}\n".replace("'", '"') for package in packages)
    (source / "tools.go").write_text(f"//go:build tools\n\npackage peers\n\n{imports}")
    programs = source / "bin"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    argv = ["go", "build", "-o", f"{programs}/", *packages]
    try:
        done = subprocess.run(
            argv,
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotBuilt(f"go build took more than {BUILD_SECONDS} s") from None
    if done.returncode:
        raise NotBuilt(f"go build: {done.stderr.strip().splitlines()[-1:]}")
    return programs


def omniwitness(programs: Path, folder: Path, name: str, connections: int) -> Server:
    """omniwitness with `connections` database connections and the bench's logs, started."""
    folder.mkdir(parents=True)
    chains = Chains(LOGS)
    logs = [
        {"Origin": chains.origin(log).decode(), "PublicKey": chains.vkey(log), "URL": "http://127.0.0.1:9/"}
        for log in range(LOGS)
    ]
    (folder / "logs.yaml").write_text(yaml.safe_dump({"Logs": logs}))
    seed = hashlib.sha256(b"omniwitness bench key").digest()
    public = crypto_sign_seed_keypair(seed)[0]
    plain = make_vkey("omni.example/w", SignatureType.ED25519, public)
    secret = b64encode(b"\x01" + seed).decode()
    (folder / "key").write_text(f"PRIVATE+KEY+omni.example/w+{plain.key_id.hex()}+{secret}")
    vkey = make_vkey("omni.example/w", SignatureType.COSIGNATURE_ED25519, public)
    server = Server(name, folder, port=free_port(), vkeys=(str(vkey),))
    argv = [str(programs / "omniwitness"), f"--listen=127.0.0.1:{server.port}", "--metrics_listen="]
    argv += [f"--db_file={folder}/witness.db", f"--db_max_conns={connections}"]
    argv += ["--additional_logs=logs.yaml", f"--private_key_path={folder}/key"]
    server.launch(argv, "/", {})
    return server


def _quietly(argv: list[str], **environment: str) -> None:
    done = subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise ServerFailed(f"{' '.join(argv[:2])}: {done.stderr.strip()[-200:]}")


class LiteWitness(Server):
    """litewitness and its ssh-agent."""

    def __init__(self, programs: Path, folder: Path) -> None:
        super().__init__("litewitness", folder, port=free_port())
        folder.mkdir(parents=True)
        for tool in ("ssh-agent", "ssh-add", "ssh-keygen"):
            if shutil.which(tool) is None:
                raise NotBuilt(f"{tool} is not installed")
        agent_socket = folder / "agent.sock"
        _quietly(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")])
        fingerprint = subprocess.run(
            ["ssh-keygen", "-lf", str(folder / "key")], check=True, capture_output=True, text=True
        ).stdout.split()[1]
        self._agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(agent_socket)], stdout=subprocess.DEVNULL
        )
        try:
            while not agent_socket.exists() and self._agent.poll() is None:
                time.sleep(0.01)
            _quietly(["ssh-add", str(folder / "key")], SSH_AUTH_SOCK=str(agent_socket))
            self.companions = (self._agent.pid,)
            argv = [str(programs / "litewitness"), "-name", "lite.example/w", "-db", str(folder / "db")]
            argv += [
                "-key",
                fingerprint,
                "-ssh-agent",
                str(agent_socket),
                "-listen",
                f"127.0.0.1:{self.port}",
            ]
            self.launch(argv, "/", {})
            self.vkeys = (self._own_vkey(),)
            self._add_logs(folder / "db")
        except BaseException:
            self._agent.kill()
            raise

    @staticmethod
    def _add_logs(database: Path) -> None:
        """What `witnessctl add-log` and `add-key` do; that program needs modules the proxy does not serve."""
        chains = Chains(LOGS)
        empty = b64encode(hashlib.sha256().digest()).decode()
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            for log in range(LOGS):
                origin = chains.origin(log).decode()
                connection.execute(
                    "INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", (origin, empty)
                )
                connection.execute("INSERT INTO key (origin, key) VALUES (?, ?)", (origin, chains.vkey(log)))

    def _own_vkey(self) -> str:
        for line in self.log.read_text().splitlines():
            if "vkey=" in line:
                return line.partition("vkey=")[2].strip().strip('"')
        raise ServerFailed("litewitness did not print its vkey")

    def stop(self, stop_signal: int = signal.SIGINT) -> int | None:
        status = super().stop(stop_signal)
        self._agent.terminate()
        self._agent.wait(5)
        return status


def against_peers(bench: Bench) -> None:
    """Saturation, 50 logs, 50 connections, Ed25519: ours and each peer that can be had, in turn."""
    bench.say("building the Go witnesses")
    peers: list[Server] = []
    folder = bench.folder / "peers"
    try:
        try:
            programs = build(OMNIWITNESS, folder)
            peers.append(omniwitness(programs, folder / "omni-1", "omniwitness, 1 database connection", 1))
            peers.append(omniwitness(programs, folder / "omni-1000", "omniwitness, its default 1000", 1000))
        except (NotBuilt, ServerFailed) as error:
            bench.report.notes.append(f"omniwitness left out: {error}")
        try:
            peers.append(LiteWitness(build(LITEWITNESS, folder), folder / "lite"))
        except (NotBuilt, ServerFailed) as error:
            bench.report.notes.append(f"litewitness left out: {error}")
        if peers:
            _drive(bench, peers)
    finally:
        for peer in peers:
            peer.stop()


def _drive(bench: Bench, peers: list[Server]) -> None:
    with contextlib.ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        servers: list[Server] = [bench.witness("ours", LOGS, algorithms=ours.ED25519), *peers]
        for server in servers:
            contestants[server.name] = stack.enter_context(bench.running(server, LOGS))
            contestants[server.name].load.prime()
        bench.say("ours against " + ", ".join(peer.name for peer in peers))
        found: dict[str, list[Result]] = bench.alternate(contestants)
    columns = [*COLUMNS, "ours is so many times as fast"]
    rows = []
    for server in servers:
        value, spread = ratio(found["ours"], found[server.name])
        versus = "1" if server.name == "ours" else f"{value:.2f} ({spread})"
        rows.append([*row(server.name, found[server.name], counted=server.name == "ours"), versus])
    title = "Ours and its peers, Ed25519, 50 logs, 50 connections (only a 200 counts as speed)"
    bench.report.tables.append((title, columns, rows))
    versions = ", ".join(f"{recipe.module} {recipe.version}" for recipe in (OMNIWITNESS, LITEWITNESS))
    bench.report.notes.append(
        f"Peers: {versions}. litewitness signs through ssh-agent, whose CPU is counted."
    )
