"""A folder that remembers what was trusted: of each log the newest checkpoint, of each component its version.

One file, `trust.json`, replaced as a whole and durable before the command says `verified`. A lock keeps two
commands from forgetting what the other has learned. The folder must exist: a mistyped name must not pass
for a first contact.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from witness.bundles import Learned, MalformedBundle, decode_trust, encode_trust
from witness.cli.errors import Failure

FILE: Final = "trust.json"
LOCK: Final = ".lock"


class TrustStore:
    """An open store; `trusted` is what it holds."""

    def __init__(self, folder: Path, trusted: Learned) -> None:
        self._folder = folder
        self.trusted = trusted

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[TrustStore]:
        """Locks and reads the store.

        Raises:
            Failure: there is no such folder, or what it holds cannot be understood.
        """
        if not folder.is_dir():
            raise Failure(
                f"{folder}: no such folder", f"mkdir {folder} begins a trust store that knows nothing"
            )
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield cls(folder, _read(folder / FILE))
        finally:
            os.close(lock)

    def update(self, trusted: Learned) -> None:
        """Replaces what the store holds, durably; nothing is written when nothing changes."""
        content = encode_trust(trusted)
        if content == encode_trust(self.trusted):
            return
        new = self._folder / f"{FILE}.new"
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._folder / FILE)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.trusted = trusted


def _read(path: Path) -> Learned:
    try:
        return decode_trust(path.read_bytes())
    except FileNotFoundError:
        return Learned()
    except MalformedBundle as error:
        raise Failure(f"{path}: {error.reason}", "restore it, or begin another store") from error
