"""`python -m benchmarks.polling`: polling thousands of logs beside a steady load of add-checkpoint requests.

One run of one daemon in rounds: the load while the feeder is stopped (SIGSTOP), then a pause in which
the polls find their pace again, then the same load beside the polls of two whole intervals. Other work on the
machine then hits both sides of each round, and the medians over rounds tell more than any single window.
Measured are the latency of add-checkpoint, polls that were missed, polls that were made, the memory of all
processes, and the processor time of each.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import yaml

from benchmarks.chains import Chains
from benchmarks.load_process import LoadProcess
from benchmarks.load_result import Result
from benchmarks.measure import command, cpu_seconds
from benchmarks.ours import CONFIGURATION, ED25519, OurWitness
from benchmarks.polled_logs import PolledLogs

PUSHING = 100
MEGA = 1e6
PROCESSES = {
    "feeders": "witness.cli.feeding_process",
    "front": "witness.cli.front_process",
    "core": "witness.core",
}


@dataclass(frozen=True)
class Found:
    """What one run found.

    Latencies are milliseconds, medians over the rounds, whose p99s stand in `p99s`; `ratio` is the median of
    the ratios of the rounds. Memory is MB (PSS, all
    processes), times are seconds, `cores` processor seconds a second while logs are polled.
    """

    logs: int
    interval: float
    rate: float
    p50_alone: float
    p99_alone: float
    p50_beside: float
    p99_beside: float
    ratio: float
    p99s: list[tuple[float, float]]
    refused: int
    polls_expected: float
    polls_made: int
    least_polls_of_a_log: int
    missed: int
    not_current: int
    memory: float
    cores: dict[str, float]
    cpu_of_a_poll_us: float
    all_polled_after: float


def metrics(port: int) -> dict[str, float]:
    """The daemon's metrics, by their names with labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {m[1]: float(m[2]) for m in re.finditer(r"^(witness_feeder_\S+) (\S+)$", text, re.MULTILINE)}


@dataclass(frozen=True)
class _Round:
    alone: Result
    beside: Result
    took: float
    made: list[int]
    cpu: dict[str, float]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process does nothing during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def processes(witness: OurWitness) -> dict[str, int]:
    """The witness's processes by their names here."""
    lines = {pid: command(pid) for pid in witness.pids()}
    return {
        name: next(pid for pid, line in lines.items() if module in line) for name, module in PROCESSES.items()
    }


def one_round(
    load: LoadProcess, polled: PolledLogs, pids: dict[str, int], rate: float, interval: float
) -> _Round:
    """The load without polls, and beside them."""
    with stopped(pids["feeders"]):
        load.scheduled(rate, 1.0)
        alone = load.scheduled(rate, interval / 2)
    # What was due meanwhile comes at once now. Less than an interval was left out, so no poll is missed.
    time.sleep(1.2 * interval)
    asked, cpu = polled.asked(), {name: cpu_seconds([pid]) for name, pid in pids.items()}
    began = time.monotonic()
    beside = load.scheduled(rate, 2 * interval)
    took = time.monotonic() - began
    made = [b - a for a, b in zip(asked, polled.asked(), strict=True)]
    return _Round(
        alone, beside, took, made, {name: cpu_seconds([pid]) - cpu[name] for name, pid in pids.items()}
    )


def measure(folder: Path, *, logs: int, interval: float, rounds: int, rate: float, refresh: float) -> Found:
    """One run in `folder`."""
    pushing = folder / "pushing.list"
    pushing.write_text(Chains(PUSHING).log_list())
    witness = OurWitness("polling", folder / "polling", pushing, None, algorithms=ED25519)
    witness.create()
    configuration = witness.folder / "state" / CONFIGURATION
    settings = yaml.safe_load(configuration.read_text())
    settings |= {"feeders": {"refresh": refresh}, "watchdog": 3600}  # we stop the feeder ourselves
    configuration.write_text(yaml.safe_dump(settings))
    polled = PolledLogs(logs)
    load = None
    try:
        witness.start()
        load = LoadProcess(witness.address, PUSHING, PUSHING)
        load.prime()
        load.scheduled(rate, 3.0)
        listed = folder / "polled.yaml"
        polled.write_list(listed, interval)
        began = time.monotonic()
        witness._do("logs", "import", str(listed))  # noqa: SLF001 - as the witness was made
        while metrics(witness.port).get('witness_feeder_logs{status="current"}', 0) < logs:
            if time.monotonic() - began > 20 * interval + 120:
                raise RuntimeError(f"not all logs were polled: {metrics(witness.port)}")
            time.sleep(0.5)
        all_polled_after = time.monotonic() - began
        before, pids = metrics(witness.port), processes(witness)
        found = [one_round(load, polled, pids, rate, interval) for _ in range(rounds)]
        after = metrics(witness.port)
        memory = sum(each.best for each in witness.memory().values()) / MEGA
    finally:
        if load is not None:
            load.stop()
        witness.stop()
        polled.stop()
    name = "witness_feeder_missed_polls_total"
    p99s = [(each.alone.latency_ms["p99"], each.beside.latency_ms["p99"]) for each in found]
    took, made = sum(each.took for each in found), sum(sum(each.made) for each in found)
    cores = {process: sum(each.cpu[process] for each in found) / took for process in pids}
    results = [result for each in found for result in (each.alone, each.beside)]
    return Found(
        logs=logs,
        interval=interval,
        rate=rate,
        p50_alone=median(each.alone.latency_ms["p50"] for each in found),
        p99_alone=median(alone for alone, _ in p99s),
        p50_beside=median(each.beside.latency_ms["p50"] for each in found),
        p99_beside=median(beside for _, beside in p99s),
        ratio=median(beside / alone for alone, beside in p99s),
        p99s=p99s,
        refused=sum(result.requests - result.ok for result in results),
        polls_expected=logs * took / interval,
        polls_made=made,
        least_polls_of_a_log=min(min(each.made) for each in found),
        missed=int(after[name] - before[name]),
        not_current=logs - int(after['witness_feeder_logs{status="current"}']),
        memory=memory,
        cores=cores,
        cpu_of_a_poll_us=cores["feeders"] * took / made * 1e6,
        all_polled_after=all_polled_after,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling", description=__doc__)
    parser.add_argument("--logs", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--refresh", type=float, default=600.0)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="witness-polling-") as name:
        found = measure(
            Path(name), logs=options.logs, interval=options.interval, rounds=options.rounds,
            rate=options.rate, refresh=options.refresh,
        )  # fmt: skip
    print(json.dumps(asdict(found), indent=1))
    bars = {
        "no missed polls": found.missed == 0 and found.not_current == 0,
        "p99 within 2 x": found.ratio <= 2.0,
        "memory under 400 MB": found.memory < 400,
        "no refusals": found.refused == 0,
    }
    for bar, holds in bars.items():
        print(f"{'met   ' if holds else 'MISSED'} {bar}", file=sys.stderr)
    return 1 if options.check and not all(bars.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
