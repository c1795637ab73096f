"""What front and feeders are told as processes: one line of JSON, plain values, nothing of keys or state."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from witness.core.lockdown.steps import LockdownSettings
from witness.front.settings import FrontSettings


class BadSettings(Exception):
    """The line is not the settings of such a process."""


@dataclass(frozen=True, slots=True)
class FeederSettings:
    """How logs are polled; see `FeedersConfig`. Times are seconds, `cache_disk` MiB."""

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
        feeders_socket: where the feeders' process tells how feeders stand; None where nothing is polled.
        distributors: where cosigned checkpoints are put.
        static_dir: the folder of the static publisher, or None.
        lockdown: what this process gives up.
        look: where copies of our checkpoints are looked for.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    front: FrontSettings
    feeders_socket: str | None = None
    distributors: tuple[DistributorSettings, ...] = ()
    static_dir: str | None = None
    look: LookSettings = field(default_factory=LookSettings)
    lockdown: LockdownSettings = field(default_factory=LockdownSettings)
    log_level: str = "INFO"

    @property
    def writes(self) -> tuple[Path, ...]:
        """The folders that this process writes."""
        return () if self.static_dir is None else (Path(self.static_dir),)

    def to_json(self) -> str:
        """One line of JSON."""
        fields = {
            "front": self.front.to_json(),
            "feeders_socket": self.feeders_socket,
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
            fields["distributors"] = tuple(DistributorSettings(**each) for each in fields["distributors"])
            fields["lockdown"] = LockdownSettings.from_fields(fields["lockdown"])
            if "look" in fields:
                look = fields["look"]
                fields["look"] = LookSettings(tuple(look["monitoring"]), look["interval"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise BadSettings(f"not the front's settings: {error}") from error


@dataclass(frozen=True, slots=True)
class FeedingProcessSettings:
    """All that the feeders' process is told.

    Attributes:
        core_socket: path of the core's Unix socket.
        socket: where it tells how feeders stand.
        name: the witness's, for the servers that are asked.
        contact: where their operators may complain.
        feeders: polling.
        lockdown: what this process gives up.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    core_socket: str
    socket: str
    name: str
    contact: str = ""
    feeders: FeederSettings = field(default_factory=FeederSettings)
    lockdown: LockdownSettings = field(default_factory=LockdownSettings)
    log_level: str = "INFO"

    @property
    def writes(self) -> tuple[Path, ...]:
        """The folders that this process writes."""
        return () if self.feeders.cache_dir is None else (Path(self.feeders.cache_dir),)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> FeedingProcessSettings:
        """What `to_json` wrote.

        Raises:
            BadSettings: it is something else.
        """
        try:
            fields = json.loads(line)
            fields["feeders"] = FeederSettings(**fields["feeders"])
            fields["lockdown"] = LockdownSettings.from_fields(fields["lockdown"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise BadSettings(f"not the feeders' settings: {error}") from error
