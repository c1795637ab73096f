"""The entry point of the `witness` command: ready to be told to end before anything else is loaded.

Loading takes some tenths of a second, more on a small or busy machine. `witness run` that is asked to end in
that time has nothing to finish, and ends as it would later: with exit code 0, and not as if it had failed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks the daemon to end."""


def main(**options: Any) -> NoReturn:
    """Runs the command line and exits."""
    if _is_daemon(sys.argv[1:]):
        for number in SIGNALS:
            signal.signal(number, _end_now)  # the supervisor puts its own in their place

    from witness.cli.main import main as commands

    commands(**options)
    raise AssertionError("a command line exits")


def _is_daemon(arguments: Sequence[str]) -> bool:
    """Whether the command is `run`: the first argument that is neither an option nor one's value."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--state":
            next(rest, None)
        elif not argument.startswith("-"):
            return argument == "run"
    return False


def _end_now(_number: int, _frame: object) -> NoReturn:
    # An exception could be caught by whatever is being loaded. Nothing is open and no child runs yet.
    os._exit(0)
