"""A counter in hardware that no backup brings back.

It moves at a start and at intervals, never for a checkpoint: such memory wears. The state names the value
that the counter is to have, and is made durable *before* the counter moves. So a crash in between leaves the
state one ahead, which the next start completes; a state behind the counter is older than its last move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

COUNTER: Final = "counter"
"""The fact that names the value that the counter is to have."""
SEEN: Final = "counter-seen"
"""The fact that names the value that the counter had when an alarm was raised over it."""
ACCEPTED: Final = "counter-accepted"
"""The fact that names the value that an operator's recovery settled, and when the alarm was raised: from that
value on the state counts again. It says nothing any more once the counter has moved."""


class RollbackCounter(Protocol):
    """What a key backend offers that has one. Its calls may block, and come from one thread at a time."""

    @property
    def name(self) -> str:
        """The device that has it, as the operator calls that."""
        ...

    def read(self) -> int:
        """Its value.

        Raises:
            DeviceLost: the device is another, or was wiped.
            KeystoreError: it cannot be had now; later it may.
        """
        ...

    def increment(self) -> int:
        """Moves it by one, for ever; its new value. Raises what `read` raises."""
        ...

    def close(self) -> None:
        """Lets the device go, until the next call. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class CounterVerdict:
    """What the counter says of a state: a fault in words, or empty; and the value that comes next."""

    fault: str
    following: int


def judge_counter(noted: int | None, value: int) -> CounterVerdict:
    """Holds the value that a state names against the counter's.

    Args:
        noted: what the state names; None where it never named one.
        value: the counter's.
    """
    if noted is None:  # every state names one from the moment it has a counter
        return CounterVerdict(
            f"the counter stands at {value}, and this state is from before it counted at all", 0
        )
    if noted == value:
        return CounterVerdict("", value + 1)
    if noted == value + 1:  # written, and then cut off before the counter moved
        return CounterVerdict("", noted)
    if noted < value:
        return CounterVerdict(
            f"the counter stands at {value}, and this state is from when it stood at {noted}", 0
        )
    return CounterVerdict(
        f"the counter stands at {value}, and this state has seen {noted}: the device was wiped or exchanged",
        0,
    )
