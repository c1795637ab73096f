"""`witness recover`: what an alarm means, and the way out of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

import witness
from witness.cli.authority import authorised
from witness.cli.errors import NO, Failure, TheAnswerIsNo, WrongUsage, say_error, say_warning
from witness.cli.logs import json_option, known
from witness.cli.output import when
from witness.cli.running import core_status
from witness.cli.state import existing, pass_layout
from witness.core.continuity import recover as way
from witness.core.continuity.authority import Action, keys_subject
from witness.core.continuity.memory import MADE_ANEW
from witness.core.continuity.recover import Behind, CannotRecover, Plan, Standstill
from witness.core.keystore import keyring
from witness.core.layout import StateLayout
from witness.core.request import digest_of_keys
from witness.core.store import schema
from witness.core.store.alarms import Alarm, Kind
from witness.core.store.desk import Desk
from witness.core.store.logs import LogBook
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.note import parse_note, parse_vkey
from witness.tlog.submission import (
    AddCheckpoint,
    MalformedSubmission,
    format_add_checkpoint,
    parse_add_checkpoint,
)

_TRIES: Final = 2
CHANGES: Final = ("fast_forward", "files", "given_up", "accept_keys", "accept_clock", "retire")
"""Options that change what stands, and need operators' approval where that is configured."""
_MAX_FILE: Final = 256 * 1024
MEANING: Final = {
    Kind.STATE_BEHIND: "this state is older than what this identity has signed (restored? copied?)",
    Kind.SECOND_COPY: "something else signs with this identity's keys: find it and stop it for good",
    Kind.OTHER_ROOT: "this identity has signed two different trees of one log: its word is spent; retire it",
    Kind.RESTORED: "the state comes from a backup",
    Kind.RECORD_LOST: "the high-water record is gone, so that nobody knows how far this identity has signed",
    Kind.RECORD_INVALID: "the high-water record was written by somebody else",
    Kind.AUDIT_BEHIND: "the record of events was longer: the database is older than it was",
    Kind.COUNTER: "the hardware counter disagrees with this state: it is old, or a second copy of it runs",
    Kind.DEVICE: "the device that this witness counts with is another one, or was wiped",
    Kind.LOG_KEY: "the keys of a log were changed behind the witness's back",
    Kind.ABANDONED: "the log was given up and is never signed again",
    Kind.RETIRED_KEY: "a retired key is here again: an old keys folder was put back",
    Kind.RETIRED: "this identity was retired",
}


@click.command()
@click.option("--fast-forward", is_flag=True, help="Bring logs forward by proofs that their feeders fetch.")
@click.option(
    "--file", "files", multiple=True, type=click.Path(path_type=Path),
    help="Bring a log forward by this add-checkpoint body (repeatable: one a size to prove from).",
)  # fmt: skip
@click.option("--log", "origins", multiple=True, metavar="ORIGIN", help="Only this log (repeatable).")
@click.option("--give-up", "given_up", multiple=True, metavar="ORIGIN", help="Never sign this log again.")
@click.option(
    "--accept-keys", multiple=True, metavar="ORIGIN", help="Accept this log's keys as they are now."
)
@click.option(
    "--accept-clock", is_flag=True, help="The clock is right, however long it is since the last signature."
)
@click.option("--only-copy", is_flag=True, help="I made sure that no other copy of this witness runs.")
@click.option(
    "--new-database", is_flag=True, help="The database is lost: make an empty one for this identity."
)
@click.option("--retire", is_flag=True, help="This identity never signs again.")
@json_option
@pass_layout
@click.pass_context
def recover(context: click.Context, layout: StateLayout, /, **options: Any) -> None:
    """Tell which alarms stand and what leads out of them; with an option, go there.

    Signing is taken up again, by a running daemon too, once every log is at least where this identity has
    signed, by proofs that the log itself gives. Exit code 1 while an alarm stands, or while the clock seems
    wrong because nothing was signed for so long.
    """
    existing(layout)
    now = int(time.time())
    if options["new_database"]:
        _new_database(layout, now)
    with Desk(layout.database) as desk:
        if any(options[name] for name in CHANGES):
            authorised(layout, desk, "recover", {}, now)
            _change(layout, desk, options, now)
        plan, clock = way.plan(desk), way.standstill(desk, now)
    if options["as_json"]:
        facts = {**_facts(plan), "clock": {**dataclasses.asdict(clock), "too_long": clock.too_long}}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        _explain(plan, running=core_status(layout) is not None)
        _explain_clock(clock)
    if clock.too_long or [alarm for alarm in plan.alarms if alarm.kind is not Kind.ABANDONED]:
        context.exit(NO)


def _change(layout: StateLayout, desk: Desk, options: dict[str, Any], now: int) -> None:
    if options["retire"]:
        way.retire(desk, now)
    if options["fast_forward"] or options["files"]:
        _forward(desk, options, now)
    for origin in options["given_up"]:
        way.give_up(desk, _behind(way.plan(desk), origin), now)
    for origin in options["accept_keys"]:
        with LogBook(layout.database) as book:
            record, _ = known(book, origin)
        authorised(layout, desk, Action.LOG_KEYS, keys_subject(origin, record.vkeys), now)
        way.accept_keys(desk, origin, digest_of_keys(record.vkeys), now)
    if options["accept_clock"]:
        way.accept_clock(desk, now)
    way.settle_what_is_over(desk, now, running=core_status(layout) is not None)


def _new_database(layout: StateLayout, now: int) -> None:
    ring = keyring.read(layout)
    if layout.database.exists():
        raise Failure(
            f"{layout.database} is there", "only a lost database is replaced, never one that stands"
        )
    schema.create(layout.database, name=ring.name, identity=ring.identity, now=now)
    with Desk(layout.database) as desk:
        desk.set_fact(MADE_ANEW, str(now))
    say_warning(
        "the new database knows no log: add or import the logs again, start, and recover what is behind"
    )


def _behind(plan: Plan, origin: str) -> Behind:
    for each in plan.behind:
        if each.origin == origin:
            return each
    raise TheAnswerIsNo(f"{origin!r} is not behind", "witness recover lists what is")


def _forward(desk: Desk, options: dict[str, Any], now: int) -> None:
    plan = way.plan(desk)
    wanted = [each for each in plan.behind if not options["origins"] or each.origin in options["origins"]]
    if any(each.copy for each in wanted) and not options["only_copy"]:
        raise WrongUsage(
            "another copy of this witness has signed", "stop it for good first, then say --only-copy"
        )
    given = [_read(file) for file in options["files"]]
    for each in wanted:
        mine = [body for body in given if body.checkpoint.origin == each.origin]
        try:
            if not mine and options["fast_forward"]:
                mine = asyncio.run(_fetched(each))
            if not mine:
                continue
            head = way.bring_forward(desk, each, mine, now)
        except CannotRecover as error:
            say_error(f"{each.origin}: {error.reason}", error.hint)
            continue
        click.echo(f"{each.origin}: brought forward to size {head.size}")


def _read(file: Path) -> AddCheckpoint:
    try:
        with file.open("rb") as stream:
            return parse_add_checkpoint(stream.read(_MAX_FILE))
    except MalformedSubmission as error:
        raise Failure(f"{file} is no add-checkpoint body: {error.reason}") from error


async def _fetched(behind: Behind) -> list[AddCheckpoint]:
    """What the log's own feeder shows: its checkpoint, with the proofs that are needed."""
    from feeders.fetch import HttpFetch, open_session
    from feeders.kinds import NOT_POLLED, UnknownFeeder, make_source
    from feeders.protocol import BadUrl, FeedError, FeedLog
    from feeders.tools import Tools
    from witness.tlog.checkpoint import MalformedCheckpoint
    from witness.tlog.note import MalformedNote

    record = behind.record
    if record is None:
        raise CannotRecover("it is not configured", "witness logs add it again first, or give it up")
    if record.feeder == NOT_POLLED or record.url is None:
        raise CannotRecover(
            "it is not polled, so that nobody can be asked",
            "have its operator send an add-checkpoint body, and give that with --file; or set a feeder",
        )
    keys = tuple(parse_vkey(text) for text in record.vkeys)
    sizes = [behind.size] + ([behind.head.size] if behind.head else [])
    async with open_session(4) as session:
        fetch = HttpFetch(session, f"tlog-witness/{witness.__version__} (recover)")
        try:
            log = FeedLog(record.origin, keys, record.feeder, record.url, 60.0)
            source = make_source(log, Tools(fetch))
            data = await source.fetch_checkpoint()
            checkpoint = parse_checkpoint(parse_note(data).text)
            bodies = []
            for size in dict.fromkeys(sizes):
                proof: Sequence[bytes] = ()
                if 0 < size < checkpoint.size:
                    proof = await source.fetch_consistency_proof(size, checkpoint)
                bodies.append(parse_add_checkpoint(format_add_checkpoint(size, tuple(proof), data)))
        except (
            FeedError,
            UnknownFeeder,
            BadUrl,
            MalformedNote,
            MalformedCheckpoint,
            MalformedSubmission,
        ) as error:
            raise CannotRecover(f"its server cannot be asked: {error}") from error
        return bodies


def _explain(plan: Plan, *, running: bool) -> None:
    if not plan.alarms:
        click.echo("no alarm stands")
        return
    for alarm in plan.alarms:
        click.echo(f"alarm  {alarm}")
        click.echo(f"       since {when(alarm.raised)}; {MEANING[alarm.kind]}")
    for each in plan.behind:
        have = f"size {each.head.size}" if each.head else "nothing"
        how = (
            "not configured: witness logs add it again first" if each.record is None
            else "witness recover --fast-forward" if each.record.feeder != "none"
            else "witness recover --file BODY (it is not polled)"
        )  # fmt: skip
        click.echo(f"log    {each.origin}: {have} here, to be brought to size {each.size} at least: {how}")
    for line in _ways(plan, running=running):
        click.echo(f"way    {line}")


def _ways(plan: Plan, *, running: bool) -> list[str]:
    """What leads out, a line each."""
    kinds = {alarm.kind for alarm in plan.alarms}
    if plan.for_good and plan.forgotten:
        lost = "without it and the lost database, nothing says what was signed"
        return [f"bring back the high-water record: {lost}; else witness recover --retire, and a new witness"]
    if plan.for_good:
        return ["none for this identity: witness recover --retire, then a new one"]
    found = []
    if plan.behind:
        found.append("bring every log forward, or give it up for good (--give-up ORIGIN)")
    if Kind.DEVICE in kinds:
        found.append(
            "put the right device back, and witness recover --fast-forward settles it; what was wiped does"
            " not come back: witness recover --retire, then witness init makes a new identity"
        )
    if Kind.LOG_KEY in kinds:
        found.append(
            "witness logs keys ORIGIN shows and changes its keys; once they are right,"
            " witness recover --accept-keys ORIGIN"
        )
    if plan.behind or Kind.DEVICE in kinds:
        return found
    if kinds & way.ABOUT_THE_RECORD and not running:
        found.append(
            "no log is behind: witness run, and while it runs witness recover --fast-forward; only a running"
            " witness begins its high-water record anew"
        )
    elif kinds & way.BY_ITSELF:
        found.append("no log is behind: witness recover --fast-forward settles it")
    return found


def _explain_clock(clock: Standstill) -> None:
    if clock.too_long:
        days = (clock.now - clock.issued) // 86400
        click.echo(f"clock  it says {when(clock.now)}; last signed {when(clock.issued)}, {days} days before")
        click.echo(
            "       a clock that is ahead would sign with a time from the future, and nothing after it before"
            " that time has come"
        )
        click.echo("way    if it is right, witness recover --accept-clock; else set it")


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "alarms": [_alarm(alarm) for alarm in plan.alarms],
        "behind": [
            {"origin": each.origin, "have": each.head.size if each.head else None, "seen": each.size,
             "source": each.source, "configured": each.record is not None}
            for each in plan.behind
        ],
    }  # fmt: skip


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {
        "kind": alarm.kind,
        "origin": alarm.origin or None,
        "raised": alarm.raised,
        "have": alarm.have,
        "seen": alarm.seen,
        "source": alarm.source,
        "detail": alarm.detail,
        "meaning": MEANING[alarm.kind],
    }
