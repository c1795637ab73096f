"""Fixtures of the interop tests: Go programs, and the real witness as a process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.processes import Witness
from tests.interop.programs import GoPrograms, cache_folder, find_go

NAME = "witness.example/interop"


@pytest.fixture(scope="session")
def programs() -> GoPrograms:
    """The Go programs; tests that want them skip without a toolchain."""
    return GoPrograms(find_go(), cache_folder())


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path, for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="wi"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_witness(tmp_path: Path) -> Iterator[Callable[[], Witness]]:
    """Makes witnesses that are not started yet; stops what runs at the end and wants exit code 0 of it."""
    made: list[Witness] = []

    def make() -> Witness:
        witness = Witness(tmp_path / f"state{len(made)}", NAME)
        made.append(witness)
        return witness

    yield make
    for witness in made:
        witness.stop()


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """A witness that runs for all tests of a file; each test brings logs of its own."""
    running = Witness(tmp_path_factory.mktemp("interop") / "state", NAME)
    running.start()
    yield running
    running.stop()
