"""Reading lists of logs again and again. They only ever add.

Whose rights: which logs are trusted stands in the database, which the front cannot reach and no verb of the
core's changes. So neither of the two pulls lists. `python -m witness.cli.pulling FOLDER URL` does, a short
process of its own that `witness run` starts on schedule, with an operator's rights to the database and
without any key; and it leaves the network to another process (`witness.cli.list_fetch`), from which it takes
bytes. See docs/decisions.

What the last reading of each list met is kept in `lists.json` in the state folder, for `witness status`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from witness.cli.child import python
from witness.cli.errors import FORESEEN, Failure, foreseen, one_line, say_error
from witness.cli.importing import ChangedKey, Imported, import_logs
from witness.cli.lockdown import Lockdowns
from witness.cli.log_lists import MAX_LIST, BadList, ListedLog, Skipped, parse
from witness.cli.output import tell_import, tell_skipped
from witness.core.layout import StateLayout
from witness.core.lockdown.adding import AddingLockdown
from witness.core.lockdown.steps import RequirementUnmet
from witness.core.store.logs import LogBook

_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "HOME", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What the process that fetches may see of our environment: no passphrase."""
_PATIENCE: Final = 150.0
"""Seconds for the process that fetches, which has a deadline of its own."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the last reading of a list met: what `lists.json` holds. Times are POSIX seconds."""

    url: str
    tried: int
    read: int | None = None
    error: str = ""
    logs: int = 0
    added: int = 0
    skipped: int = 0
    changed: tuple[ChangedKey, ...] = ()


def fetched(url: str, lockdown: str | None = None) -> bytes:
    """The list at a URL, through a process of its own.

    Args:
        url: where it is.
        lockdown: what that process gives up, as `list_fetch` is told; None where an operator asks.

    Raises:
        Failure: it could not be had.
    """
    command = [*python("witness.cli.list_fetch"), url, *([lockdown] if lockdown is not None else [])]
    environ = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with subprocess.Popen(  # noqa: S603 - our own module; the URL is one argument, and no option of it
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as child:
        try:
            body, said = child.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise Failure(f"{url}: no answer within {_PATIENCE:g} s") from error
    if child.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise Failure(f"{url}: {one_line(lines[-1]) if lines else 'the fetching process ended'}")
    if len(body) > MAX_LIST:
        raise Failure(f"{url}: longer than {MAX_LIST} bytes")
    return body


def read_list(url: str, body: bytes) -> tuple[list[ListedLog], list[Skipped]]:
    """The entries of a fetched list, and those that were left out.

    Raises:
        Failure: it is no list of logs.
    """
    try:
        return parse(body)
    except BadList as error:
        raise Failure(f"{url}: {error.reason}") from error


def pull(
    layout: StateLayout,
    url: str,
    *,
    now: Callable[[], float] = time.time,
    locked: Lockdowns | None = None,
) -> Imported:
    """Reads a list and adds what is new; what it met is told on stderr and kept.

    Args:
        layout: the state folder.
        url: where the list is.
        now: POSIX seconds.
        locked: what this process and the one that fetches give up, for good, on the way; None where an
            operator asks for the list.

    Raises:
        Failure: the list could not be had, or is none. That is kept too.
        RequirementUnmet: a step of the lock-down that must be done cannot be.
    """
    began = int(now())
    mine = AddingLockdown(locked.core, layout) if locked is not None else None
    try:
        try:
            body = fetched(url, _told_fetching(layout, locked))
        finally:
            if mine is not None:
                mine.begin()
        with LogBook(layout.database) as book:
            if mine is not None:  # the database is open, and nothing that was fetched has been looked at
                _scratch(layout).touch()
                mine.finish((_file(layout), _scratch(layout)))
            listed, skipped = read_list(url, body)
            imported = import_logs(book, listed, source=f"list {url}", now=began)
    except Failure as failure:
        before = readings(layout).get(url, Reading(url, began))
        keep(layout, replace(before, tried=began, error=failure.reason))
        raise
    tell_skipped(skipped)
    tell_import(imported)
    left_out = len(skipped) + len(imported.refused)
    reading = Reading(url, began, began, "", len(listed), len(imported.added), left_out, imported.changed)
    keep(layout, reading)
    return imported


# --- lists.json ---


def readings(layout: StateLayout) -> dict[str, Reading]:
    """The last reading of each list, by URL; empty where nothing is kept or it cannot be understood."""
    try:
        kept = json.loads(_file(layout).read_bytes())
        return {url: _reading(fields) for url, fields in kept.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _reading(fields: dict[str, Any]) -> Reading:
    return Reading(**{**fields, "changed": tuple(ChangedKey(**each) for each in fields["changed"])})


def keep(layout: StateLayout, reading: Reading) -> None:
    """Writes a reading beside those of the other lists, whole or not at all."""
    kept = readings(layout) | {reading.url: reading}
    scratch = _scratch(layout)
    scratch.write_text(json.dumps({url: asdict(each) for url, each in kept.items()}, indent=1))
    scratch.replace(_file(layout))


def alarms(layout: StateLayout) -> list[str]:
    """What an operator must look at: keys that changed, and lists that cannot be read. One line each."""
    said = []
    for each in readings(layout).values():
        said += [
            f"the list {each.url} shows another key for {key.origin}, {key.vkey}: nothing was changed;"
            " witness logs add adds a key by hand"
            for key in each.changed
        ]
        if each.error:
            said.append(f"the list {each.url} was not read at the last try: {each.error}")
    return said


def _file(layout: StateLayout) -> Path:
    return layout.root / "lists.json"


def _scratch(layout: StateLayout) -> Path:
    """Where this process builds the next `lists.json`; another process may be pulling another list."""
    return layout.root / f"lists.{os.getpid()}.tmp"


def _told_fetching(layout: StateLayout, locked: Lockdowns | None) -> str | None:
    if locked is None:
        return None
    return json.dumps({"state": str(layout.root), "lockdown": asdict(locked.front)})


def main() -> int:
    """Pulls one list into a state folder; returns the process's exit status."""
    folder, url, lockdown = sys.argv[1:]
    layout = StateLayout(Path(folder))
    try:
        pull(layout, url, locked=Lockdowns.from_json(lockdown))
    except RequirementUnmet as error:
        say_error(str(error), error.hint)
        return 3
    except FORESEEN as error:
        failure = foreseen(error)
        say_error(failure.reason, failure.hint)
        return 3
    finally:
        with suppress(OSError):
            _scratch(layout).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
