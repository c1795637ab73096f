"""Lists of logs as people hand them round: `logs/v0`, our YAML, and omniwitness's YAML.

Whatever the form, the list becomes `ListedLog`s. One entry that cannot be understood is left out and told
of; it never spoils the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from feeders.kinds import KINDS, NOT_POLLED
from witness.cli.config import wrong_url
from witness.cli.strict_yaml import (
    Place,
    YamlFault,
    compose,
    day,
    entries,
    is_unicode,
    items,
    read,
    seconds,
    switch,
    text,
    whole,
    words,
)
from witness.core.store.logs import LogSettings
from witness.tlog.loglist import MAX_ORIGIN_SIZE, MAX_QPD, MalformedLogList, parse_log_list
from witness.tlog.note import MalformedVKey, VerifierKey, has_control, parse_vkey

FEEDERS: Final = (*KINDS, NOT_POLLED)
"""The kinds that `--feeder` and a list's `feeder` may name."""
MAX_LIST: Final = 64 * 1024 * 1024
"""Bytes of a list; the largest foreseen, of 44,000 logs, has about 10 MB."""


class BadList(Exception):
    """The whole is not a list of logs: `reason`, one plain line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ListedLog:
    """One entry of a list: a log as it would be added. What a log's key may be, the log book says.

    `source` is where the list has the entry from, and the day; empty where it does not say.
    """

    origin: str
    vkeys: tuple[VerifierKey, ...]
    settings: LogSettings
    source: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was left out: its line (from 1) and why."""

    line: int
    reason: str


def parse(data: bytes) -> tuple[list[ListedLog], list[Skipped]]:
    """The entries of a list of any of the three forms, in its order, and those that were left out.

    Raises:
        BadList: it is no list of logs.
    """
    if len(data) > MAX_LIST:
        raise BadList(f"longer than {MAX_LIST} bytes")
    if _first_word(data).startswith(b"logs/"):
        return _network_list(data)
    return _yaml_list(data)


def wrong_origin(origin: str) -> str | None:
    """What keeps a text from being a checkpoint's origin that can be cosigned, or None."""
    if not is_unicode(origin):
        return "an origin is text that UTF-8 can hold"
    encoded = origin.encode()
    if not encoded or "\n" in origin or has_control(encoded):
        return "an origin is one line of text without control characters"
    if len(encoded) > MAX_ORIGIN_SIZE:
        return f"an origin has at most {MAX_ORIGIN_SIZE} bytes"
    return None


def _wrong_line(value: str) -> str | None:
    return None if value and value.isprintable() else "must be one line of text"


def _first_word(data: bytes) -> bytes:
    """The first line that is neither blank nor a comment."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end].strip()
        if line and not line.startswith(b"#"):
            return line
        at = end + 1
    return b""


# --- logs/v0 ---


def _network_list(data: bytes) -> tuple[list[ListedLog], list[Skipped]]:
    try:
        found = parse_log_list(data)
    except MalformedLogList as error:
        raise BadList(str(error)) from error
    logs = [
        ListedLog(
            entry.origin, (entry.vkey,), LogSettings(qpd=entry.qpd or None, contact=entry.contact or None)
        )
        for entry in found.entries
    ]
    return logs, [Skipped(each.line, each.reason) for each in found.skipped]


# --- YAML ---


@dataclass(frozen=True, slots=True)
class _OurEntry:
    origin: str = text(check=wrong_origin)
    vkeys: tuple[str, ...] = words()
    feeder: str = text(NOT_POLLED, one_of=FEEDERS)
    url: str | None = text(None, check=wrong_url)
    interval: float | None = seconds(None, least=1, most=86400)
    qpd: int | None = whole(None, least=1, most=MAX_QPD)
    contact: str | None = text(None)
    disabled: bool = switch(False)
    source: str | None = text(None, check=_wrong_line)
    date: str | None = day(None)


@dataclass(frozen=True, slots=True)
class _OmniwitnessEntry:
    """An entry of omniwitness's `logs.yaml`; the names are its own."""

    Origin: str = text(check=wrong_origin)
    PublicKey: str = text()
    URL: str | None = text(None, check=wrong_url)
    # The note library that reads the key; the type byte in a vkey says the same.
    PublicKeyType: str = text("", one_of=("", "ecdsa", "ed25519"))
    Feeder: str = text("none", one_of=("sumdb", "serverless", "rekor", "pixel", "tiles", "none"))


def _yaml_list(data: bytes) -> tuple[list[ListedLog], list[Skipped]]:
    try:
        root = entries(compose(data))
        ours, theirs = root.pop("logs", None), root.pop("Logs", None)
        if root:
            raise next(iter(root.values())).fault("unknown key; a list of logs has the one key logs")
        listed = ours or theirs
        if listed is None or (ours and theirs):
            raise BadList("a list of logs begins with logs/v0, or is YAML with the key logs (or Logs)")
        places = list(items(listed))
    except YamlFault as fault:
        raise BadList(f"line {fault.line}: {fault}") from fault
    logs: list[ListedLog] = []
    skipped: list[Skipped] = []
    for place in places:
        try:
            logs.append(_ours(place) if ours else _omniwitness(place))
        except YamlFault as fault:
            skipped.append(Skipped(fault.line, str(fault)))
    return logs, skipped


def _ours(place: Place) -> ListedLog:
    entry: _OurEntry = read(_OurEntry, place)
    if not entry.vkeys:
        raise place.fault("vkeys is empty")
    settings = LogSettings(
        feeder=entry.feeder,
        url=_url(place, entry.feeder, entry.url),
        interval=entry.interval,
        qpd=entry.qpd,
        contact=entry.contact,
        disabled=entry.disabled,
    )
    if entry.date is not None and entry.source is None:
        raise place.fault("date is the day on which the source said so, and source is missing")
    source = ", ".join(filter(None, (entry.source, entry.date)))
    return replace(_listed(place, entry.origin, entry.vkeys, settings), source=source)


def _omniwitness(place: Place) -> ListedLog:
    entry: _OmniwitnessEntry = read(_OmniwitnessEntry, place)
    settings = LogSettings(feeder=entry.Feeder, url=_url(place, entry.Feeder, entry.URL))
    return _listed(place, entry.Origin, (entry.PublicKey,), settings)


def _url(place: Place, feeder: str, url: str | None) -> str | None:
    if feeder != NOT_POLLED and url is None:
        raise place.fault(f"a log with the feeder {feeder} needs a url")
    return url


def _listed(place: Place, origin: str, vkeys: tuple[str, ...], settings: LogSettings) -> ListedLog:
    return ListedLog(origin, tuple(_key(place, vkey) for vkey in vkeys), settings)


def _key(place: Place, vkey: str) -> VerifierKey:
    try:
        return parse_vkey(vkey)
    except MalformedVKey as error:
        raise place.fault(f"vkey {vkey[:100]!r}: {error.reason}") from error
