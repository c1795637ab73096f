"""How the front and all that it carries are, as one JSON document for programs (`/status.json`).

Distributors hand in their states as frozen dataclasses of their own; they are rendered field by field and not
understood here. Feeders are another process, which renders its own.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from witness.core.wire import CoreStatus, LockdownStep


@dataclass(frozen=True, slots=True)
class FrontState:
    """How the front is.

    `started` is POSIX seconds; `listening` are the bound addresses as URLs; `lockdown` is what its process
    has given up.
    """

    pid: int
    started: float
    core_connected: bool
    in_flight: int
    listening: tuple[str, ...]
    lockdown: tuple[LockdownStep, ...] = ()


def document(
    front: FrontState,
    core: CoreStatus | None,
    problem: str | None,
    feeders: bytes,
    publishers: Mapping[str, object] | Sequence[object],
) -> bytes:
    """The status as JSON.

    Args:
        front: how the front is.
        core: how the core is, or None while it does not answer.
        problem: why it does not answer.
        feeders: a JSON object whose members the document takes up as they are (`FeederNews.document`): tens
            of thousands of states are not taken apart here, where requests wait.
        publishers: states of the distributors' clients, by name or in order.
    """
    whole = {
        "front": front,
        "core": core,
        "core_problem": problem,
        "publishers": publishers,
    }
    ours = json.dumps(whole, default=plain, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return ours[:-1] + b", " + feeders[1:] + b"\n"


def summary(state: object) -> str:
    """A feeder's state in a word or a few, for a table: its `status`, and nothing that names our network."""
    value = getattr(state, "status", None)
    if value is None:
        return "following"
    return str(value.value) if isinstance(value, Enum) else str(value)


def plain(value: object) -> Any:
    """What `json` is to make of a value that it does not know: a dataclass by its fields, and the like."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    return str(value)
