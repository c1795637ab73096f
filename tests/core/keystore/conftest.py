"""Fixtures: one rig at a time, or each of them in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.keystore.rigs import RIGS, Rig, in_use


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for the sockets in it (108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="keys") as path:
        yield Path(path)


@pytest.fixture(params=list(RIGS))
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    """Each kind of device."""
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
