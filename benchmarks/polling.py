"""`python -m benchmarks.polling`: polling thousands of logs beside a steady load of add-checkpoint requests.

First the load alone, then with all logs polled at their interval, in one run of one daemon. Measured are the
latency of add-checkpoint, polls that were missed, polls that were made, and the memory of all processes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks.chains import Chains
from benchmarks.load_process import LoadProcess
from benchmarks.ours import CONFIGURATION, ED25519, OurWitness
from benchmarks.polled_logs import PolledLogs

PUSHING = 100
MEGA = 1e6


@dataclass(frozen=True)
class Found:
    """What one run found. Latencies are milliseconds, memory MB (PSS, all processes), seconds wall time."""

    logs: int
    interval: float
    rate: float
    p50_alone: float
    p99_alone: float
    p50_beside: float
    p99_beside: float
    refused: int
    polls_expected: float
    polls_made: int
    least_polls_of_a_log: int
    missed: int
    not_current: int
    memory: float
    front_cpu: float
    all_polled_after: float

    @property
    def ratio(self) -> float:
        return self.p99_beside / self.p99_alone


def metrics(port: int) -> dict[str, float]:
    """The daemon's metrics, by their names with labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {m[1]: float(m[2]) for m in re.finditer(r"^(witness_feeder_\S+) (\S+)$", text, re.MULTILINE)}


def measure(
    folder: Path, *, logs: int, interval: float, seconds: float, rate: float, refresh: float
) -> Found:
    """One run in `folder`."""
    pushing = folder / "pushing.list"
    pushing.write_text(Chains(PUSHING).log_list())
    witness = OurWitness("polling", folder / "polling", pushing, None, algorithms=ED25519)
    witness.create()
    configuration = witness.folder / "state" / CONFIGURATION
    settings = yaml.safe_load(configuration.read_text())
    settings["feeders"] = {"refresh": refresh}
    configuration.write_text(yaml.safe_dump(settings))
    polled = PolledLogs(logs)
    load = None
    try:
        witness.start()
        load = LoadProcess(witness.address, PUSHING, PUSHING)
        load.prime()
        load.scheduled(rate, 3.0)
        alone = load.scheduled(rate, seconds)

        listed = folder / "polled.yaml"
        polled.write_list(listed, interval)
        began = time.monotonic()
        witness._do("logs", "import", str(listed))  # noqa: SLF001 - as the witness was made
        while metrics(witness.port).get('witness_feeder_logs{status="current"}', 0) < logs:
            if time.monotonic() - began > 20 * interval + 120:
                raise RuntimeError(f"not all logs were polled: {metrics(witness.port)}")
            time.sleep(0.5)
        all_polled_after = time.monotonic() - began
        before, asked, cpu = metrics(witness.port), polled.asked(), witness.probe().sample().cpu_seconds
        began = time.monotonic()
        beside = load.scheduled(rate, seconds)
        took = time.monotonic() - began
        after, asked_after = metrics(witness.port), polled.asked()
        cpu = witness.probe().sample().cpu_seconds - cpu
        made = [b - a for a, b in zip(asked, asked_after, strict=True)]
        memory = sum(each.best for each in witness.memory().values()) / MEGA
    finally:
        if load is not None:
            load.stop()
        witness.stop()
        polled.stop()
    name = "witness_feeder_missed_polls_total"
    return Found(
        logs=logs,
        interval=interval,
        rate=rate,
        p50_alone=alone.latency_ms["p50"],
        p99_alone=alone.latency_ms["p99"],
        p50_beside=beside.latency_ms["p50"],
        p99_beside=beside.latency_ms["p99"],
        refused=alone.requests - alone.ok + beside.requests - beside.ok,
        polls_expected=logs * took / interval,
        polls_made=sum(made),
        least_polls_of_a_log=min(made),
        missed=int(after[name] - before[name]),
        not_current=logs - int(after['witness_feeder_logs{status="current"}']),
        memory=memory,
        front_cpu=cpu / took,
        all_polled_after=all_polled_after,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling", description=__doc__)
    parser.add_argument("--logs", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--refresh", type=float, default=600.0)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="witness-polling-") as name:
        found = measure(
            Path(name), logs=options.logs, interval=options.interval, seconds=options.seconds,
            rate=options.rate, refresh=options.refresh,
        )  # fmt: skip
    print(json.dumps(asdict(found) | {"ratio": found.ratio}, indent=1))
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
