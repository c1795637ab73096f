"""`witness feed`: brings checkpoints of logs that do not push to any witnesses in the world."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

import witness
from feeders.cache import TileCache
from feeders.feeding import Answer, Feed
from feeders.fetch import HttpFetch, open_session
from feeders.hosts import HostLimits
from feeders.kinds import NOT_POLLED, UnknownFeeder, make_source
from feeders.protocol import BadUrl, FeedLog
from feeders.states import Status
from feeders.tools import Tools
from feeders.witness_client import WitnessClient
from witness.cli.config import wrong_url
from witness.cli.errors import NO, WORLD, Failure, WrongUsage, one_line, say_warning
from witness.cli.log_lists import BadList, parse
from witness.cli.output import tell_skipped
from witness.cli.state import existing, pass_layout
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook
from witness.tlog.note import parse_vkey

REFRESH: Final = 600.0
"""Seconds after which an unchanged checkpoint is sent again, for a cosignature with a fresh timestamp."""
_CONNECTIONS: Final = 256
_ROUNDS_AT_ONCE: Final = 64
_JITTER: Final = 0.1
_USER_AGENT: Final = f"tlog-witness/{witness.__version__} (feed)"


@click.command()
@click.argument("origins", metavar="[ORIGIN]…", nargs=-1)
@click.option(
    "--to", "urls", metavar="URL", multiple=True, required=True, help="A witness to feed (repeatable)."
)
@click.option(
    "--logs",
    "file",
    type=click.Path(path_type=Path),
    help="A list with the logs, instead of the state's own.",
)
@click.option("--once", is_flag=True, help="One round; exit code 0 if every witness cosigned every log.")
@click.option(
    "--interval", metavar="SECONDS", type=click.FloatRange(1, 86400), default=60.0, show_default=True,
    help="Time between two rounds of a log that names no interval of its own.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@pass_layout
def feed(  # noqa: PLR0917 - click hands over the options
    layout: StateLayout,
    origins: tuple[str, ...],
    urls: tuple[str, ...],
    file: Path | None,
    once: bool,  # noqa: FBT001
    interval: float,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Bring the logs' latest checkpoints to other witnesses, until Ctrl-C.

    The logs are those that the state polls, or those of a list; ORIGINs choose among them. Each witness's
    answer is one line.
    """
    for url in urls:
        wrong = wrong_url(url)
        if wrong:
            raise WrongUsage(f"--to {url!r}: {wrong}")
    logs = _chosen(_of_list(file, interval) if file else _of_state(layout, interval), origins)
    feeder = _Feeder(logs, tuple(dict.fromkeys(urls)), once=once, as_json=as_json)
    code = asyncio.run(feeder.run())
    if code:
        raise SystemExit(code)


def _of_list(file: Path, interval: float) -> list[FeedLog]:
    try:
        listed, skipped = parse(file.read_bytes())
    except BadList as error:
        raise Failure(f"{file}: {error.reason}") from error
    tell_skipped(skipped)
    return [
        FeedLog(
            log.origin, log.vkeys, log.settings.feeder, log.settings.url, log.settings.interval or interval
        )
        for log in listed
        if log.settings.feeder not in (None, NOT_POLLED) and log.settings.url and not log.settings.disabled
    ]


def _of_state(layout: StateLayout, interval: float) -> list[FeedLog]:
    with LogBook(existing(layout).database) as book:
        return [
            FeedLog(
                log.origin,
                tuple(parse_vkey(vkey) for vkey in log.vkeys),
                log.feeder,
                log.url,
                log.interval or interval,
            )
            for log, _ in book.all()
            if log.feeder != NOT_POLLED and log.url is not None and not log.disabled
        ]


def _chosen(logs: list[FeedLog], origins: Sequence[str]) -> list[FeedLog]:
    known = {log.origin: log for log in logs}
    for origin in origins:
        if origin not in known:
            raise WrongUsage(f"no log that can be polled has the origin {origin!r}", "witness logs list")
    chosen = [known[origin] for origin in dict.fromkeys(origins)] if origins else logs
    if not chosen:
        raise WrongUsage(
            "there is no log that can be polled", "witness logs add --feeder KIND --url URL, or --logs"
        )
    return chosen


class _Feeder:
    """The rounds of all logs.

    Args:
        logs: which.
        urls: the witnesses' submission prefixes.
        once: one round each, and an end.
        as_json: how answers are told.
    """

    def __init__(self, logs: Sequence[FeedLog], urls: Sequence[str], *, once: bool, as_json: bool) -> None:
        self._logs = logs
        self._urls = urls
        self._once = once
        self._as_json = as_json
        self._code = 0
        self._slots = asyncio.Semaphore(_ROUNDS_AT_ONCE)

    async def run(self) -> int:
        """Feeds; returns the exit code."""
        async with open_session(_CONNECTIONS) as session:
            fetch = HttpFetch(session, _USER_AGENT, limits=HostLimits())
            tools = Tools(fetch, fetch.latest, TileCache())
            async with asyncio.TaskGroup() as group:
                for log in self._logs:
                    try:
                        source = make_source(log, tools)
                    except (UnknownFeeder, BadUrl) as error:
                        say_warning(f"not fed: {log.origin}: {error}")
                        self._code = WORLD
                        continue
                    witnesses = [WitnessClient(session, url, _USER_AGENT) for url in self._urls]
                    each = Feed(log, source, witnesses, now=time.time, refresh=REFRESH)
                    group.create_task(self._follow(each), name=f"feed {log.origin}")
        return self._code

    async def _follow(self, each: Feed) -> None:
        rng = random.Random()  # noqa: S311 - jitter, not cryptography
        if not self._once and len(self._logs) > 1:
            await asyncio.sleep(rng.uniform(0, min(each.log.interval, len(self._logs) / 100)))
        while True:
            async with self._slots:
                answers = await each.round()
            for answer in answers:
                self._tell(answer)
            if self._once:
                return
            await asyncio.sleep(each.log.interval * rng.uniform(1 - _JITTER, 1 + _JITTER))

    def _tell(self, answer: Answer) -> None:
        signers = [f"{each.name}+{each.key_id.hex()}" for each in answer.signatures]
        if answer.status is not Status.CURRENT:
            failed = answer.status in (Status.UNREACHABLE, Status.TOO_SLOW, Status.WITNESS_UNAVAILABLE)
            self._code = max(self._code, WORLD if failed else NO)
        elif not signers:
            return  # unchanged, and cosigned not long ago
        if self._as_json:
            facts = {
                "time": int(time.time()),
                "origin": answer.origin,
                "witness": answer.witness,
                "status": answer.status,
                "size": answer.size,
                "cosigners": signers,
                "reason": answer.reason,
            }
            click.echo(json.dumps(facts, ensure_ascii=False))
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        said = (
            f"cosigned by {', '.join(signers)}" if signers else f"{answer.status}: {one_line(answer.reason)}"
        )
        click.echo(
            f"{stamp}  {one_line(answer.origin)}  size {answer.size}  {answer.witness}  {one_line(said)}"
        )
