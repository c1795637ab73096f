"""Many histories, several at a time, each with a seed that plays it again.

python -m tests.histories --count 5000
python -m tests.histories --seed 4711          # one, and what happened in it
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tests.histories.life import History
from tests.histories.sabotage import SABOTAGE

STEPS = 8


@dataclass
class Outcome:
    """What came of one history. `failure` is a traceback, or empty."""

    seed: int
    failure: str
    log: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    alarms: frozenset[str] = frozenset()


def play(seed: int, sabotage: str | None = None) -> Outcome:
    """One history, with a witness that is whole or broken in one of the ways of `tests.histories.sabotage`.

    Its files are in memory where there is a file system there: the end of a process loses none of them.
    """
    shm = Path("/dev/shm")
    place = str(shm) if os.access(shm, os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="wit", dir=place) as folder:
        history, failure = None, ""
        try:
            if sabotage is not None:
                SABOTAGE[sabotage]()
            history = History(Path(folder), seed, sabotage)
            history.play(STEPS)
        except Exception:  # whatever it is, it is told with its seed
            failure = traceback.format_exc()
    if history is None:
        return Outcome(seed, failure, [])
    counts = Counter(
        released=history.released, refused=history.refused, starts=history.starts, led_out=history.led_out,
        harmed=history.harmed, retired=history.world.retired, keys_retired=len(history.world.retired_keys),
    )  # fmt: skip
    return Outcome(seed, failure, history.log, counts, frozenset(history.alarms))


def play_many(seeds: Iterable[int], at_once: int, sabotage: str | None = None) -> Iterator[Outcome]:
    """Plays them, several at a time."""
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn")) as pool:
        for coming in [pool.submit(play, seed, sabotage) for seed in seeds]:
            yield coming.result()


def first_failure(seeds: Iterable[int], at_once: int, sabotage: str) -> Outcome | None:
    """The first history that shows that the witness is broken so; the others are not waited for."""
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn")) as pool:
        coming = [pool.submit(play, seed, sabotage) for seed in seeds]
        for done in as_completed(coming):
            if done.result().failure:
                pool.shutdown(wait=False, cancel_futures=True)
                return done.result()
    return None
