"""`witness checkpoint ORIGIN`: the latest cosigned checkpoint, out of the database."""

from __future__ import annotations

import json

import click

from witness.cli.errors import TheAnswerIsNo
from witness.cli.logs import json_option, known
from witness.cli.state import existing, pass_layout
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook


@click.command()
@click.argument("origin")
@json_option
@pass_layout
def checkpoint(layout: StateLayout, origin: str, *, as_json: bool) -> None:
    """Print a log's latest cosigned checkpoint, as monitors get it."""
    with LogBook(existing(layout).database) as book:
        known(book, origin)
        cosigned = book.cosigned(origin)
    if cosigned is None:
        raise TheAnswerIsNo(f"nothing of {origin!r} was cosigned yet")
    note = (cosigned.note + cosigned.cosignatures).decode()
    if as_json:
        head = cosigned.head
        facts = {
            "origin": origin,
            "size": head.size,
            "root": head.root.hex(),
            "timestamp": head.timestamp,
            "note": note,
        }
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        click.echo(note, nl=False)
