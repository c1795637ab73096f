"""`witness lists …`: lists of logs that others keep."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from witness.cli.config import wrong_url
from witness.cli.errors import Failure, WrongUsage, one_line, say_error
from witness.cli.importing import Difference, difference, trusted_keys
from witness.cli.log_lists import ListedLog
from witness.cli.logs import json_option
from witness.cli.output import plural, table, tell_skipped, when
from witness.cli.pulling import fetched, pull, read_list, readings
from witness.cli.state import existing, pass_layout, read_config
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook


@click.group()
def lists() -> None:
    """Read lists of logs that others keep. They only ever add; `lists` in witness.yaml names them."""


@lists.command()
@click.argument("source", metavar="URL")
@json_option
@pass_layout
def preview(layout: StateLayout, source: str, *, as_json: bool) -> None:
    """Show what a list at URL (or in a file) would add, and change nothing.

    Lines begin with + for a log that is new, with ! for a key of a known log that is not trusted here and
    would not be taken.
    """
    listed, skipped = read_list(source, _body(source))
    with LogBook(existing(layout).database) as book:
        found = difference(trusted_keys(book), listed)
    tell_skipped(skipped)
    if as_json:
        facts = {
            "new": [_facts(log) for log in found.new],
            "changed_keys": [asdict(each) for each in found.changed],
            "known": found.known,
            "skipped": [asdict(each) for each in skipped],
        }
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    _print(found)
    click.echo(
        f"{plural(len(found.new), 'new log', 'new logs')}, {found.known} known already,"
        f" {plural(len(found.changed), 'changed key', 'changed keys')}, {len(skipped)} skipped"
    )


@lists.command(name="pull")
@click.argument("urls", metavar="[URL]…", nargs=-1)
@pass_layout
def pull_(layout: StateLayout, urls: tuple[str, ...]) -> None:
    """Read the lists at URLs now, or those of witness.yaml, and add the logs that are new."""
    config = read_config(existing(layout))
    wanted = [_checked(url) for url in urls] or [each.url for each in config.lists]
    if not wanted:
        raise WrongUsage("no list is given, and witness.yaml names none", "witness lists pull URL")
    failed = 0
    for url in wanted:
        try:
            imported = pull(layout, url)
        except Failure as failure:
            say_error(failure.reason, failure.hint)
            failed += 1
            continue
        click.echo(
            f"{url}: {plural(len(imported.added), 'log', 'logs')} added, {imported.known} known already,"
            f" {plural(len(imported.changed), 'changed key', 'changed keys')} not taken"
        )
    if failed:
        raise SystemExit(Failure("").code)


@lists.command()
@json_option
@pass_layout
def status(layout: StateLayout, *, as_json: bool) -> None:
    """Show when each list was last read, and what it met."""
    kept = readings(existing(layout))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in kept.values()], ensure_ascii=False, indent=1))
        return
    rows = [
        (
            each.url,
            when(each.read),
            str(each.logs),
            str(each.added),
            str(len(each.changed)),
            each.error or "-",
        )
        for each in kept.values()
    ]
    table(rows, ("LIST", "READ", "LOGS", "ADDED", "CHANGED KEYS", "ERROR"))


def _checked(url: str) -> str:
    wrong = wrong_url(url)
    if wrong:
        raise WrongUsage(f"{url!r}: {wrong}")
    return url


def _body(source: str) -> bytes:
    if "://" in source:
        return fetched(_checked(source))
    return Path(source).read_bytes()


def _facts(log: ListedLog) -> dict[str, object]:
    return {
        "origin": log.origin,
        "vkeys": [str(key) for key in log.vkeys],
        "qpd": log.settings.qpd,
        "contact": log.settings.contact,
        "feeder": log.settings.feeder,
        "url": log.settings.url,
    }


def _print(found: Difference) -> None:
    for log in found.new:
        settings = log.settings
        more = [f"qpd {settings.qpd}" if settings.qpd else "", one_line(settings.contact or "")]
        click.echo("  ".join(["+", log.origin, *filter(None, more)]))
        for key in log.vkeys:
            click.echo(f"      {key}")
    for each in found.changed:
        click.echo(f"!  {each.origin}: another key: {each.vkey}")
