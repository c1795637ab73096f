"""`python -m benchmarks.bench`: every bar, measured; `--short` in about a minute and a half, for CI."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import scenarios
from benchmarks.bars import RESULTS, Report
from benchmarks.floor import floor
from benchmarks.loadgen import BrokenAnswer
from benchmarks.measure import fdatasync_ms, machine
from benchmarks.ours import ServerFailed
from benchmarks.peers import against_peers
from benchmarks.verifying import verifying

SCENARIOS = ("commit", "both", "isolation", "many", "traced", "verifying", "peers")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer and shorter rounds; no peers")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="only this scenario (repeatable)")
    parser.add_argument(
        "--folder", type=Path, help="where state folders are made; on the disk to be measured"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the two result files go")
    parser.add_argument("--no-save", action="store_true", help="print, write no files")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    return parser.parse_args(argv)


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace, folder: Path) -> Report:
    plan = scenarios.SHORT if options.short else scenarios.FULL
    report = Report({**machine(), "fdatasync": f"{fdatasync_ms(folder):.2f} ms"}, plan.mode)
    say("the floor")
    least = floor()
    report.facts["floor_us"] = least
    bench = scenarios.Bench(plan, folder, report, say)
    wanted = options.only or [name for name in SCENARIOS if not (options.short and name == "peers")]
    steps: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
        "commit": (
            lambda: scenarios.group_commit(bench, least),
            ("single-0", "single-2", "single-10", "syncs", "cpu-ed25519", "idle"),
        ),
        "both": (lambda: scenarios.both_algorithms(bench, least), ("cpu-both",)),
        "isolation": (lambda: scenarios.isolation(bench), ("isolation-ed25519", "isolation-both")),
        "many": (lambda: scenarios.many_logs(bench), ("many-rate", "many-memory", "refusals", "start")),
        "traced": (lambda: scenarios.traced(bench), ("covered",)),
        "verifying": (
            lambda: verifying(bench),
            ("verify-signatures", "verify-memory", "verify-growth", "verify-start"),
        ),
        "peers": (lambda: against_peers(bench), ()),
    }
    for name, (step, bars) in steps.items():
        if name not in wanted:
            report.missing([bar for bar in bars if not report.bars[bar].note], "not asked for")
            continue
        try:
            step()
        except (ServerFailed, BrokenAnswer, OSError) as error:
            # One scenario that cannot run is reported as such and does not take the others with it.
            traceback.print_exc()
            report.notes.append(f"Scenario {name} failed: {error}")
            report.missing([bar for bar in bars if report.bars[bar].value is None], f"failed: {error}"[:120])
    report.notes.append(
        "Floor on this machine, CPU µs: " + ", ".join(f"{part} {us:.0f}" for part, us in least.items()) + "."
    )
    if bench.generator:
        report.notes.append(
            f"The load generator itself took {statistics.median(bench.generator):.1f} µs of CPU a request in "
            f"the rounds above 1000/s (largest {max(bench.generator):.1f}); it shares the server's cores."
        )
    report.notes.append(f"{bench.checked} sampled answers were verified with the witness's keys.")
    return report


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="witness-bench-", dir=options.folder) as name:
        report = run(options, Path(name))
    report.notes.append(f"The whole run took {time.monotonic() - begun:.0f} s.")
    path = None
    if not options.no_save and options.only is None:
        path = report.save(options.results)
    print(report.markdown())
    if path is not None:
        say(f"written to {path} and .json")
    return 1 if options.check and report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
