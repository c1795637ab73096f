"""The operator's `witness.yaml`: what may stand in it, and what holds where it is silent.

`config/witness.yaml` explains every key to people; a test keeps the two in step.
"""

# ruff: noqa: RUF009 - the calls in the dataclasses below make fields, as dataclasses.field does

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from witness.cli.strict_yaml import (
    YamlFault,
    choice,
    compose,
    read,
    seconds,
    section,
    sections,
    switch,
    text,
    whole,
    words,
)
from witness.core.continuity.sshsig import MalformedKey, parse_operator
from witness.core.lockdown.steps import Step
from witness.front.settings import FrontSettings, InvalidSettings, parse_address
from witness.tlog.note import is_key_name

ALGORITHMS: Final = ("ed25519", "ml-dsa-44")
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_LISTEN: Final = "127.0.0.1:7380"
MAX_NAME: Final = 255 - len("/probe")
"""Bytes of a witness's name: a cosigner's name has at most 255, and so has the origin of its probe log."""
MAX_FILE: Final = 1024 * 1024
"""Bytes of a witness.yaml."""

_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DAY: Final = 86400.0


class ConfigError(Exception):
    """`witness.yaml` is not what it must be; `str()` names the file, the line, the key and the fault."""

    def __init__(self, file: Path, line: int, path: str, reason: str) -> None:
        place = f"{file}, line {line}" if line else str(file)
        super().__init__(f"{place}: {path}: {reason}" if path else f"{place}: {reason}")
        self.file = file
        self.line = line
        self.path = path
        self.reason = reason


def wrong_name(value: str) -> str | None:
    """What keeps a text from being a witness's name (signed-note, Format), or None."""
    if not is_key_name(value):
        return "a name has no spaces and no plus sign"
    if value in (".", ".."):
        return "a name is not a step in a path, which it becomes part of at distributors"
    if len(value.encode("utf-8", "replace")) > MAX_NAME:
        return f"a name has at most {MAX_NAME} bytes"
    return None


def wrong_url(value: str) -> str | None:
    """What keeps a text from being an http(s) URL that something can be appended to, or None."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        return f"must be a URL ({error})"
    if parts.scheme not in ("http", "https") or not parts.hostname or not value.isprintable() or " " in value:
        return "must be an http or https URL"
    if parts.username is not None or parts.password is not None:
        return "must be a URL without user and password"
    if parts.fragment:
        return "must be a URL without a fragment"
    return None


def _wrong_distributor(value: str) -> str | None:
    wrong = wrong_url(value)
    return "must be a URL without a query" if wrong is None and "?" in value else wrong


def _wrong_address(value: str) -> str | None:
    try:
        parse_address(value)
    except InvalidSettings as error:
        return error.reason
    return None


def _wrong_prefix(value: str) -> str | None:
    try:
        FrontSettings(name="", core_socket="", prefix=value)
    except InvalidSettings as error:
        return error.reason
    return None


def _wrong_variable(value: str) -> str | None:
    if _ENVIRONMENT_NAME.fullmatch(value) is None:
        return "must be the name of an environment variable"
    return None


def _wrong_path(value: str) -> str | None:
    return None if value and "\0" not in value else "must be a path"


def _wrong_line(value: str) -> str | None:
    return None if value.isprintable() and value else "must be one line of text"


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """The witness's own keys: which there are, and where the passphrase that unseals them comes from."""

    algorithms: tuple[str, ...] | None = words(None, one_of=ALGORITHMS)
    passphrase_env: str = text("WITNESS_PASSPHRASE", check=_wrong_variable)
    passphrase_file: str | None = text(None, check=_wrong_path)
    wait_for_unlock: bool = switch(False)
    deadline: float = seconds(2.0, least=0.1, most=60)
    open_deadline: float = seconds(20.0, least=0.5, most=300)


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """The process that holds keys and state."""

    max_batch: int = whole(256, least=1, most=4096)
    max_pending: int = whole(2048, least=1, most=65536)
    judge_threads: int = whole(2, least=1, most=64)


@dataclass(frozen=True, slots=True)
class LockdownConfig:
    """What the two processes give up: a switch a step, by the names of `witness.core.lockdown.steps.Step`."""

    core_user: str | None = text(None, check=_wrong_line)
    front_user: str | None = text(None, check=_wrong_line)
    own_user: bool = switch(True)
    no_network: bool = switch(True)
    limits: bool = switch(True)
    locked_memory: bool = switch(True)
    no_new_privileges: bool = switch(True)
    not_dumpable: bool = switch(True)
    no_new_code: bool = switch(True)
    landlock: bool = switch(True)
    seccomp: bool = switch(True)
    require: tuple[str, ...] = words((), one_of=tuple(Step))


@dataclass(frozen=True, slots=True)
class FeedersConfig:
    """Polling logs that do not push. Times are seconds."""

    enabled: bool = switch(True)
    interval: float = seconds(60.0, least=1, most=_DAY)
    refresh: float = seconds(600.0, least=1, most=30 * _DAY)
    concurrency: int = whole(256, least=1, most=4096)
    per_host: int = whole(4, least=1, most=64)
    rate: int = whole(20, least=1, most=1000)


@dataclass(frozen=True, slots=True)
class TileCacheConfig:
    """Tiles that were fetched, kept as files too. `disk` is MiB."""

    dir: str | None = text(None, check=_wrong_path)
    disk: int = whole(1024, least=1, most=1024 * 1024)


@dataclass(frozen=True, slots=True)
class ListConfig:
    """A list of logs that is read again and again, and only ever adds. Times are seconds."""

    url: str = text(check=wrong_url)
    interval: float = seconds(3600.0, least=60, most=30 * _DAY)


@dataclass(frozen=True, slots=True)
class DistributorConfig:
    """One distributor that takes our cosigned checkpoints."""

    url: str = text(check=_wrong_distributor)
    name: str | None = text(None, check=_wrong_line)


@dataclass(frozen=True, slots=True)
class StaticConfig:
    """The monitoring layout as files."""

    dir: str | None = text(None, check=_wrong_path)


@dataclass(frozen=True, slots=True)
class FactConfig:
    """One more thing that the page tells: how the keys are kept, when there is maintenance."""

    title: str = text(check=_wrong_line)
    text: str = text()


@dataclass(frozen=True, slots=True)
class AboutConfig:
    """What `GET /about` and the page tell about whoever runs this witness."""

    operator: str | None = text(None, check=_wrong_line)
    contact: str | None = text(None, check=_wrong_line)
    submission_url: str | None = text(None, check=wrong_url)
    monitoring_url: str | None = text(None, check=wrong_url)
    lists: tuple[str, ...] = words(())
    cadence: str | None = text(None, check=_wrong_line)
    more: tuple[FactConfig, ...] = sections(FactConfig)


@dataclass(frozen=True, slots=True)
class ContinuityConfig:
    """The guards against a state that is older than what it has signed. Times are seconds."""

    high_water: str | None = text(None, check=_wrong_path)
    interval: float = seconds(5.0, least=0.1, most=3600)
    look: tuple[str, ...] = words(())
    look_interval: float = seconds(3600.0, least=1, most=30 * _DAY)
    wait: float = seconds(10.0, least=0, most=3600)
    remember: int = whole(16, least=0, most=1024)
    counter_interval: float = seconds(3600.0, least=60, most=30 * _DAY)
    record_cosignatures: str = choice("off", one_of=("off", "heads", "all"))
    record_days: int = whole(90, least=1, most=36500)


@dataclass(frozen=True, slots=True)
class AuthorityConfig:
    """Who decides about dangerous actions."""

    needed: int = whole(0, least=0, most=64)
    operators: tuple[str, ...] = words(())


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the daemon writes to stderr."""

    level: str = text("INFO", one_of=LOG_LEVELS)


@dataclass(frozen=True, slots=True)
class Config:
    """All of `witness.yaml`."""

    name: str = text(check=wrong_name)
    listen: str = text(DEFAULT_LISTEN, check=_wrong_address)
    operator_listen: str | None = text(None, check=_wrong_address)
    path_prefix: str = text("", check=_wrong_prefix)
    watchdog: float = seconds(30.0, least=1, most=3600)
    keys: KeysConfig = section(KeysConfig)
    core: CoreConfig = section(CoreConfig)
    lockdown: LockdownConfig = section(LockdownConfig)
    feeders: FeedersConfig = section(FeedersConfig)
    tile_cache: TileCacheConfig = section(TileCacheConfig)
    lists: tuple[ListConfig, ...] = sections(ListConfig)
    distributors: tuple[DistributorConfig, ...] = sections(DistributorConfig)
    static: StaticConfig = section(StaticConfig)
    about: AboutConfig = section(AboutConfig)
    continuity: ContinuityConfig = section(ContinuityConfig)
    authority: AuthorityConfig = section(AuthorityConfig)
    log: LogConfig = section(LogConfig)


def parse(data: bytes, file: Path) -> Config:
    """A configuration out of its text.

    Args:
        data: the YAML text.
        file: where it stands, for errors; relative paths in it start from its folder.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of its bounds.
    """
    if len(data) > MAX_FILE:
        raise ConfigError(file, 0, "", f"longer than {MAX_FILE} bytes")
    try:
        config: Config = read(Config, compose(data))
    except YamlFault as fault:
        raise ConfigError(file, fault.line, fault.path, fault.reason) from fault
    urls = [each.url for each in config.lists]
    for number, url in enumerate(urls):
        if url in urls[:number]:
            raise ConfigError(file, 0, f"lists[{number}]", f"a second list at {url}")
    names = [each.name or each.url for each in config.distributors]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(file, 0, f"distributors[{number}]", f"a second distributor called {name!r}")
    _check_authority(config.authority, file)
    for number, url in enumerate(config.continuity.look):
        if wrong := wrong_url(url):
            raise ConfigError(file, 0, f"continuity.look[{number}]", wrong)
    return config


def _check_authority(authority: AuthorityConfig, file: Path) -> None:
    names = set()
    for number, line in enumerate(authority.operators):
        try:
            names.add(parse_operator(line).name)
        except MalformedKey as error:
            raise ConfigError(file, 0, f"authority.operators[{number}]", str(error)) from error
    if len(names) != len(authority.operators):
        raise ConfigError(file, 0, "authority.operators", "two operators have one name")
    if authority.needed > len(names):
        raise ConfigError(file, 0, "authority.needed", f"more than the {len(names)} operators there are")


def load(file: Path) -> Config:
    """The configuration in a file.

    Raises:
        ConfigError: as `parse`.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return parse(stream.read(MAX_FILE + 1), file)


def beside(file: Path, path: str) -> Path:
    """A path as `witness.yaml` means it: relative ones start from the folder it stands in."""
    return file.parent / Path(path).expanduser()
