"""`witness audit …`: the record of what matters for trust."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from witness.cli.continuity import record_path
from witness.cli.errors import Failure, TheAnswerIsNo, one_line, say_warning
from witness.cli.generations import record_keys
from witness.cli.key_access import own_passphrase
from witness.cli.logs import json_option
from witness.cli.output import when
from witness.cli.state import existing, pass_layout, read_config
from witness.cli.trusting import read_file
from witness.core.continuity import highwater
from witness.core.continuity.attested import ATTESTED_HEAD
from witness.core.continuity.highwater import RecordInvalid
from witness.core.continuity.secret import MacKey
from witness.core.keystore import keyring
from witness.core.keystore.attesting import attestation_vkeys
from witness.core.keystore.base import KeystoreError
from witness.core.keystore.keyring import Ring
from witness.core.layout import StateLayout
from witness.core.store import audit as record
from witness.core.store.cosignatures import recorded
from witness.core.store.desk import Desk
from witness.tlog.note import MalformedNote, parse_note
from witness.tlog.record_head import RecordHead, parse_record_head
from witness.tlog.signature import InvalidNoteSignature, verify_note

MAX_HEAD: Final = 64 << 10
"""Bytes of an attested head's file."""


@click.group()
def audit() -> None:
    """The record of starts, alarms, changes of logs and keys, and approvals: each entry bound to the last."""


@audit.command()
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="FILE",
    help="An attested head that was kept elsewhere (witness audit head): the record must still have it.",
)
@json_option
@pass_layout
def verify(layout: StateLayout, *, heads: tuple[str, ...], as_json: bool) -> None:
    """Find any cut, change, reordering or rollback of the record; exit code 1 where there is one.

    The chain of hashes needs no secret. The MACs, and the head noted in the high-water record, are checked
    with the key file (and its passphrase, where it has one). An attested head is checked with the attestation
    key's vkey alone, and finds even a record that was written anew by somebody who has the MAC's key.
    """
    ring = keyring.read(existing(layout))
    kept = [(file, _read_head(file, ring)) for file in heads]
    keys, notes = _keys(layout)
    anchor: tuple[int, str] = (0, "")
    if keys is not None:
        try:
            anchor = highwater.read_only(record_path(layout, read_config(layout)), keys[0]).audit
        except (OSError, RecordInvalid) as error:
            notes.append(f"the head in the high-water record was not compared: {error}")
    with Desk(layout.database) as desk, desk.transaction():  # all of one moment: a running core appends
        verdict = record.verify(record.entries(desk), keys[1] if keys else None, anchor)
        faults = [*verdict.faults, *_missing(desk, kept)]
    facts: dict[str, Any] = {
        "whole": not faults,
        "entries": verdict.entries,
        "head": verdict.head[1] if verdict.entries else None,
        "maced": verdict.maced,
        "noted": anchor[0],
        "heads": [head.number for _, head in kept],
        "faults": faults,
        "unchecked": notes,
    }
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for note in notes:
            say_warning(note)
        click.echo(f"{verdict.entries} entries, {verdict.maced} of them with their MAC checked")
        if verdict.entries:
            click.echo(f"head {verdict.head[0]} {verdict.head[1]}")
    if faults:
        raise TheAnswerIsNo(faults[0], "the record was tampered with, damaged, or brought back from a backup")


@audit.command()
@pass_layout
def head(layout: StateLayout) -> None:
    """Print the latest attested head: how far the record goes, signed by the device's attestation key.

    Keep it where nobody who can change this machine can change it. `witness audit verify --head FILE` tells
    later whether the record still has what it had then, and anybody can verify the note itself:

    witness verify FILE --manifest-key @SERIAL.pub
    """
    with Desk(existing(layout).database) as desk:
        note = desk.fact(ATTESTED_HEAD)
    if note is None:
        raise TheAnswerIsNo(
            "no head of the record has been attested",
            "a running witness does so where it has an attestation key: witness keys attest",
        )
    click.echo(note, nl=False)


@audit.command()
@click.option("--after", default=0, metavar="NUMBER", help="Only entries after this one.")
@pass_layout
def show(layout: StateLayout, after: int) -> None:
    """Print the record for people, one line an entry."""
    with Desk(existing(layout).database) as desk:
        for entry in record.entries(desk, after):
            content = json.loads(entry.record)
            facts = " ".join(f"{name}={_short(value)}" for name, value in content["facts"].items())
            click.echo(f"{entry.number:>6} {when(content['seen'])} {content['kind']} {facts}")


@audit.command()
@click.option("--after", default=0, metavar="NUMBER", help="Only entries after this one.")
@pass_layout
def export(layout: StateLayout, after: int) -> None:
    """Print the record as JSON lines, each entry byte for byte as it was MACed."""
    with Desk(existing(layout).database) as desk:
        for entry in record.entries(desk, after):
            sys.stdout.buffer.write(entry.record + b"\n")
    sys.stdout.flush()


@audit.command()
@click.option("--origin", metavar="ORIGIN", help="Only this log's.")
@click.option(
    "--since", default=0, metavar="SECONDS", help="Only those cosigned at or after this POSIX time."
)
@json_option
@pass_layout
def cosignatures(layout: StateLayout, *, origin: str | None, since: int, as_json: bool) -> None:
    """Print the cosignatures on record, oldest first, one line each; with --json, one JSON object a line.

    `continuity.record_cosignatures` says which are recorded, and `record_days` for how long. The object's
    `checkpoint` is the log's checkpoint with our cosignatures: `witness verify` takes it.
    """
    with Desk(existing(layout).database) as desk:
        if origin is not None and desk.one("SELECT 1 FROM logs WHERE origin = ?", (origin,)) is None:
            raise Failure(f"no log {origin!r} is configured", "witness logs list shows all")
        for each in recorded(desk, origin, since):
            if as_json:
                facts = {
                    "origin": each.origin, "size": each.size, "root": each.root.hex(),
                    "timestamp": each.timestamp, "checkpoint": each.checkpoint.decode(),
                }  # fmt: skip
                click.echo(json.dumps(facts, ensure_ascii=False))
            else:
                root = base64.b64encode(each.root).decode()
                click.echo(f"{when(each.timestamp)} {each.size} {root} {one_line(each.origin)}")


def _keys(layout: StateLayout) -> tuple[tuple[MacKey, MacKey] | None, list[str]]:
    try:
        return record_keys(layout, own_passphrase(layout)), []
    except (KeystoreError, FileNotFoundError) as error:
        reason = error.reason if isinstance(error, KeystoreError) else f"{error.filename} is missing"
        return None, [f"the MACs were not checked: {reason}"]


def _read_head(file: str, ring: Ring) -> RecordHead:
    """An attested head of this witness's record.

    Raises:
        Failure, OSError: it cannot be read, or is none.
        TheAnswerIsNo: it is another witness's, or was not signed by this one's attestation key.
    """
    data = read_file(file, MAX_HEAD)
    try:
        note = parse_note(data)
        head = parse_record_head(note.text)
        signed = verify_note(note, attestation_vkeys(ring))
    except MalformedNote as error:
        raise Failure(
            f"{file} is no attested head: {error.reason}", "witness audit head prints one"
        ) from error
    except InvalidNoteSignature as error:
        raise TheAnswerIsNo(f"{file}: its signature is not valid") from error
    if not signed:
        raise TheAnswerIsNo(f"{file} is not signed by this witness's attestation key")
    if head.identity != ring.identity:
        raise TheAnswerIsNo(f"{file} is the head of another record, that of {head.name} ({head.identity})")
    return head


def _missing(desk: Desk, kept: Sequence[tuple[str, RecordHead]]) -> list[str]:
    """What the record has no more of what it had when its head was attested."""
    faults = []
    last, _ = record.head(desk)
    for file, head in kept:
        found = [entry.digest for entry in record.entries(desk, head.number - 1, 1)]
        if head.number > last:
            faults.append(f"the record ends at entry {last}, and {file} attests entry {head.number}")
        elif found != [head.digest]:
            faults.append(f"entry {head.number} is not the one that {file} attests")
    return faults


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
