"""`python -m witness.core`: the core process.

Its standard input brings one line, the settings (`CoreSettings.to_json`), and then stays open as its life
line: at end of file whoever started it is gone, and the core ends too. Its standard output carries one line,
`{"ready": true}` or `{"error": …, "hint": …}`; its log goes to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import sys
from pathlib import Path

import uvloop

from witness.core.layout import StateLayout
from witness.core.lockdown.sequence import CoreLockdown
from witness.core.process import FORESEEN, install_signals, serve
from witness.core.settings import BadSettings, CoreSettings


def main() -> int:
    """Runs the core; returns the process's exit status."""
    try:
        settings = CoreSettings.from_json(sys.stdin.readline())
    except BadSettings as error:
        return _fail(error)
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    lockdown = CoreLockdown(
        settings.lockdown, StateLayout(Path(settings.state_dir)), front=settings.front_account
    )
    lockdown.begin()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, lockdown))
    except sqlite3.Error as error:
        return _say_failure(
            f"the database cannot be used: {error}", "restore it from a backup: docs/backups.md"
        )
    except PermissionError as error:
        return _say_failure(
            f"{error.strerror}: {error.filename}",
            "the state folder belongs to another user: run as that user",
        )
    except FORESEEN as error:
        return _fail(error)
    return 0


async def _run(settings: CoreSettings, lockdown: CoreLockdown) -> None:
    stop = asyncio.Event()
    install_signals(stop)
    # Descriptor 0 is read to its end and no further: no byte after the settings means anything.
    asyncio.get_running_loop().add_reader(0, _life_line, stop)
    await serve(settings, lambda: _say({"ready": True}), stop, lockdown)


def _life_line(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stop.set()


def _fail(error: BaseException) -> int:
    return _say_failure(str(error) or type(error).__name__, getattr(error, "hint", ""))


def _say_failure(reason: str, hint: str) -> int:
    _say({"error": reason, "hint": hint})
    return 3


def _say(line: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)  # noqa: T201 - this line is the interface to whoever started us


if __name__ == "__main__":
    sys.exit(main())
