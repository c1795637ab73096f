"""`witness verify`, as people and scripts call it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundles.test_sumdb import DATABASE, KEY, record
from tests.bundles.world import LOG, MAKER, SUMDB_ORIGIN, W1, W3, Log, armory, release, ten
from tests.simulated_log import SimulatedKey
from witness.tlog.merkle import leaf_hash

POLICY = (
    f"log {LOG.vkey}\nwitness one {W1.vkey}\nwitness three {W3.vkey}\ngroup g 2 one three\nquorum g\n"
).encode()


def run(*args: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from witness.cli.main import main; main()", "verify", *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy").write_bytes(POLICY)
    (tmp_path / "entry").write_bytes(b"entry 6")
    (tmp_path / "good").write_bytes(ten().proof(6, witnesses=(W1, W3)))
    (tmp_path / "lonely").write_bytes(ten().proof(6, witnesses=(W1,)))
    (tmp_path / "garbage").write_bytes(b"\x00\xff")
    return tmp_path


def test_verified_and_not(folder: Path) -> None:
    options = ("--policy", folder / "policy", "--entry", folder / "entry")
    good = run(folder / "good", *options)
    assert good.returncode == 0
    assert not good.stderr
    assert b"verified" in good.stdout
    assert "✓ inclusion" in good.stdout.decode()
    assert b"\x1b[" not in good.stdout  # colour is for terminals
    lonely = run(folder / "lonely", *options)
    assert lonely.returncode == 1
    assert "✗ witnesses: expected 2 of 2 in g; cosigned by one" in lonely.stdout.decode()
    assert b"NOT VERIFIED" in lonely.stdout


def test_json_is_one_object_a_file(folder: Path) -> None:
    options = ("--policy", folder / "policy", "--leaf-hash", leaf_hash(b"entry 6").hex(), "--json")
    names = [folder / name for name in ("good", "lonely", "garbage")]
    done = run(*names, *options)
    assert done.returncode == 1
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["file"] for each in facts] == [str(name) for name in names]
    assert [each["verified"] for each in facts] == [True, False, False]
    assert [each["format"] for each in facts] == ["tlog-proof", "tlog-proof", "unknown"]
    assert all({"name", "ok", "detail"} == set(check) for each in facts for check in each["checks"])
    assert [check["name"] for check in facts[1]["checks"] if not check["ok"]] == ["witnesses"]
    assert [check["name"] for check in facts[2]["checks"]] == ["format"]


def test_standard_input(folder: Path) -> None:
    data = (folder / "good").read_bytes()
    assert run("-", "--policy", folder / "policy", "--entry", folder / "entry", stdin=data).returncode == 0
    assert run("-", "--policy", "-", stdin=data).returncode == 2


def test_exit_codes(folder: Path) -> None:
    good = folder / "good"
    unread = run(folder / "none", good, "--policy", folder / "policy", "--entry", folder / "entry", "--json")
    assert unread.returncode == 3
    assert unread.stderr.startswith(b"error: ")
    assert [json.loads(line)["verified"] for line in unread.stdout.splitlines()] == [False, True]
    assert run(good, "--policy", folder / "none").returncode == 3
    for wrong in (
        (),
        (good, "--no-such-option"),
        (good, "--log", "x"),
        (good, "--witness", LOG.vkey),
        (good, "--log", W1.vkey),
        (good, "--leaf-hash", "12"),
        (good, "--max-age", "soon", "--policy", folder / "policy"),
        (good, "--max-age", "1h"),
        (good, "--artifact", "x"),
        (good, "--dialect", "latin"),
        (good, "--policy", folder / "garbage"),
        (good, "--policy", folder / "policy", "--dialect", "sigsum"),
        (good, "--previous", folder / "garbage"),
        (good, "--previous", good, "--trust-store", folder),
    ):
        done = run(*wrong)
        assert done.returncode == 2, wrong
        assert b"error: " in done.stderr
        assert b"Traceback" not in done.stderr


def test_max_age(folder: Path) -> None:
    (folder / "fresh").write_bytes(ten().proof(6, witnesses=(W1, W3), timestamp=int(time.time()) - 3600))
    options = ("--policy", folder / "policy", "--entry", folder / "entry", "--max-age")
    assert run(folder / "fresh", *options, "2h").returncode == 0
    assert run(folder / "fresh", *options, "30m").returncode == 1
    assert run(folder / "good", *options, "52w").returncode == 1


def test_origin_and_artifacts(folder: Path) -> None:
    log = Log([release(b"imx")], LOG, "Armory")
    (folder / "bundle").write_bytes(armory(log, log.leaves[0]))
    (folder / "imx").write_bytes(b"imx")
    options = ("--log", LOG.vkey, "--origin", "Armory", "--manifest-key", MAKER.vkey, "--artifact")
    assert run(folder / "bundle", *options, f"armory-drive.imx={folder / 'imx'}").returncode == 0
    wrong = run(folder / "bundle", *options, f"armory-drive.imx={folder / 'entry'}")
    assert wrong.returncode == 1
    assert "✗ artifact armory-drive.imx: expected SHA-256" in wrong.stdout.decode()


def test_a_folder_of_tiles(folder: Path) -> None:
    for number in (5, 400):
        (folder / f"lookup{number}").write_bytes(DATABASE.lookup(number))
        for path, content in DATABASE.tiles(DATABASE.lookup(number)).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    (folder / "go.sum").write_bytes(record(5) + record(400))
    options = ("--log", KEY.vkey, "--origin", SUMDB_ORIGIN, "--artifact", f"tiles={folder}")
    assert run(folder / "lookup5", folder / "lookup400", *options).returncode == 0
    lookups = [f"--artifact=m{number}={folder / f'lookup{number}'}" for number in (5, 400)]
    assert run(folder / "go.sum", *options, *lookups).returncode == 0
    assert run(folder / "go.sum", *options, lookups[0]).returncode == 1


def test_trust_store(folder: Path) -> None:
    store = folder / "store"
    options = ("--log", LOG.vkey, "--trust-store", store)
    for size in (5, 6, 10):
        (folder / str(size)).write_bytes(ten().note(size, (W1, W3)))
    missing = run(folder / "5", *options)
    assert missing.returncode == 3  # a mistyped folder is no first contact
    assert b"hint: mkdir" in missing.stderr
    store.mkdir()
    assert run(folder / "6", *options).returncode == 0
    before = (store / "trust.json").read_bytes()
    assert run(folder / "5", *options).returncode == 1  # rolled back
    fork = Log([b"x"] * 6)
    (folder / "fork").write_bytes(fork.note(6))
    assert run(folder / "fork", *options).returncode == 1
    assert run(folder / "10", *options).returncode == 1  # larger, and nobody vouches
    assert (store / "trust.json").read_bytes() == before
    assert run(folder / "10", "--policy", folder / "policy", "--trust-store", store).returncode == 0
    assert run(folder / "6", *options).returncode == 1
    assert b"10\\n" in (store / "trust.json").read_bytes()
    other = SimulatedKey("other.example")
    (folder / "other").write_bytes(Log([b"a"], other).note())
    assert run(folder / "other", "--log", other.vkey, "--trust-store", store).returncode == 0
    assert len(json.loads((store / "trust.json").read_bytes())["checkpoints"]) == 2
    (store / "trust.json").write_bytes(b"{}")
    assert run(folder / "other", "--log", other.vkey, "--trust-store", store).returncode == 3
    assert not list(store.glob("*.new"))


def test_previous(folder: Path) -> None:
    (folder / "old").write_bytes(ten().note(5))
    options = ("--policy", folder / "policy", "--entry", folder / "entry", "--previous")
    assert run(folder / "good", *options, folder / "old").returncode == 0
    (folder / "later").write_bytes(Log(b"%d" % n for n in range(11)).note())
    assert run(folder / "good", *options, folder / "later").returncode == 1


def test_what_a_bundle_quotes_is_made_printable(folder: Path) -> None:
    log = Log([b"a"], SimulatedKey("evil.example"), "\u202eevil\x85")
    (folder / "evil").write_bytes(log.note())
    shown = run(folder / "evil").stdout.decode()
    assert "evil" in shown
    assert "\u202e" not in shown


def test_colour_on_a_terminal(folder: Path) -> None:
    reader, terminal = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from witness.cli.main import main; main()",
        "verify",
        str(folder / "good"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(reader, 4096)
            except OSError:
                break  # how Linux says that the other end has gone
            if not piece:
                break
            shown += piece
        assert process.wait() == 1
    os.close(reader)
    assert b"\x1b[31m" in shown
