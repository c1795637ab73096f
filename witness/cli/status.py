"""`witness status`: what is healthy."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import click

from feeders.poll import Status
from witness.cli.agreement import check_keys, open_to_others
from witness.cli.config import Config
from witness.cli.errors import Failure, Foreseen, TheAnswerIsNo, foreseen, one_line
from witness.cli.generations import known, signing
from witness.cli.logs import json_option
from witness.cli.output import plural, when
from witness.cli.pulling import alarms
from witness.cli.running import core_status, front_status
from witness.cli.state import existing, pass_layout, read_config
from witness.core.keystore import keyring
from witness.core.keystore.base import KeystoreError
from witness.core.layout import StateLayout
from witness.core.store.base import StoreError
from witness.core.store.logs import LogBook
from witness.core.wire import CoreStatus
from witness.tlog.note import parse_note
from witness.tlog.record_head import parse_record_head

NO_TROUBLE: Final = frozenset({Status.WAITING, Status.NOT_POLLED, Status.UNKNOWN_FEEDER, Status.CURRENT})
"""Feeder states that are counted only; any other is worth a line of its own."""
_MOST_FEEDERS: Final = 20


@click.command()
@json_option
@pass_layout
def status(layout: StateLayout, *, as_json: bool) -> None:
    """Tell what is healthy: exit code 0 ready, 1 running but not ready, 3 not running."""
    existing(layout)
    core, front = core_status(layout), front_status(layout)
    facts = _facts(layout, core, front)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for line in _lines(facts):
            click.echo(line)
    # The front too: without it nobody reaches the core.
    if core is None and front is None:
        raise Failure("the witness is not running", "witness run starts it")
    if not facts["ready"]:
        raise TheAnswerIsNo("the witness is not ready", "the lines above say why")


def _facts(layout: StateLayout, core: CoreStatus | None, front: dict[str, Any] | None) -> dict[str, Any]:
    problems: list[str] = []
    config = _of_config(layout, problems)
    keys = _of_keys(layout, problems)
    logs = _of_database(layout, problems)
    running = core is not None or front is not None
    if running and core is None:
        problems.append("the core does not answer")
    if running and front is None:
        problems.append("the front does not answer")
    if front is not None and (trouble := (front.get("feeding") or {}).get("problem")):
        problems.append(f"the feeders do not answer, and no log is polled: {trouble}")
    return {
        "state": str(layout.root),
        "running": running,
        "ready": core is not None and core.ready and front is not None,
        "problems": problems + list(core.reasons if core else ()),
        "warnings": [
            *(core.warnings if core else ()),
            *open_to_others(layout, config),
            *alarms(layout),
        ],
        "keys": keys,
        "logs": logs,
        "core": dataclasses.asdict(core) if core else None,
        "front": front,
    }


def _of_config(layout: StateLayout, problems: list[str]) -> Config | None:
    """The configuration as the next start would find it; a running witness goes on with the one it read."""
    try:
        config = read_config(layout)
    except (Failure, OSError) as error:
        problems.append(f"{_told(error)}; witness run will not start with it")
        return None
    try:
        check_keys(layout, config)
    except Failure as error:
        problems.append(f"{_told(error)}; witness run will not start with it")
    except KeystoreError:  # told as what is wrong with the keys
        pass
    return config


def _of_keys(layout: StateLayout, problems: list[str]) -> dict[str, Any] | None:
    try:
        public = signing(layout)
        sealed = keyring.sealed(layout, public)
    except KeystoreError as error:
        problems.append(_told(error))
        return None
    vkeys = [str(vkey) for vkey in public.vkeys]
    return {
        "name": public.name,
        "vkeys": vkeys,
        "sealed": sealed,
        "rotation": "; ".join(known(layout).describe()),
    }


def _of_database(layout: StateLayout, problems: list[str]) -> dict[str, Any] | None:
    total = disabled = cosigned = latest = 0
    try:
        with LogBook(layout.database) as book:
            for record, head in book.all():
                total += 1
                disabled += record.disabled
                if head is not None:
                    cosigned += 1
                    latest = max(latest, head.timestamp)
    except StoreError as error:
        problems.append(_told(error))
        return None
    return {"configured": total, "disabled": disabled, "cosigned": cosigned, "latest": latest or None}


def _told(error: Foreseen) -> str:
    failure = foreseen(error)
    return f"{failure.reason} ({failure.hint})" if failure.hint else failure.reason


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    keys, logs, core, front = facts["keys"], facts["logs"], facts["core"], facts["front"]
    state = "ready" if facts["ready"] else "not ready" if facts["running"] else "not running"
    yield f"witness   {keys['name'] if keys else '?'}: {state}"
    yield f"state     {facts['state']}"
    for problem in facts["problems"]:
        yield f"problem   {one_line(problem)}"
    for warning in facts["warnings"]:
        yield f"warning   {one_line(warning)}"
    if core:
        yield from _core_lines(core)
    elif keys:
        for vkey in keys["vkeys"]:
            how = {True: "sealed", False: "not sealed", None: "in a device"}[keys["sealed"]]
            yield f"key       {_short(vkey)} {how}"
        if keys["rotation"]:
            yield f"rotation  {keys['rotation']}"
    if logs:
        disabled = f" ({logs['disabled']} disabled)" if logs["disabled"] else ""
        yield (
            f"logs      {logs['configured']} configured{disabled}, {logs['cosigned']} cosigned,"
            f" the latest at {when(logs['latest'])}"
        )
    if front:
        yield from _front_lines(front)


def _core_lines(core: dict[str, Any]) -> Iterator[str]:
    up = max(0, int(time.time() - core["started"]))
    again = core["restarts"] + core["hung"]
    silent = f", {core['hung']} of them because it did not answer" if core["hung"] else ""
    anew = f", started anew {plural(again, 'time', 'times')}{silent}" if again else ""
    yield f"core      process {core['pid']}, up {_duration(up)}, version {core['version']}{anew}"
    yield from _lockdown_lines("core", core["lockdown"])
    for key in core["keys"]:
        rate = f", {key['rate']:g} signatures a second" if key["rate"] else ""
        detail = f" ({key['detail']}{rate})" if key["detail"] else ""
        yield f"key       {_short(key['vkey'])} {key['algorithm']} {key['state']}{detail}"
    refused = ", ".join(f"{code} {count}" for code, count in sorted(core["refusals"].items()) if count)
    commits = plural(core["commits"], "commit", "commits")
    yield f"work      {core['accepted']} accepted in {commits}; refused: {refused or 'none'}"
    if core["rotation"]:
        yield f"rotation  {one_line(core['rotation'])}"
    if core["contradictions"]:
        yield f"evidence  {plural(core['contradictions'], 'contradiction', 'contradictions')} by logs is kept"
    for alarm in core["alarms"]:
        yield f"alarm     {one_line(alarm)}"
    if core["counter"]:
        yield f"counter   {_counter(core['counter'])}"
    if core["audit"]:
        number, digest = core["audit"].split()
        yield f"record    entry {number}, {digest}"
    if core["attested_head"]:
        yield f"attested  {_attested(core['attested_head'])}"


def _counter(told: str) -> str:
    """The rollback counter's line, with the time of its last move as people read it."""
    what, moved, seconds = told.rpartition(", moved ")
    return f"{one_line(what)}, moved {when(int(seconds))}" if moved else one_line(told)


def _front_lines(front: dict[str, Any]) -> Iterator[str]:
    process = front.get("front") or {}
    listening = ", ".join(process.get("listening") or ())
    yield f"front     process {process.get('pid')}, {listening}"
    yield from _lockdown_lines("front", process.get("lockdown") or ())
    feeding, feeders = front.get("feeding") or {}, front.get("feeders") or {}
    if "pid" in feeding:
        yield f"polling   process {feeding['pid']}"
        yield from _lockdown_lines("feeders", feeding.get("lockdown") or ())
    if feeders:
        counts = Counter(str(state.get("status")) for state in feeders.values())
        yield f"feeders   {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}"
    troubled = [(origin, state) for origin, state in feeders.items() if state.get("status") not in NO_TROUBLE]
    for origin, state in troubled[:_MOST_FEEDERS]:
        yield f"          {one_line(origin)}: {state['status']}: {one_line(str(state.get('last_error')))}"
    if len(troubled) > _MOST_FEEDERS:
        yield f"          and {len(troubled) - _MOST_FEEDERS} more; --json has them all"
    for target in front.get("publishers") or ():
        trouble = f"; {one_line(str(target['last_error']))}" if target["consecutive_failures"] else ""
        yield (
            f"publisher {one_line(target['name'])}: {target['published']} published,"
            f" {target['pending']} waiting, {target['rejected']} rejected{trouble}"
        )


def _lockdown_lines(process: str, steps: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """What a process has given up, in one line, and what it has not, each with its reason."""
    states: dict[str, list[str]] = {}
    for step in steps:
        states.setdefault(step["state"], []).append(step["name"])
    if states:
        told = "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
        yield f"lockdown  {process} {told}"
    for step in steps:
        if step["state"] == "unavailable":
            yield f"          {process} {step['name']}: {one_line(step['detail'])}"


def _attested(note: str) -> str:
    """The attested head, short: `witness audit head` prints it whole."""
    parsed = parse_note(note.encode())
    head, by = parse_record_head(parsed.text), parsed.signatures[0]
    return f"entry {head.number} at {when(head.time)} by {by.name}"


def _short(vkey: str) -> str:
    """A vkey without its key material, whose base64 may hold plus signs of its own."""
    return "+".join(vkey.split("+")[:2])


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
