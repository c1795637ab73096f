"""`python -m tests.histories`: random histories by the thousand, or one of them again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.histories.many import play, play_many

TELL_EVERY = 100


def main() -> int:
    """Plays what the command line asks for; 1 where a history failed."""
    parser = argparse.ArgumentParser(description="Random histories of a witness.")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, help="Play this one alone, and tell what happens in it.")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = play(options.seed)
        print("\n".join(outcome.log), dict(outcome.counts), outcome.failure, sep="\n")
        return int(bool(outcome.failure))
    began, counts, failed, alarms = time.monotonic(), Counter[str](), [], Counter[str]()
    seeds = range(options.first, options.first + options.count)
    for number, outcome in enumerate(play_many(seeds, options.at_once), start=1):
        counts.update(outcome.counts)
        alarms.update(outcome.alarms)
        if outcome.failure:
            failed.append(outcome.seed)
            print(f"seed {outcome.seed} failed:", *outcome.log, outcome.failure, sep="\n", flush=True)
        if number % TELL_EVERY == 0 or number == options.count:
            seconds = time.monotonic() - began
            print(
                f"{number} histories, {len(failed)} failed, {seconds:.0f} s;",
                f"{dict(counts)}; alarms {dict(alarms)}",
                flush=True,
            )
    if failed:
        print("again: python -m tests.histories --seed N, with N of", *failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
