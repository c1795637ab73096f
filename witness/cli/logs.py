"""`witness logs …`: which logs are witnessed. Works on the database, daemon running or not."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from feeders.kinds import NOT_POLLED, make_source
from feeders.protocol import BadUrl, FeedLog
from feeders.tools import Tools
from witness.cli.authority import approved
from witness.cli.config import wrong_url
from witness.cli.errors import Failure, TheAnswerIsNo, WrongUsage
from witness.cli.importing import import_logs
from witness.cli.log_lists import FEEDERS, MAX_LIST, BadList, parse, wrong_origin
from witness.cli.output import plural, table, tell_import, tell_skipped, when
from witness.cli.pins import read_pin
from witness.cli.state import existing, pass_layout
from witness.core.layout import StateLayout
from witness.core.store.base import CosignedHead, Head, LogRecord
from witness.core.store.logs import Added, LogBook, LogKeyRefused, LogSettings, UnknownLog
from witness.tlog.checkpoint import origin_hash
from witness.tlog.loglist import MAX_QPD
from witness.tlog.note import MalformedVKey, VerifierKey, parse_vkey

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def logs() -> None:
    """Say which logs are witnessed. A running daemon takes changes up within a second."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """The options of `logs add`."""

    feeder: str | None
    url: str | None
    interval: float | None
    qpd: int | None
    contact: str | None


@logs.command()
@click.argument("vkeys", metavar="VKEY…", nargs=-1, required=True)
@click.option("--origin", help="The checkpoint origin; without it, the vkeys' name.")
@click.option(
    "--feeder", metavar="KIND", type=click.Choice(FEEDERS), help=f"How to poll it: {', '.join(FEEDERS)}."
)
@click.option("--url", help="Where to poll it.")
@click.option("--interval", metavar="SECONDS", type=click.FloatRange(1, 86400), help="Time between polls.")
@click.option("--qpd", metavar="N", type=click.IntRange(1, MAX_QPD), help="Requests a day it declares.")
@click.option("--contact", metavar="C", help="How to reach the log's operator.")
@click.option(
    "--pin",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A signed checkpoint of the new log that the first contact must extend.",
)
@json_option
@pass_layout
def add(
    layout: StateLayout,
    /,
    vkeys: tuple[str, ...],
    origin: str | None,
    pin: Path | None,
    *,
    as_json: bool,
    **wish: Any,
) -> None:
    """Add logs, or further keys of a known one.

    With --origin, all VKEYs are keys of that one log; without it, each log is named as its keys are. Given
    settings replace those of a known log; others stay.
    """
    keys = tuple(parse_key(vkey) for vkey in dict.fromkeys(vkeys))
    by_origin = _by_origin(origin, keys)
    if len(by_origin) > 1 and (wish["url"] is not None or pin is not None):
        raise WrongUsage("one --url or --pin is for one log", "add the logs one by one, or give --origin")
    settings = _settings(_Wish(**wish))
    with LogBook(existing(layout).database) as book:
        for name, each in by_origin.items():
            approved(layout, book, name, each, ())
    with LogBook(layout.database) as book, book.transaction():
        done = [_add(book, name, each, settings, pin) for name, each in by_origin.items()]
    if as_json:
        facts = [
            {
                "origin": added.origin,
                "new": added.new,
                "new_keys": [str(key) for key in added.new_keys],
                "changed": added.changed,
            }
            for added in done
        ]
        click.echo(json.dumps(facts if len(facts) > 1 else facts[0], ensure_ascii=False, indent=1))
        return
    for added in done:
        if added.new:
            click.echo(f"added {added.origin} with {plural(len(added.new_keys), 'key', 'keys')}")
        elif added.new_keys:
            click.echo(f"added {plural(len(added.new_keys), 'key', 'keys')} to {added.origin}")
        else:
            click.echo(f"{'changed' if added.changed else 'nothing new for'} {added.origin}")


def _add(
    book: LogBook, name: str, keys: tuple[VerifierKey, ...], settings: LogSettings, pin: Path | None
) -> Added:
    """One log, inside a transaction."""
    now = int(time.time())
    try:
        added = book.add(name, keys, settings, source="cli", now=now)
    except LogKeyRefused as error:
        raise WrongUsage(error.reason, error.hint) from error
    record, _ = book.get(name)
    if record.feeder != NOT_POLLED and record.url is None:
        raise WrongUsage(f"the feeder {record.feeder} needs --url")
    _check_url(record)
    if pin is not None:
        if not added.new:
            raise WrongUsage(f"{name} is known already", "a start is pinned when a log is added")
        book.pin(name, *read_pin(pin, name, keys), source="cli", now=now)
    return added


@logs.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@pass_layout
def import_(layout: StateLayout, file: Path, *, as_json: bool) -> None:
    """Add the logs of a list: logs/v0, or a YAML list (ours or omniwitness's); - reads standard input.

    Only ever adds. A log that is known stays as it is; where the list shows another key for it, that is told
    and not done. Entries that cannot be understood are told of and left out; where all of them are, the exit
    code is 1.
    """
    try:
        # One byte more than may be: the parser then says that it is too long.
        data = sys.stdin.buffer.read(MAX_LIST + 1) if str(file) == "-" else file.read_bytes()
        listed, skipped = parse(data)
    except BadList as error:
        raise Failure(f"{file}: {error.reason}") from error
    with LogBook(existing(layout).database) as book:
        imported = import_logs(book, listed, source=f"list {file.name}", now=int(time.time()))
    tell_skipped(skipped)
    tell_import(imported)
    left_out = len(skipped) + len(imported.refused)
    if as_json:
        facts = {
            "added": list(imported.added),
            "known": imported.known,
            "changed_keys": [{"origin": each.origin, "vkey": each.vkey} for each in imported.changed],
            "skipped": [{"line": each.line, "reason": each.reason} for each in skipped]
            + [{"line": 0, "reason": f"{each.origin}: {each.reason}"} for each in imported.refused],
        }
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        click.echo(
            f"{plural(len(imported.added), 'log', 'logs')} added, {imported.known} known already,"
            f" {plural(len(imported.changed), 'changed key', 'changed keys')} not taken, {left_out} skipped"
        )
    if left_out and not (imported.added or imported.known or imported.changed):
        raise TheAnswerIsNo(f"{file}: no entry could be taken", "the warnings above say why for each")


@logs.command(name="list")
@json_option
@pass_layout
def list_(layout: StateLayout, *, as_json: bool) -> None:
    """List the logs with their latest cosigned sizes."""
    with LogBook(existing(layout).database) as book:
        found = list(book.all())
    if as_json:
        click.echo(json.dumps([_facts(*each) for each in found], ensure_ascii=False, indent=1))
        return
    if not found:
        click.echo("no logs yet: witness logs add VKEY, or witness logs import FILE", err=True)
        return
    rows = [
        (
            record.origin,
            str(head.size) if head else "-",
            when(head.timestamp if head else None),
            "disabled" if record.disabled else "enabled",
            record.feeder,
        )
        for record, head in found
    ]
    table(rows, ("ORIGIN", "SIZE", "COSIGNED", "STATE", "FEEDER"))


@logs.command()
@click.argument("origin")
@json_option
@pass_layout
def show(layout: StateLayout, origin: str, *, as_json: bool) -> None:
    """Show one log: keys, settings, latest cosigned checkpoint."""
    with LogBook(existing(layout).database) as book:
        record, head = known(book, origin)
        cosigned = book.cosigned(origin)
    facts = _facts(record, head, cosigned)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    for label, value in facts.items():
        values = value if isinstance(value, list) else [value]
        for each in values or ["-"]:
            click.echo(f"{label + ':':<13} {_plain(label, each)}")


@logs.command()
@click.argument("origin")
@json_option
@pass_layout
def disable(layout: StateLayout, origin: str, *, as_json: bool) -> None:
    """Cosign nothing further of a log. Its head and its keys stay."""
    _switch(layout, origin, disabled=True, as_json=as_json)


@logs.command()
@click.argument("origin")
@json_option
@pass_layout
def enable(layout: StateLayout, origin: str, *, as_json: bool) -> None:
    """Take a disabled log up again, from the head it had."""
    _switch(layout, origin, disabled=False, as_json=as_json)


def known(book: LogBook, origin: str) -> tuple[LogRecord, Head | None]:
    """A log that must be known.

    Raises:
        TheAnswerIsNo: it is not.
    """
    try:
        return book.get(origin)
    except UnknownLog as error:
        raise TheAnswerIsNo(error.reason, error.hint) from error


def _switch(layout: StateLayout, origin: str, *, disabled: bool, as_json: bool) -> None:
    with LogBook(existing(layout).database) as book, book.transaction():
        known(book, origin)
        try:
            changed = book.set_disabled(origin, disabled=disabled)
        except LogKeyRefused as error:
            raise TheAnswerIsNo(error.reason, error.hint) from error
    if as_json:
        click.echo(
            json.dumps({"origin": origin, "disabled": disabled, "changed": changed}, ensure_ascii=False)
        )
        return
    state = "disabled" if disabled else "enabled"
    click.echo(f"{origin} is {state}" if changed else f"{origin} was {state} already")


def parse_key(vkey: str) -> VerifierKey:
    """A vkey as somebody typed it. Raises WrongUsage."""
    try:
        return parse_vkey(vkey)
    except MalformedVKey as error:
        raise WrongUsage(f"the vkey {vkey[:100]!r}: {error.reason}") from error


def _by_origin(given: str | None, keys: tuple[VerifierKey, ...]) -> dict[str, tuple[VerifierKey, ...]]:
    """Which keys are whose: all of the origin given, else each of the origin that its name says."""
    found: dict[str, tuple[VerifierKey, ...]] = {}
    for key in keys:
        origin = given if given is not None else key.name
        wrong = wrong_origin(origin)
        if wrong:
            raise WrongUsage(f"--origin {origin!r}: {wrong}")
        found[origin] = (*found.get(origin, ()), key)
    return found


def _settings(wish: _Wish) -> LogSettings:
    if wish.url is not None:
        wrong = wrong_url(wish.url)
        if wrong:
            raise WrongUsage(f"--url {wish.url!r}: {wrong}")
    if wish.contact is not None and not wish.contact.isprintable():
        raise WrongUsage("--contact must be one line of text")
    return LogSettings(wish.feeder, wish.url, wish.interval, wish.qpd, wish.contact)


def _check_url(record: LogRecord) -> None:
    """Makes sure that the feeder can make something of the URL."""
    if record.feeder == NOT_POLLED or record.url is None:
        return

    async def never(url: str, limit: int) -> bytes:
        raise AssertionError(f"a GET of {url} of {limit} bytes")

    try:
        make_source(FeedLog(record.origin, (), record.feeder, record.url, 1.0), Tools(never))
    except BadUrl as error:
        raise WrongUsage(f"--url {record.url!r}: {error.reason}") from error


def _facts(record: LogRecord, head: Head | None, cosigned: CosignedHead | None = None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "origin": record.origin,
        "origin_hash": origin_hash(record.origin).hex(),
        "vkeys": list(record.vkeys),
        "disabled": record.disabled,
        "feeder": record.feeder,
        "url": record.url,
        "interval": record.interval,
        "qpd": record.qpd,
        "contact": record.contact,
        "source": record.source,
        "added": record.added,
        "pinned": record.pin.size if record.pin else None,
        "size": head.size if head else None,
        "root": head.root.hex() if head else None,
        "cosigned": head.timestamp if head else None,
    }
    if cosigned is not None:
        facts["checkpoint"] = (cosigned.note + cosigned.cosignatures).decode()
    return facts


def _plain(label: str, value: Any) -> str:
    if value is None:
        return "-"
    if label in ("added", "cosigned"):
        return when(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if label == "checkpoint":
        return "\n" + str(value).rstrip("\n")
    return str(value)
