"""One add-checkpoint request on its way through the core, and how many there may be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from witness.core.refusals import CoreError
from witness.core.store.base import Advance, Contradiction, Head
from witness.tlog.submission import AddCheckpoint

if TYPE_CHECKING:
    from witness.core.book import LogState

Answer = bytes | CoreError
Respond = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once.

    Attributes:
        max_batch: requests in one transaction, at most. 1 is one commit a request, for comparison.
        max_pending: add-checkpoint requests inside, at most; more are shed with `Overloaded`.
        judge_threads: threads that check and sign.
        signing_budget: seconds that a request may wait for keys in devices; more requests are shed.
    """

    max_batch: int = 256
    max_pending: int = 2048
    judge_threads: int = 2
    signing_budget: float = 1.0


@dataclass(slots=True)
class Stages:
    """Seconds spent in all, and what they were spent on. Only for the operator's eyes."""

    queue: float = 0.0
    judge: float = 0.0
    commit: float = 0.0


class Request:
    """One add-checkpoint request on its way through."""

    __slots__ = (
        "admitted", "arrived", "contradiction", "error", "judged", "keys", "log", "move", "respond",
        "submission",
    )  # fmt: skip

    def __init__(self, submission: AddCheckpoint, log_state: LogState, respond: Respond) -> None:
        self.submission = submission
        self.log = log_state
        self.keys = log_state.keys  # taken here: the loop's thread alone parses and changes them
        self.respond = respond
        self.arrived = time.perf_counter()
        self.admitted = False  # by the signing desk
        # The head it was judged against, its text and its note, once it may be signed.
        self.judged: tuple[Head | None, bytes, bytes] | None = None
        self.move: Advance | None = None
        self.error: CoreError | None = None
        self.contradiction: Contradiction | None = None
