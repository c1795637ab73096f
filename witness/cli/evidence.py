"""`witness evidence …`: proof of a log's misbehaviour, for anybody who knows the log's key."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from witness.bundles.evidence import FORK, SAME_SIZE, Evidence, format_evidence
from witness.cli.errors import Failure, TheAnswerIsNo
from witness.cli.logs import json_option
from witness.cli.output import when
from witness.cli.state import existing, pass_layout
from witness.core.layout import StateLayout
from witness.core.store.desk import Desk
from witness.tlog.checkpoint import Checkpoint, parse_checkpoint
from witness.tlog.contained import contained_root
from witness.tlog.merkle import HASH_SIZE
from witness.tlog.note import VerifierKey, parse_note, parse_vkey
from witness.tlog.signature import verify_note

_QUERY: Final = (
    "SELECT c.id, l.origin, c.kind, c.seen, c.size, c.stored, c.offered, c.proof,"
    " (SELECT group_concat(vkey, char(10)) FROM (SELECT vkey FROM log_keys WHERE log_id = l.id ORDER BY id))"
    " FROM contradictions c JOIN logs l ON l.id = c.log_id"
)


@click.group()
def evidence() -> None:
    """Checkpoints that a log signed and that contradict each other."""


@evidence.command(name="list")
@json_option
@pass_layout
def list_(layout: StateLayout, *, as_json: bool) -> None:
    """List what is kept, oldest first."""
    with Desk(existing(layout).database) as desk:
        rows = desk.connection.execute(f"{_QUERY} ORDER BY c.id").fetchall()
    if as_json:
        click.echo(json.dumps([_facts(row) for row in rows], ensure_ascii=False, indent=1))
        return
    for number, origin, kind, seen, size, *_ in rows:
        click.echo(f"{number} {origin} {kind} at size {size}, seen {when(seen)}")


@evidence.command()
@click.argument("number", type=int)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, not to stdout."
)
@pass_layout
def export(layout: StateLayout, number: int, output: Path | None) -> None:
    """Write one as a file that `witness verify` checks with nothing but the log's vkey."""
    with Desk(existing(layout).database) as desk:
        row = desk.connection.execute(f"{_QUERY} WHERE c.id = ?", (number,)).fetchone()
    if row is None:
        raise TheAnswerIsNo(f"there is no evidence {number}", "witness evidence list shows what is kept")
    data = format_evidence(_evidence(row))
    if output is not None:
        output.write_bytes(data)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()


def _evidence(row: tuple[Any, ...]) -> Evidence:
    _, origin, kind, _, _, stored, offered, proof, vkeys = row
    trusted = [parse_vkey(text) for text in vkeys.split("\n")] if vkeys else []
    keys = tuple(key for key in trusted if all(_signed(key, note) for note in (stored, offered)))
    if not keys:
        raise Failure(
            f"no key of {origin!r} that is trusted now has signed both checkpoints",
            "the evidence needs a key that signed both; witness logs show ORIGIN lists the keys",
        )
    if kind != "fork":
        return Evidence(SAME_SIZE, keys, (stored, offered))
    old, new = _checkpoint(stored), _checkpoint(offered)
    hashes = tuple(proof[at : at + HASH_SIZE] for at in range(0, len(proof), HASH_SIZE))
    return Evidence(
        FORK, keys, (stored, offered), contained_root(old.size, new.size, new.root, hashes), hashes
    )  # fmt: skip


def _checkpoint(note: bytes) -> Checkpoint:
    return parse_checkpoint(parse_note(note).text)


def _signed(key: VerifierKey, note: bytes) -> bool:
    return bool(verify_note(parse_note(note), [key]))


def _facts(row: tuple[Any, ...]) -> dict[str, Any]:
    number, origin, kind, seen, size, stored, offered, _, _ = row
    return {
        "number": number,
        "origin": origin,
        "kind": kind,
        "seen": seen,
        "size": size,
        "cosigned": stored.decode(),
        "offered": offered.decode(),
    }
