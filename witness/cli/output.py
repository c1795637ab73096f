"""What commands print, where several print the same."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import click

from witness.cli.errors import one_line, say_warning
from witness.cli.importing import Imported
from witness.cli.log_lists import Skipped

MOST_LINES: Final = 50
"""Warnings of one kind that are shown one by one; a list of 44,000 wrong entries would drown the rest."""


def tell_skipped(skipped: Sequence[Skipped]) -> None:
    """Warns of entries of a list that were left out."""
    _warn(
        (f"line {each.line}: {each.reason}" if each.line else each.reason for each in skipped),
        len(skipped),
        "skipped",
    )


def tell_import(imported: Imported) -> None:
    """Warns of what an import did not take."""
    _warn(
        (
            f"{each.origin}: the list shows another key, {each.vkey}; the log is kept as it is"
            " (witness logs add adds a key by hand)"
            for each in imported.changed
        ),
        len(imported.changed),
        "changed key",
    )
    _warn(
        (f"{each.origin}: {each.reason}" for each in imported.refused),
        len(imported.refused),
        "skipped",
    )


def _warn(reasons: Iterable[str], count: int, label: str) -> None:
    for number, reason in enumerate(reasons):
        if number == MOST_LINES:
            say_warning(f"{label}: and {count - MOST_LINES} more")
            return
        say_warning(f"{label}: {reason}")


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> None:
    """Prints rows in columns, the last one ragged."""
    cells = [tuple(one_line(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in (head, *cells)) for column in range(len(head))]
    for row in (head, *cells):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def when(timestamp: float | None) -> str:
    """A time as people read it, in UTC; a dash for none."""
    if not timestamp:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(timestamp))


def plural(count: int, one: str, many: str) -> str:
    """`1 log`, `2 logs`."""
    return f"{count} {one if count == 1 else many}"
