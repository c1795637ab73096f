"""The feeders follow logs that are made by the tools of their own families: serverless-log and Sunlight.

Neither is to be had as a Go module everywhere, so the tests do not build them: what is built is named by
`WITNESS_INTEROP_SERVERLESS` (a folder with `generate_keys`, `sequence` and `integrate`) and
`WITNESS_INTEROP_SUNLIGHT` (the server).
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import os
import secrets
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.processes import Program, Witness, free_port, poll, serve_folder
from tests.interop.programs import GoPrograms
from tests.interop.test_feeders import FEED_SECONDS, await_size
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.note import SignatureType, make_vkey, parse_note, parse_vkey
from witness.tlog.signature import verify_note

pytestmark = pytest.mark.slow

UTC = dt.UTC
AT_ONCE = 16


def named(variable: str) -> Path:
    """What an environment variable names; skips where it names nothing."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} names nothing that was built")
    return Path(value)


# --- serverless-log ---


class ServerlessLog:
    """A log that serverless-log's tools make in a folder."""

    def __init__(self, tools: Path, folder: Path, origin: str) -> None:
        self._tools = tools
        self._entries = folder / "entries"
        self._entries.mkdir(parents=True)
        self._keys = folder
        self.files = folder / "log"
        self.origin = origin
        public, private = f"--out_pub={folder / 'key.pub'}", f"--out_priv={folder / 'key'}"
        self._run("generate_keys", "--key_name=serverless.example", public, private)
        self._integrate("--initialise")
        self.vkey = (folder / "key.pub").read_text().strip()

    def add(self, entries: list[str]) -> None:
        for number, entry in enumerate(entries):
            (self._entries / f"{number}").write_text(entry)
        self._run("sequence", *self._log("key.pub"), f"--entries={self._entries}/*")
        for file in self._entries.iterdir():
            file.unlink()
        self._integrate()

    def _integrate(self, *more: str) -> None:
        self._run("integrate", *self._log("key.pub"), f"--private_key={self._keys / 'key'}", *more)

    def _log(self, key: str) -> list[str]:
        public = f"--public_key={self._keys / key}"
        return [f"--storage_dir={self.files}", public, f"--origin={self.origin}"]

    def _run(self, tool: str, *arguments: str) -> None:
        command = [str(self._tools / tool), *arguments]
        outcome = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert outcome.returncode == 0, outcome.stderr


def test_the_serverless_feeder_follows_a_log_of_serverless_log_s_tools(
    witness: Witness, programs: GoPrograms, tmp_path: Path
) -> None:
    log = ServerlessLog(named("WITNESS_INTEROP_SERVERLESS"), tmp_path / "serverless", "Serverless Example 1")
    log.add(["a", "b", "c"])
    with serve_folder(log.files) as url:
        options = ("--origin", log.origin, "--feeder", "serverless", "--url", url, "--interval", "1")
        witness.add_log(log.vkey, *options)
        await_size(witness, programs, log.origin, log.vkey, 3)
        # More than a tile's width, so that the proof spans full and partial tiles.
        log.add([f"entry {n}" for n in range(300)])
        await_size(witness, programs, log.origin, log.vkey, 303)


# --- Sunlight ---


class Authority:
    """A certificate authority that the log takes certificates of."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Interop Root")])
        self._now = dt.datetime.now(UTC)
        ours = self._certificate(self._name, self._key.public_key(), days=3650)
        self.root = ours.add_extension(x509.BasicConstraints(True, None), critical=True).sign(
            self._key, SHA256()
        )

    def chain(self, number: int) -> bytes:
        """The body of an add-chain request for a certificate of its own."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{number}.interop.example")])
        builder = self._certificate(name, self._leaf.public_key(), days=30)
        usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
        leaf = builder.add_extension(usage, critical=False).sign(self._key, SHA256())
        chain = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in (leaf, self.root)]
        return json.dumps({"chain": chain}).encode()

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - dt.timedelta(hours=1))
            .not_valid_after(self._now + dt.timedelta(days=days))
        )


class Sunlight:
    """The real server with one log, its files in a folder."""

    HOST = "sunlight.example"
    ORIGIN = f"{HOST}/interop"

    def __init__(self, program: Path, folder: Path) -> None:
        folder.mkdir()
        self.files = folder / "files"
        self._port = free_port()
        self._authority = Authority()
        (folder / "roots.pem").write_bytes(self._authority.root.public_bytes(Encoding.PEM))
        (folder / "seed").write_bytes(secrets.token_bytes(32))
        with closing(sqlite3.connect(folder / "checkpoints.db")) as database:
            database.execute("CREATE TABLE checkpoints (logID BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT")
        today = dt.datetime.now().astimezone()
        log = {
            "shortname": "interop",
            "inception": today.date().isoformat(),
            "notafterstart": f"{today.year - 1}-01-01T00:00:00Z",
            "notafterlimit": f"{today.year + 2}-01-01T00:00:00Z",
            "submissionprefix": f"https://{self.ORIGIN}",
            "monitoringprefix": self.files.as_uri(),
            "roots": str(folder / "roots.pem"),
            "secret": str(folder / "seed"),
            "period": 100,
            "cache": str(folder / "cache.db"),
            "localdirectory": str(self.files),
        }
        settings = {
            "listen": [f"127.0.0.1:{self._port}"],
            "checkpoints": str(folder / "checkpoints.db"),
            "logs": [log],
        }
        (folder / "sunlight.yaml").write_text(yaml.safe_dump(settings))
        command = [str(program), "-c", str(folder / "sunlight.yaml")]
        self._program = Program(command, folder / "output", env={**os.environ, "HOME": str(folder)})
        self._program.await_url(f"http://127.0.0.1:{self._port}/health")
        described = json.loads((self.files / "log.v3.json").read_bytes())
        key = base64.b64decode(described["key"])
        self.vkey = str(make_vkey(self.ORIGIN, SignatureType.RFC6962, key))

    def add(self, count: int) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._submit, range(count)))

    def _submit(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with closing(connection):
            body = self._authority.chain(number)
            connection.request("POST", "/interop/ct/v1/add-chain", body, {"Host": self.HOST})
            response = connection.getresponse()
            assert response.status == 200, response.read()

    @property
    def size(self) -> int:
        return parse_checkpoint(parse_note((self.files / "checkpoint").read_bytes()).text).size

    def stop(self) -> None:
        self._program.kill()


def test_the_static_ct_feeder_follows_a_log_of_sunlight_s(witness: Witness, tmp_path: Path) -> None:
    log = Sunlight(named("WITNESS_INTEROP_SUNLIGHT"), tmp_path / "sunlight")
    try:
        log.add(3)
        with serve_folder(log.files) as url:
            witness.add_log(log.vkey, "--feeder", "static-ct", "--url", url, "--interval", "1")
            await_cosigned(witness, log, 3)
            log.add(300)
            await_cosigned(witness, log, 303)
    finally:
        log.stop()


def await_cosigned(witness: Witness, log: Sunlight, size: int) -> None:
    """Waits until the witness serves the log's checkpoint of this size with the log's line and its own."""
    assert log.size == size
    keys = [parse_vkey(each) for each in (log.vkey, *witness.vkeys)]

    def ask() -> bool | None:
        note = witness.checkpoint(log.ORIGIN)
        if note is None or int(note.split("\n")[1]) < size:
            return None
        assert {each.key for each in verify_note(parse_note(note.encode()), keys)} == set(keys)
        return True

    poll(f"the feeder brought {log.ORIGIN} to {size}", ask, seconds=FEED_SECONDS)
