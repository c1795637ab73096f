"""Where things stand in a state folder. Nothing here touches the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StateLayout:
    """The paths inside one state folder."""

    root: Path

    @property
    def config(self) -> Path:
        """The operator's `witness.yaml`."""
        return self.root / "witness.yaml"

    @property
    def database(self) -> Path:
        """Logs, heads and contradictions (SQLite, with its -wal and -shm beside it)."""
        return self.root / "witness.db"

    @property
    def keys(self) -> Path:
        """The folder of key files, mode 0700."""
        return self.root / "keys"

    @property
    def softkey(self) -> Path:
        """The soft key backend's file."""
        return self.keys / "softkey.json"

    @property
    def keyring(self) -> Path:
        """Which keys there are and where; absent where all are in the soft key backend's file."""
        return self.keys / "keyring.json"

    @property
    def attestations(self) -> Path:
        """The folder of attestations and of the keys that verify them; nothing in it is secret."""
        return self.keys / "attestations"

    @property
    def unlock(self) -> Path:
        """Where a running core takes the secret of a locked device: a named pipe, its owner's alone."""
        return self.keys / "unlock"

    @property
    def high_water(self) -> Path:
        """The high-water record (two files, `.a` and `.b`), where no other place is configured for it."""
        return self.root / "high-water"

    @property
    def records_key(self) -> Path:
        """What our own records are MACed with, where no witness key's secret is ever in the core."""
        return self.keys / "records.key"

    @property
    def core_lock(self) -> Path:
        """Held by the one core that may run on this folder; holds its process ID."""
        return self.root / "core.lock"

    @property
    def core_socket(self) -> Path:
        """Where the core listens for fronts."""
        return self.root / "core.sock"

    @property
    def front_socket(self) -> Path:
        """Where the front serves its operator's pages to the command line."""
        return self.root / "front.sock"

    @property
    def feeders_socket(self) -> Path:
        """Where the feeders' process tells the front how feeders stand; no longer than the others."""
        return self.root / "feed.sock"
