"""What the writer thread does: one transaction for all that was judged meanwhile, and reading what changed.

Both run on one thread, so that no commit of ours falls between reading what others changed and applying it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from witness.core.request import Request
from witness.core.store.base import Head, LogRecord, Store


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a batch, once it is on disk.

    Attributes:
        outcome: for each request True, or the head that stands on disk instead of what was to be stored.
        contradictions: how many were kept that were not known before.
        seconds: how long it took.
    """

    outcome: list[bool | Head | None]
    contradictions: int
    seconds: float


def commit(store: Store, batch: list[Request]) -> Committed:
    """Makes a batch durable: returns after COMMIT, and not before.

    Raises:
        StoreBroken: nothing of it may be released.
    """
    began = time.perf_counter()
    kept = 0
    for request in batch:
        if request.contradiction is not None:
            kept += store.keep_contradiction(request.contradiction)
    moves = [request.move for request in batch if request.move is not None]
    made = iter(store.advance(moves) if moves else ())
    outcome: list[bool | Head | None] = []
    for request in batch:
        if request.move is None or next(made):
            outcome.append(True)
        else:
            outcome.append(store.head(request.log.log_id))
    return Committed(outcome, kept, time.perf_counter() - began)


def read_changes(store: Store, since: int, *, failing: bool) -> list[tuple[LogRecord, Head | None]]:
    """What the command line changed in the store after change number `since`.

    Args:
        store: ours.
        since: what `LogBook.change` says.
        failing: the last commit failed. Nobody may ask until we say that we are ready again, so it is tried
            without being asked.

    Raises:
        StoreBroken: it cannot be read, or still not be written.
    """
    if failing:
        store.try_write()
    return list(store.load(since)) if store.changed() else []
