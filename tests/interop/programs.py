"""Builds and runs the Go programs that the interop tests hold the witness against."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
LOADTEST = "github.com/transparency-dev/witness/cmd/loadtest"

# Words of the go command that mean "not on this machine" (no network, an older toolchain), not "broken".
_NOT_HERE = (
    "dial tcp",
    "no such host",
    "i/o timeout",
    "TLS handshake timeout",
    "proxyconnect",
    "403 Forbidden",
    "module lookup disabled",
    "requires go >=",
    "unknown directive",
)
_BUILD_SECONDS = 600
_RUN_SECONDS = 60


class GoPrograms:
    """The programs of this folder and of the modules go.mod names, built once for each content.

    Args:
        go: path of the go command.
        cache: folder for the executables; survives the session.
        module: the folder of the go.mod that pins them.
    """

    def __init__(self, go: str, cache: Path, module: Path = HERE) -> None:
        self._go = go
        self._cache = cache
        self._module = module
        self._environment = os.environ | {
            "CGO_ENABLED": "0",
            "GOWORK": "off",
            "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        }
        self._version = subprocess.run(
            [go, "version"], check=True, capture_output=True, text=True, timeout=_RUN_SECONDS
        ).stdout

    def path(self, package: str) -> Path:
        """The executable of a folder here (`notecheck`) or of a main package of a module go.mod names.

        Skips the test where modules or a fitting toolchain are not to be had; fails it where the
        program does not compile.
        """
        executable = self._cache / f"{package.rpartition('/')[2]}-{self._digest(package)}"
        if executable.exists():
            return executable
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache) as scratch:
            built = Path(scratch) / "program"
            outcome = subprocess.run(
                [self._go, "build", "-o", str(built), package if "/" in package else f"./{package}"],
                cwd=self._module,
                env=self._environment,
                check=False,
                capture_output=True,
                text=True,
                timeout=_BUILD_SECONDS,
            )
            if outcome.returncode != 0:
                said = outcome.stderr.strip()
                if any(word in said for word in _NOT_HERE):
                    pytest.skip(f"{package} cannot be built here: {said.splitlines()[-1]}")
                pytest.fail(f"{package} does not build:\n{said}")
            built.replace(executable)  # atomic: several test processes may build at once
        return executable

    def run(self, package: str, request: dict[str, Any], *, refusal: bool = False) -> dict[str, Any]:
        """Hands a program its JSON request and returns its JSON answer.

        Args:
            package: the folder's name.
            request: what goes to its stdin.
            refusal: whether exit code 1, the program's "no", is what is asked for.
        """
        outcome = subprocess.run(
            [str(self.path(package))],
            input=json.dumps(request),
            check=False,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
        )
        assert outcome.returncode == (1 if refusal else 0), outcome.stdout + outcome.stderr
        answer: dict[str, Any] = json.loads(outcome.stdout)
        return answer

    def _digest(self, package: str) -> str:
        digest = hashlib.sha256(f"{self._version}\n{package}\n".encode())
        sources = [] if "/" in package else sorted((self._module / package).glob("*.go"))
        for source in (self._module / "go.mod", self._module / "go.sum", *sources):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
        return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where executables are kept: $WITNESS_INTEROP_CACHE, else a folder of the user's cache."""
    named = os.environ.get("WITNESS_INTEROP_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tlog-witness" / "interop"


def find_go() -> str:
    """The go command; skips where there is none."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no Go toolchain on this machine (`go` is not on the PATH)")
    return go
