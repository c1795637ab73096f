"""`witness keys …`, on real devices. Daemons and devices in trouble: test_custody.py."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.daemon import Daemon, call, daemon, eventually
from tests.core.keystore.rigs import NAME, RIGS, Rig, in_use
from tests.simulated_log import SimulatedLog

KEY = "PRIVATE+KEY+witness.example/go+"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="wit") as path:
        yield Path(path)


@pytest.fixture(params=["tpm2", "pkcs11", "pkcs11-hmac", "ssh-agent", "remote"])
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    yield from in_use(request.param, folder)


@pytest.fixture
def tpm(folder: Path) -> Iterator[Rig]:
    yield from in_use("tpm2", folder)


@pytest.fixture
def agent(folder: Path) -> Iterator[Rig]:
    yield from in_use("ssh-agent", folder)


@pytest.fixture
def token(folder: Path) -> Iterator[Rig]:
    yield from in_use("pkcs11", folder)


def options(rig: Rig) -> list[str]:
    return [part for item in {**rig.settings(), **rig.options()}.items() for part in ("-o", "=".join(item))]


def init(state: Path, rig: Rig, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    soft = [] if len(rig.algorithms) == 2 else ["--soft", "ml-dsa-44"]
    return call(
        "--state", state, "init", "--name", NAME, "--backend", rig.backend, *options(rig), *soft, *more,
        **environ,
    )  # fmt: skip


def made(state: Path, rig: Rig, *more: str, **environ: str) -> SimulatedLog:
    """A state whose keys are in the device, with one log."""
    done = init(state, rig, *more, **environ)
    assert done.returncode == 0, done.stderr
    log = SimulatedLog("log.example/keys", size=4)
    added = call("--state", state, "logs", "add", str(log.vkeys[0]))
    assert added.returncode == 0, added.stderr
    return log


def vkeys(state: Path) -> list[str]:
    return call("--state", state, "keys", "list").stdout.splitlines()


def cosign(running: Daemon, log: SimulatedLog, old: int) -> tuple[int, bytes]:
    return running.request("POST", "/add-checkpoint", log.add_checkpoint(old=old))


def secrets(rig: Rig) -> dict[str, str]:
    secret = rig.secret()
    return {"WITNESS_PASSPHRASE": secret} if secret is not None else {}


def reasons(running: Daemon) -> str:
    status, body = running.get("/readyz")
    return body.decode() if status == 503 else ""


def test_a_token_that_is_locked_is_unlocked_while_the_witness_runs(token: Rig, folder: Path) -> None:
    state = folder / "state"
    log = made(state, token, WITNESS_PASSPHRASE=token.right)
    # The ML-DSA-44 key is sealed by the same passphrase; it waits too.
    with (state / "witness.yaml").open("a") as config:
        config.write("keys:\n  wait_for_unlock: true\n")
    right, wrong = folder / "right", folder / "wrong"
    right.write_text(token.right + "\n")
    wrong.write_text("0000\n")
    with daemon(state) as running:
        assert cosign(running, log, 0)[0] == 503
        assert "locked" in reasons(running)
        for device in ("pkcs11", "softkey"):
            no = call("--state", state, "keys", "unlock", device, "--passphrase-file", wrong)
            assert no.returncode == 1, no.stderr
            assert "0000" not in no.stdout + no.stderr
            yes = call("--state", state, "keys", "unlock", device, "--passphrase-file", right)
            assert (yes.returncode, yes.stdout) == (0, f"{device} is unlocked\n"), yes.stderr
        eventually("it is ready", running.ready)
        assert cosign(running, log, 0)[0] == 200
        again = call("--state", state, "keys", "unlock", "pkcs11", "--passphrase-file", right)
        assert again.returncode == 3
        assert "is not locked" in again.stderr
    gone = call("--state", state, "keys", "unlock", "pkcs11", "--passphrase-file", right)
    assert "not running" in gone.stderr


def test_a_sealed_key_file_without_its_passphrase_keeps_a_witness_from_starting(folder: Path) -> None:
    state = folder / "state"
    call("--state", state, "init", "--name", NAME, WITNESS_PASSPHRASE="right")
    ended = call("--state", state, "run", "--listen", "127.0.0.1:0")
    assert ended.returncode == 3
    assert "sealed" in ended.stderr


def test_the_passphrase_as_a_systemd_credential(folder: Path) -> None:
    state = folder / "state"
    call("--state", state, "init", "--name", NAME, WITNESS_PASSPHRASE="right")
    (folder / "witness-passphrase").write_text("right\n")
    with daemon(state, CREDENTIALS_DIRECTORY=str(folder)) as running:
        eventually("it is ready", running.ready)


def test_test_and_show_and_their_times(rig: Rig, folder: Path) -> None:
    state = folder / "state"
    made(state, rig, **secrets(rig))
    done = call("--state", state, "keys", "test", "--json", **secrets(rig))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == 2
    assert all(result["ok"] and result["open_ms"] > 0 for result in results)
    shown = json.loads(call("--state", state, "keys", "show", "--json").stdout)
    assert {key["backend"] for key in shown} <= {rig.backend, "softkey"}
    plain = call("--state", state, "keys", "show", "ed25519").stdout
    assert rig.backend in plain
    assert "ml-dsa" not in plain
    rig.take_away()
    failed = call("--state", state, "keys", "test", **secrets(rig))
    assert failed.returncode == 1
    assert "FAIL" in failed.stdout
    assert "absent" in failed.stdout


def test_a_devices_secret_is_given_to_the_core_alone(tpm: Rig, folder: Path) -> None:
    tpm.right = "the owner's word"
    tpm.lock()
    state = folder / "state"
    log = made(state, tpm, "--secret", "env:OWNER_WORD", OWNER_WORD=tpm.right)
    assert tpm.right not in (state / "keys" / "keyring.json").read_text()
    with daemon(state, OWNER_WORD=tpm.right) as running:
        assert cosign(running, log, 0)[0] == 200
        front = Path(f"/proc/{running.children()['front']}/environ").read_bytes()
        assert b"OWNER_WORD" not in front
    with daemon(state) as running:
        assert cosign(running, log, 0)[0] == 503
        assert "is locked" in reasons(running)
        given = folder / "secret"
        given.write_text(tpm.right)
        done = call("--state", state, "keys", "unlock", "--passphrase-file", given)
        assert done.returncode == 0, done.stderr
        # The key that guards the records comes from the same device; they are compared first.
        eventually("it is ready", running.ready)
        status, body = cosign(running, log, 4)
        assert status == 200, body


def test_status_tells_the_measured_rate(agent: Rig, folder: Path) -> None:
    state = folder / "state"
    made(state, agent)
    assert "in a device" not in call("--state", state, "status").stdout, "one of the keys is in a file"
    with daemon(state) as running:
        eventually("it is ready", running.ready)
        told = call("--state", state, "status").stdout
    assert "1 of 1 devices, " in told
    assert "signatures a second" in told


def test_nothing_that_a_device_has_is_overwritten(tpm: Rig, folder: Path) -> None:
    made(folder / "state", tpm)
    again = init(folder / "another", tpm)
    assert again.returncode == 3
    assert "an identity hangs on it" in again.stderr
    assert not (folder / "another").exists()
    other = init(folder / "another", tpm, "-o", "counter_index=0x01807750")
    assert other.returncode == 0, other.stderr
    assert not set(vkeys(folder / "state")) & set(vkeys(folder / "another"))
    standing = init(folder / "state", tpm, "-o", "counter=next")
    assert standing.returncode == 3
    assert call("--state", folder / "state", "keys", "test").returncode == 0, "the counter was left alone"


def test_a_development_identity_with_a_derived_name(tpm: Rig, folder: Path) -> None:
    done = call(
        "--state", folder / "state", "init", "--derived-name", "--dev", "--backend", "tpm2", *options(tpm)
    )
    assert done.returncode == 0, done.stderr
    names = {line.partition("+")[0] for line in done.stdout.splitlines()}
    (name,) = names
    assert name.startswith("DEV:witness-")
    assert "a TPM in software" in done.stderr
    with daemon(folder / "state") as running:
        assert "for development" in running.err.read_text()


def test_a_second_device_of_the_key_is_registered_and_stands_in(agent: Rig, folder: Path) -> None:
    state = folder / "state"
    log = made(state, agent)
    second = RIGS["ssh-agent"](folder / "second")
    try:
        second.setup()
        stranger = call(
            "--state",
            state,
            "keys",
            "register",
            "ssh-agent",
            "--as",
            "other",
            "-o",
            f"socket={second.socket}",
        )
        assert stranger.returncode == 3
        assert "holds no key of this witness" in stranger.stderr
        second._add("-q", agent.key)
        added = call(
            "--state",
            state,
            "keys",
            "register",
            "ssh-agent",
            "--as",
            "other",
            "-o",
            f"socket={second.socket}",
        )
        assert added.returncode == 0, added.stderr
        with daemon(state) as running:
            eventually("it is ready", running.ready)
            agent.take_away()
            assert cosign(running, log, 0)[0] == 200, "the same key, in another device"
            moved = call("--state", state, "keys", "register", "ssh-agent", "-o", f"socket={second.socket}")
            assert moved.returncode == 3
            assert "is running" in moved.stderr
    finally:
        second.end()


def test_import_adds_a_key_and_never_replaces_one(folder: Path) -> None:
    state, key = folder / "state", folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    call("--state", state, "init", "--name", NAME, "--algorithm", "ml-dsa-44", WITNESS_PASSPHRASE="p")
    (before,) = vkeys(state)
    done = call("--state", state, "keys", "import", key, WITNESS_PASSPHRASE="p")
    assert done.returncode == 0, done.stderr
    assert vkeys(state) == [done.stdout.strip(), before]
    assert call("--state", state, "keys", "import", key, WITNESS_PASSPHRASE="p").returncode == 0, (
        "it is there"
    )
    other = folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    refused = call("--state", state, "keys", "import", other, WITNESS_PASSPHRASE="p")
    assert refused.returncode == 3
    assert "which its users know" in refused.stderr
    tested = call("--state", state, "keys", "test", WITNESS_PASSPHRASE="p")
    assert tested.returncode == 0, tested.stdout
    wrong = call("--state", state, "keys", "test", WITNESS_PASSPHRASE="q")
    assert wrong.returncode == 1
    assert "locked" in wrong.stdout


@pytest.mark.parametrize(
    "content", ["", "PRIVATE+KEY+x+00000000+AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----\nAA"]
)
def test_what_is_no_key_is_not_imported(folder: Path, content: str) -> None:
    state = folder / "state"
    call("--state", state, "init", "--name", NAME, "--algorithm", "ml-dsa-44")
    (folder / "key").write_text(content)
    refused = call("--state", state, "keys", "import", folder / "key")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: ")


def test_wrong_usage_of_devices(folder: Path) -> None:
    for more, said in (
        (["--backend", "tpm2", "-o", "tcti"], "not of the form"),
        (["--backend", "tpm2", "-o", "color=red"], "knows no 'color'"),
        (["-o", "tcti=x"], "are for a device"),
        (["--backend", "ssh-agent", "-o", "socket=/nowhere"], "has no ml-dsa-44 keys"),
        (["--backend", "pkcs11", "--secret", "x"], "is not env:NAME"),
    ):
        wrong = call("--state", folder / "state", "init", "--name", NAME, *more)
        assert wrong.returncode == 2, (more, wrong.stderr)
        assert said in wrong.stderr
    away = call(
        "--state", folder / "state", "init", "--name", NAME, "--algorithm", "ed25519",
        "--backend", "ssh-agent", "-o", "socket=/nowhere",
    )  # fmt: skip
    assert away.returncode == 3
    assert "no ssh-agent answers" in away.stderr
    assert not (folder / "state").exists()


def test_without_its_library_a_backend_says_how_to_get_it(folder: Path) -> None:
    shadow = folder / "shadow"
    (shadow / "tpm2_pytss").mkdir(parents=True)
    (shadow / "tpm2_pytss" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'tpm2_pytss'\", name='tpm2_pytss')\n"
    )
    root = Path(__file__).resolve().parents[2]
    missing = call(
        "--state", folder / "state", "init", "--name", NAME, "--backend", "tpm2",
        PYTHONPATH=f"{shadow}:{root}",
    )  # fmt: skip
    assert missing.returncode == 3
    assert missing.stderr.splitlines() == [
        "error: the backend tpm2 needs tpm2_pytss, which is not installed",
        "hint: pip install 'tlog-witness[tpm2]'",
    ]
