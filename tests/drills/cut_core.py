"""`python -m tests.drills.cut_core STEP`: a core that dies without a word, right after a step of retiring."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from witness.core import process
from witness.core.__main__ import main
from witness.core.continuity.records import Records
from witness.core.store import generations
from witness.core.store.desk import Desk

EXIT: Final = 9


def die(*_: object) -> None:
    os._exit(EXIT)


def die_before_noting(real: Callable[[Desk, str, str], None]) -> Callable[[Desk, str, str], None]:
    def set_fact(desk: Desk, name: str, value: str) -> None:
        if name.startswith("destroyed:"):
            die()
        real(desk, name, value)

    return set_fact


STEPS: Final[dict[str, tuple[Any, str, Any]]] = {
    "dropped": (generations, "retire", die),
    "in-the-database": (Records, "append_retired", die),
    "in-the-record": (process.KeysOfCore, "destroy", die),
    "destroyed": (Desk, "set_fact", die_before_noting(Desk.set_fact)),
}
"""What comes next after each step, and dies instead."""

if __name__ == "__main__":
    setattr(*STEPS[sys.argv[1]])
    sys.exit(main())
