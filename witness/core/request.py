"""One add-checkpoint request on its way through the core, the log it is for, and how many there may be.

Of a log the core remembers keys, head, and who is waiting: one `LogState` a log, about 700 bytes. Only the
event loop's thread changes them.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from witness.core.refusals import CoreError
from witness.core.store.base import Advance, Contradiction, Head
from witness.tlog.note import VerifierKey, parse_vkey
from witness.tlog.submission import AddCheckpoint

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


class LogState:
    """One log as the core knows it.

    `busy` is set from the moment a request for it is taken up until its answer; others wait in `waiting`, so
    that each is judged against the state the one before it left. `stopped` is why nothing of this log is
    signed, where an alarm is about it alone.
    """

    __slots__ = (
        "_digest",
        "_keys",
        "_vkeys",
        "busy",
        "disabled",
        "head",
        "log_id",
        "origin",
        "pin",
        "stopped",
        "waiting",
    )

    def __init__(self, log_id: int, origin: str) -> None:
        self.log_id = log_id
        self.origin = origin
        self._vkeys: tuple[str, ...] = ()
        self._keys: tuple[VerifierKey, ...] | None = ()
        self._digest: str | None = None
        self.disabled = False
        self.stopped: CoreError | None = None
        self.head: Head | None = None
        self.pin: Head | None = None
        self.busy = False
        self.waiting: deque[Request] | None = None

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The keys trusted for the log. Parsed when first needed: most logs of a long list are quiet."""
        keys = self._keys
        if keys is None:
            keys = self._keys = tuple(parse_vkey(text) for text in self._vkeys)
            self._vkeys = ()
        return keys

    @property
    def start(self) -> Head | None:
        """What the next checkpoint must extend: our head, or before the first contact what is pinned."""
        return self.head if self.head is not None else self.pin

    def trust(self, vkeys: tuple[str, ...]) -> None:
        """Sets the keys trusted for the log, as text that was parsed once when it was stored."""
        self._vkeys, self._keys, self._digest = vkeys, None, None

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The keys trusted for the log, as text."""
        return self._vkeys if self._keys is None else tuple(str(key) for key in self._keys)

    @property
    def keys_digest(self) -> str:
        """Names the set of keys trusted for the log (`digest_of_keys`)."""
        if self._digest is None:
            self._digest = digest_of_keys(self.vkeys)
        return self._digest


def digest_of_keys(vkeys: Iterable[str]) -> str:
    """A short name for a set of vkeys: 16 hexadecimal digits of the SHA-256 of their texts, sorted."""
    return hashlib.sha256("\n".join(sorted(vkeys)).encode()).hexdigest()[:16]


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
