"""What the front's process is told: one line of JSON, plain values, nothing of keys or state."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from witness.core.lockdown.steps import LockdownSettings
from witness.front.settings import FrontSettings


class BadSettings(Exception):
    """The line is not the settings of a front's process."""


@dataclass(frozen=True, slots=True)
class FeederSettings:
    """How logs are polled; see `FeedersConfig`. Times are seconds, `cache_disk` MiB."""

    enabled: bool = True
    interval: float = 60.0
    refresh: float = 600.0
    concurrency: int = 256
    per_host: int = 4
    rate: int = 20
    cache_dir: str | None = None
    cache_disk: int = 1024


@dataclass(frozen=True, slots=True)
class DistributorSettings:
    """One distributor: its URL, and what it is called."""

    url: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class LookSettings:
    """Where copies of our checkpoints are looked for besides the distributors, and how often (seconds)."""

    monitoring: tuple[str, ...] = ()
    interval: float = 3600.0


@dataclass(frozen=True, slots=True)
class FrontProcessSettings:
    """All that a front's process is told.

    Attributes:
        front: the HTTP side.
        feeders: polling.
        distributors: where cosigned checkpoints are put.
        static_dir: the folder of the static publisher, or None.
        lockdown: what this process gives up.
        look: where copies of our checkpoints are looked for.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    front: FrontSettings
    feeders: FeederSettings
    distributors: tuple[DistributorSettings, ...] = ()
    static_dir: str | None = None
    look: LookSettings = field(default_factory=LookSettings)
    lockdown: LockdownSettings = field(default_factory=LockdownSettings)
    log_level: str = "INFO"

    @property
    def writes(self) -> tuple[Path, ...]:
        """The folders that this process writes."""
        folders = (self.static_dir, self.feeders.cache_dir)
        return tuple(Path(folder) for folder in folders if folder is not None)

    def to_json(self) -> str:
        """One line of JSON."""
        fields = {
            "front": self.front.to_json(),
            "feeders": dataclasses.asdict(self.feeders),
            "distributors": [dataclasses.asdict(each) for each in self.distributors],
            "static_dir": self.static_dir,
            "look": dataclasses.asdict(self.look),
            "lockdown": dataclasses.asdict(self.lockdown),
            "log_level": self.log_level,
        }
        return json.dumps(fields)

    @classmethod
    def from_json(cls, line: str) -> FrontProcessSettings:
        """What `to_json` wrote.

        Raises:
            BadSettings: it is something else.
        """
        try:
            fields = json.loads(line)
            fields["front"] = FrontSettings.from_json(fields["front"])
            fields["feeders"] = FeederSettings(**fields["feeders"])
            fields["distributors"] = tuple(DistributorSettings(**each) for each in fields["distributors"])
            fields["lockdown"] = LockdownSettings.from_fields(fields["lockdown"])
            if "look" in fields:
                look = fields["look"]
                fields["look"] = LookSettings(tuple(look["monitoring"]), look["interval"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise BadSettings(f"not the front's settings: {error}") from error
