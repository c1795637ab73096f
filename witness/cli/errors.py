"""How a command fails: one `error:` line on stderr, a `hint:` line where there is something to do, a code.

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 the world failed. A fault that can be foreseen never shows
a traceback; one that cannot is a bug, and shows its own.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import Any, Final, NoReturn

import click

from witness.core.keystore.base import KeystoreError
from witness.core.refusals import CoreError
from witness.core.store.base import StoreError

NO: Final = 1
USAGE: Final = 2
WORLD: Final = 3


class Failure(Exception):
    """A command that cannot do what was asked.

    Attributes:
        reason: what is wrong, one plain line.
        hint: what to do about it, one line; empty where there is nothing to do.
        code: the exit code: `NO`, `USAGE` or `WORLD`.
    """

    def __init__(self, reason: str, hint: str = "", *, code: int = WORLD) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code


class TheAnswerIsNo(Failure):
    """The question was understood and answered: no (exit code 1)."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint, code=NO)


class WrongUsage(Failure):
    """The command was not called as it must be (exit code 2)."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint, code=USAGE)


Foreseen = Failure | StoreError | KeystoreError | CoreError | OSError | sqlite3.Error
"""Faults of the world, and of those who use it. Any other exception is a bug."""
FORESEEN: Final = (Failure, StoreError, KeystoreError, CoreError, OSError, sqlite3.Error)
"""The same, for `except`."""


def say_error(reason: str, hint: str = "") -> None:
    """Writes the `error:` line and the `hint:` line to stderr."""
    click.echo(f"error: {one_line(reason)}", err=True)
    if hint:
        click.echo(f"hint: {one_line(hint)}", err=True)


def say_warning(reason: str) -> None:
    """Writes a `warning:` line to stderr: worth an operator's eye, and no failure."""
    click.echo(f"warning: {one_line(reason)}", err=True)


def one_line(text: str) -> str:
    """What others wrote, made fit for one line of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class Commands(click.Group):
    """A group whose `main` turns every foreseeable fault into its lines and exit code."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Runs the command line and exits; see `click.BaseCommand.main`."""
        options["standalone_mode"] = False
        raise SystemExit(self._run(args, options))

    def _run(self, args: tuple[Any, ...], options: dict[str, Any]) -> int:
        failure: Failure
        try:
            answer = super().main(*args, **options)
        except click.exceptions.NoArgsIsHelpError as asked:
            click.echo(asked.format_message() + "\n", err=True)
            path = asked.ctx.command_path if asked.ctx else "witness"
            failure = WrongUsage("a command is missing", f"name one of those above: {path} COMMAND")
        except BrokenPipeError:
            return WORLD  # whoever read our output has gone; there is nobody to tell
        except (click.ClickException, click.Abort, KeyboardInterrupt) as error:
            failure = _of_click(error)
        except FORESEEN as error:
            failure = foreseen(error)
        else:
            return answer if isinstance(answer, int) else 0
        say_error(failure.reason, failure.hint)
        return failure.code


def _of_click(error: click.ClickException | click.Abort | KeyboardInterrupt) -> Failure:
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "witness"
            return WrongUsage(error.format_message(), f"{path} --help shows how it is called")
        case click.ClickException():
            return Failure(error.format_message())
        case _:
            return Failure("interrupted")


def foreseen(error: Foreseen) -> Failure:
    """What to tell about a fault of the world that no command handled itself."""
    match error:
        case Failure():
            return error
        case StoreError() | KeystoreError():
            return Failure(error.reason, error.hint)
        case sqlite3.Error():
            return _database_failure(error)
        case OSError():
            return _system_failure(error)
        case _:
            return Failure(str(error))


def _system_failure(error: OSError) -> Failure:
    reason = f"{_where(error)}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        return Failure(reason, "run it as the user that owns the state folder")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(reason, "free some space; nothing was changed")
    return Failure(reason)


def _where(error: OSError) -> str:
    return str(error.filename) if error.filename is not None else type(error).__name__


def _database_failure(error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        hint = "run it as the user that owns the state folder"
    elif code == sqlite3.SQLITE_FULL:
        hint = "free some space; nothing was changed"
    elif code == sqlite3.SQLITE_BUSY:
        hint = "another process holds the database; try again"
    else:
        hint = ""
    return Failure(f"the database: {error}", hint)
