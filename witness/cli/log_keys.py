"""`witness logs keys`: whose signatures make a checkpoint the log's. An operator's hand alone changes that.

The command line loads `logs` from here, with this command in it.
"""

from __future__ import annotations

import json
import time

import click

from witness.cli.authority import approved
from witness.cli.errors import TheAnswerIsNo, WrongUsage
from witness.cli.logs import json_option, known, logs, parse_key
from witness.cli.output import plural, when
from witness.cli.state import existing, pass_layout
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook, LogKeyRefused


@logs.command(name="keys")
@click.argument("origin")
@click.option("--add", "added", multiple=True, metavar="VKEY", help="Trust this key too (repeatable).")
@click.option(
    "--remove", "removed", multiple=True, metavar="VKEY",
    help="Trust this key no longer: its vkey, or NAME+ID of it (repeatable).",
)  # fmt: skip
@json_option
@pass_layout
def log_keys(
    layout: StateLayout, origin: str, added: tuple[str, ...], removed: tuple[str, ...], *, as_json: bool
) -> None:
    """Show a known log's keys, or change them in one step.

    A key that is removed stays on record, and so does what it signed: the head and the evidence. A running
    daemon takes the change up within a second. Where authority in witness.yaml asks for it, operators approve
    the keys that the log is to have afterwards.
    """
    add = [parse_key(vkey) for vkey in dict.fromkeys(added)]
    with LogBook(existing(layout).database) as book:
        record, _ = known(book, origin)
        withdraw = [_found(record.vkeys, each) for each in dict.fromkeys(removed)]
        if set(map(str, add)) & set(withdraw):
            raise WrongUsage("the same key is to be added and removed")
        try:
            book.check_keys(origin, add, withdraw)
            approved(layout, book, origin, add, withdraw)
            with book.transaction():
                changed = book.change_keys(origin, add, withdraw, source="cli", now=int(time.time()))
        except LogKeyRefused as error:
            raise TheAnswerIsNo(error.reason, error.hint) from error
        record, _ = known(book, origin)
        gone = book.withdrawn(origin)
    if as_json:
        facts = {
            "origin": origin,
            "changed": changed,
            "vkeys": list(record.vkeys),
            "removed": [{"vkey": vkey, "removed": at} for vkey, at in gone],
        }
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    if changed:
        click.echo(f"{origin} has {plural(len(record.vkeys), 'key', 'keys')} now", err=True)
    for vkey in record.vkeys:
        click.echo(vkey)
    for vkey, at in gone:
        click.echo(f"removed {when(at)}: {vkey}", err=True)


def _found(vkeys: tuple[str, ...], wanted: str) -> str:
    """The key that an operator means."""
    found = [vkey for vkey in vkeys if vkey == wanted or vkey.startswith(wanted + "+")]
    if len(found) != 1:
        what = "no key" if not found else "more than one key"
        raise TheAnswerIsNo(f"{wanted!r} is {what} of the log", "witness logs keys ORIGIN lists them")
    return found[0]
