"""Real key devices for tests, each started by the test that uses it, behind one interface.

A rig can be taken away and brought back, made to hang, locked, and exchanged for another device at the same
address. What a device cannot do, its rig says.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.core.keystore.programs import Program
from witness.cli.key_devices import DeviceKeys, Wishes, provide
from witness.core.keystore import keyring, softkey
from witness.core.keystore.base import Algorithm
from witness.core.keystore.keyring import Ring
from witness.core.layout import StateLayout

NAME = "witness.example/custody"
IDENTITY = "00112233445566778899aabbccddeeff"
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


def connects(path: Path) -> bool:
    """Whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def need(*programs: str, library: str = "") -> None:
    """Skips the test where something is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


class Rig:
    """One device of a kind."""

    backend: str
    holds = True
    """Whether the device is asked for every signature; one that derives is let go after the start."""
    lockable = True
    stops = True
    """Whether the device has a process that can be stopped; else its worker is."""
    algorithms: tuple[Algorithm, ...] = (Algorithm.ED25519,)
    starts_without = True
    """Whether a witness starts while it is away, and waits for it."""
    right = "the right secret"
    wrong = "a wrong secret"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)

    def settings(self) -> dict[str, str]:
        raise NotImplementedError

    def options(self) -> dict[str, str]:
        return {}

    def secret(self) -> str | None:
        """What opens the device as it is now."""
        return None

    def setup(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def take_away(self) -> None:
        raise NotImplementedError

    def bring_back(self) -> None:
        raise NotImplementedError

    def lock(self) -> None:
        """Makes the device want `right`."""
        raise NotImplementedError

    def exchange(self) -> None:
        """Puts another device in the place of this one."""
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    # --- what a state makes of it ---

    def adopt(self, layout: StateLayout) -> None:
        """Hears of a state that `witness init` has made with it."""

    def provide(self, **options: str) -> DeviceKeys:
        wishes = Wishes(
            self.backend, self.settings(), {**self.options(), **options}, {}, self.algorithms, NAME
        )
        return provide(wishes, self.secret())

    def state(self, folder: Path) -> StateLayout:
        """A keys folder whose ring has this device's keys."""
        layout = StateLayout(folder)
        folder.mkdir()
        held = self.provide()
        ring = Ring(NAME, IDENTITY, (held.device,), held.keys)
        keyring.write(layout, ring)
        return layout


class Tpm(Rig):
    backend = "tpm2"
    holds = False
    algorithms = (Algorithm.ED25519, Algorithm.MLDSA44)

    def setup(self) -> None:
        need("swtpm", library="tpm2_pytss")
        self.socket = self.root / "tpm"
        self._make(self.root / "state")

    def _make(self, state: Path) -> None:
        state.mkdir(exist_ok=True)
        # A socket per run: one that a killed run left behind would look like its successor's.
        self.socket.unlink(missing_ok=True)
        self.program = Program(
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}",
                "--server", f"type=unixio,path={self.socket}",
                "--ctrl", f"type=unixio,path={self.socket}.ctrl",
                "--flags", "not-need-init,startup-clear",
            ],
            self.socket.exists,
            self.root / "log",
        )  # fmt: skip
        self.program.start()

    def settings(self) -> dict[str, str]:
        return {"tcti": f"swtpm:path={self.socket}"}

    def end(self) -> None:
        if hasattr(self, "program"):
            self.program.kill()

    def take_away(self) -> None:
        self.program.kill()
        self.socket.unlink(missing_ok=True)

    def bring_back(self) -> None:
        self.program.start()

    def exchange(self) -> None:
        self.take_away()
        self._make(self.root / "another")

    def lock(self) -> None:
        self.run_tool("tpm2_changeauth", "-c", "owner", self.right)

    def run_tool(self, *argv: str | Path) -> bytes:
        need("tpm2_changeauth")
        return subprocess.run(
            [str(part) for part in argv],
            env={**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={self.socket}"},
            check=True,
            capture_output=True,
        ).stdout

    def stop(self) -> None:
        self.program.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.program.send(signal.SIGCONT)


class Agent(Rig):
    backend = "ssh-agent"

    def setup(self) -> None:
        need("ssh-agent", "ssh-add", "ssh-keygen")
        self.socket = self.root / "agent"
        self.key = self._keygen("key")
        self.program = Program(
            ["ssh-agent", "-D", "-a", str(self.socket)], lambda: connects(self.socket), self.root / "log"
        )
        self.bring_back()

    def _keygen(self, name: str) -> Path:
        path = self.root / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    def _add(self, *argv: str | Path, answer: str = "") -> None:
        # ssh-add asks its passphrases at a terminal, or of the program in SSH_ASKPASS.
        ask = self.root / "ask"
        ask.write_text(f"#!/bin/sh\necho '{answer}'\n")
        ask.chmod(0o700)
        subprocess.run(
            ["ssh-add", *map(str, argv)],
            env={
                **os.environ, "SSH_AUTH_SOCK": str(self.socket), "SSH_ASKPASS": str(ask),
                "SSH_ASKPASS_REQUIRE": "force",
            },
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def settings(self) -> dict[str, str]:
        return {"socket": str(self.socket)}

    def end(self) -> None:
        if hasattr(self, "program"):
            self.program.kill()

    def take_away(self) -> None:
        self.program.kill()
        self.socket.unlink(missing_ok=True)

    def bring_back(self) -> None:
        self.program.start()
        self._add("-q", self.key)

    def exchange(self) -> None:
        self._add("-q", "-D")
        self._add("-q", self._keygen("another"))

    def lock(self) -> None:
        self._add("-x", answer=self.right)

    def stop(self) -> None:
        self.program.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.program.send(signal.SIGCONT)


class Token(Rig):
    backend = "pkcs11"
    stops = False
    right = "1234"
    wrong = "4321"

    def setup(self) -> None:
        need("softhsm2-util", library="pkcs11")
        if not SOFTHSM.exists():
            pytest.skip(f"{SOFTHSM} is not installed")
        self.tokens = self.root / "tokens"
        self.conf = self.root / "softhsm2.conf"
        self.conf.write_text(
            f"directories.tokendir={self.tokens}\nobjectstore.backend=file\nlog.level=ERROR\n"
        )
        self._make()
        self._pin: str | None = self.right

    def _make(self) -> None:
        self.tokens.mkdir()
        subprocess.run(
            [
                "softhsm2-util", "--init-token", "--free", "--label", "witness", "--so-pin", "12345678",
                "--pin", self.right,
            ],
            env={**os.environ, "SOFTHSM2_CONF": str(self.conf)},
            check=True,
            capture_output=True,
        )  # fmt: skip

    def settings(self) -> dict[str, str]:
        return {
            "module": str(SOFTHSM), "token": "witness", "environment": f"SOFTHSM2_CONF={self.conf}",
        }  # fmt: skip

    def secret(self) -> str | None:
        return self._pin

    def end(self) -> None:
        pass

    def take_away(self) -> None:
        self.tokens.rename(self.root / "away")

    def bring_back(self) -> None:
        (self.root / "away").rename(self.tokens)

    def exchange(self) -> None:
        self.take_away()
        self._make()

    def lock(self) -> None:
        self._pin = None


class DerivingToken(Token):
    holds = False
    algorithms = (Algorithm.ED25519, Algorithm.MLDSA44)
    derive = "hmac"

    def options(self) -> dict[str, str]:
        return {"derive": self.derive}


class CipherToken(DerivingToken):
    derive = "aes-cbc"


class Door(Rig):
    backend = "remote"
    lockable = False
    algorithms = (Algorithm.ED25519, Algorithm.MLDSA44)

    def setup(self) -> None:
        self.socket = self.root / "door"
        self._make(self.root / "far")

    def _make(self, folder: Path) -> None:
        folder.mkdir()
        softkey.create(StateLayout(folder).softkey, name=NAME, identity=IDENTITY, passphrase=None)
        StateLayout(folder).config.write_text(f"name: {NAME}\n")
        self.program = Program(
            [*witness_command(), "--state", str(folder), "keys", "serve", "--socket", str(self.socket)],
            lambda: connects(self.socket),
            self.root / "log",
            {"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        )
        self.program.start()

    def settings(self) -> dict[str, str]:
        return {"socket": str(self.socket)}

    def end(self) -> None:
        if hasattr(self, "program"):
            self.program.kill()

    def take_away(self) -> None:
        self.program.kill()
        self.socket.unlink(missing_ok=True)

    def bring_back(self) -> None:
        self.program.start()

    def exchange(self) -> None:
        self.take_away()
        self._make(self.root / "another")

    def stop(self) -> None:
        self.program.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.program.send(signal.SIGCONT)


class KeyFile(Rig):
    """No device: a sealed file in the state folder itself, which is read at the start and never again."""

    backend = "softkey"
    holds = False
    stops = False
    starts_without = False
    algorithms = (Algorithm.ED25519, Algorithm.MLDSA44)
    _COST = 2**12  # of scrypt, where a test makes the file itself

    def setup(self) -> None:
        self._secret: str | None = self.right

    def settings(self) -> dict[str, str]:
        return {}

    def secret(self) -> str | None:
        return self._secret

    def end(self) -> None:
        pass

    def adopt(self, layout: StateLayout) -> None:
        self.file = layout.softkey

    def state(self, folder: Path) -> StateLayout:
        layout = StateLayout(folder)
        folder.mkdir()
        self.adopt(layout)
        self._make(IDENTITY)
        return layout

    def _make(self, identity: str) -> None:
        softkey.create(self.file, name=NAME, identity=identity, passphrase=self.right, scrypt_n=self._COST)

    def take_away(self) -> None:
        self.file.rename(self.root / "away")

    def bring_back(self) -> None:
        (self.root / "away").rename(self.file)

    def exchange(self) -> None:
        self.take_away()
        self._make(IDENTITY[::-1])

    def lock(self) -> None:
        self._secret = None


def witness_command() -> list[str]:
    """The `witness` command as a program."""
    return [sys.executable, "-P", "-c", "from witness.cli.main import main; main(prog_name='witness')"]


RIGS: Mapping[str, type[Rig]] = {
    "tpm2": Tpm,
    "pkcs11": Token,
    "pkcs11-hmac": DerivingToken,
    "pkcs11-aes-cbc": CipherToken,
    "ssh-agent": Agent,
    "remote": Door,
    "softkey": KeyFile,
}


def in_use(kind: str, folder: Path) -> Iterator[Rig]:
    """A rig that is set up, and ended when its fixture is."""
    rig = RIGS[kind](folder / "rig")
    try:
        rig.setup()
        yield rig
    finally:
        rig.end()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found
