"""`witness monitor`: follows a log and hands its entries on."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from witness.cli.errors import TheAnswerIsNo, WrongUsage, say_warning
from witness.cli.trusting import log_options, read_asked

if TYPE_CHECKING:
    from witness.reading.following import Follower, Settings
    from witness.reading.handing import HandOver

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_MOST_DIGITS: Final = 18  # below 2^63


@click.command()
@log_options
@click.option(
    "--place",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where it is kept how far the log was followed.",
)
@click.option(
    "--from",
    "begin",
    metavar="start|now|N",
    help="Where to begin while DIR holds no place; needed only then, and ignored later.",
)
@click.option("--exec", "command", metavar="COMMAND", help="Run for each entry, which is its standard input.")
@click.option(
    "--exec-timeout",
    type=click.FloatRange(min=0.1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the command may run for one entry.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A file of JSON lines instead of standard output.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks at the log.",
)
@click.option(
    "--hold",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a busy log's unfilled bundle is left alone.",
)
@click.option("--once", is_flag=True, help="Look once, hand over what is new, and end.")
def monitor(
    *,
    folder: Path,
    begin: str | None,
    command: str | None,
    exec_timeout: float,
    output: Path | None,
    interval: float,
    hold: float,
    once: bool,
    **asked: Any,
) -> None:
    """Follow a log: check all of it, and hand its entries on.

    Every checkpoint must be signed, witnessed as the policy wants, and an extension of the one before; every
    entry must be in its tree. Entries go in order to --exec, or as JSON lines to standard output or --output,
    each at least once; in --output exactly once. A fork ends it with exit code 1 and evidence in DIR.
    """
    from witness.cli.reading import answers, world
    from witness.reading.following import Follower
    from witness.reading.heads import Trust
    from witness.reading.place import PlaceFolder
    from witness.reading.tailing import Told, tail

    given = read_asked(**asked)
    place = PlaceFolder(folder)
    settings = _settings(begin, 0.0 if once else hold)
    hand_over = _hand_over(command, exec_timeout, output)

    async def follow() -> None:
        told = Told(say_warning)
        async with world(given, "monitor", submit=False) as opened:
            follower = Follower(
                opened.reader,
                Trust(given.options),
                opened.sources,
                place,
                hand_over,
                settings=settings,
                tell=told,
            )
            if once:
                await _look(follower)
            else:
                await tail(follower, _stop_on_signals(), interval, told)

    with answers(), place.locked():
        if begin is None and place.load() is None:
            raise WrongUsage(
                f"{folder} holds no place yet", "say where to begin: --from start, now or an index"
            )
        asyncio.run(follow())


async def _look(follower: Follower) -> None:
    stop = _stop_on_signals()
    turn = await follower.turn(stop.is_set)
    if turn.why_not:
        raise TheAnswerIsNo(turn.why_not)


def _stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM or SIGINT. A second one ends the program as if nobody had asked for the first."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    return stop


def _settings(begin: str | None, hold: float) -> Settings:
    from witness.reading.following import NOW, START, Settings

    named = {None: START, "start": START, "now": NOW}
    if begin in named:
        return Settings(named[begin], hold)
    if begin is None or not begin.isascii() or not begin.isdigit() or len(begin) > _MOST_DIGITS:
        raise WrongUsage(f"--from {begin}: not start, now or an index")
    return Settings(int(begin), hold)


def _hand_over(command: str | None, timeout: float, output: Path | None) -> HandOver:
    from witness.reading.handing import CommandHandOver, FileHandOver, LinesHandOver

    if command is not None and output is not None:
        raise WrongUsage("--exec and --output exclude each other")
    if output is not None:
        return FileHandOver(output)
    if command is None:
        return LinesHandOver(sys.stdout.buffer)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise WrongUsage(f"--exec: {error}") from error
    if not words:
        raise WrongUsage("--exec: no command")
    return CommandHandOver(words, os.environ, timeout)
