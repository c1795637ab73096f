"""What is measured, one function a question. Whatever is compared runs alternately, in ABBA order."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import answers, ours
from benchmarks.bars import Report
from benchmarks.chains import Chains
from benchmarks.durability import Tracer
from benchmarks.load_process import LoadProcess
from benchmarks.load_result import Result
from benchmarks.loadgen import Load
from benchmarks.measure import Shim, command
from benchmarks.ours import OurWitness, Server

MEGA = 1e6
# The floor measured here is that of one quiet core; under load two hyper-threads share one, and everything
# takes longer. So the bars are shown over the figures, too, that they were set with.
NAMED_FLOOR = {"ed25519": 103.0, "both": 793.0}
NAMED_NOTE = "over the floor that the bar was set with, on another machine of this size"
COLUMNS = ["", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "fsyncs/req", "not 200", "generator µs/req"]


@dataclass(frozen=True)
class Plan:
    """How long and how often; `short` is for CI."""

    mode: str
    seconds: float
    rounds: int
    big: int = 100_000
    primed: int = 100_000  # of the big set-up's logs, how many get a first contact (and are then driven)
    small: int = 1_000
    connections: int = 50
    traced: int = 1500


SHORT = Plan("short", seconds=1.2, rounds=2, primed=15_000, traced=400)
FULL = Plan("full", seconds=4.0, rounds=5)


@dataclass
class Contestant:
    """A running server and the load generator that drives it."""

    server: Server
    load: LoadProcess
    rate: float = 5000.0

    def closed(self, seconds: float, logs: int | None = None) -> Result:
        """One slice of saturation; remembers the rate, to precompute enough next time."""
        result = self.load.closed(seconds, int(self.rate * seconds * 2) + 500, self.server.probe(), logs)
        self.rate = max(200.0, result.rate)
        return result

    def check_answers(self) -> int:
        return answers.check(self.load.take_samples(), self.server.vkeys)


class Bench:
    """The folder, the shim and the log lists that all scenarios share."""

    def __init__(self, plan: Plan, folder: Path, report: Report, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.folder = folder
        self.report = report
        self.say = say
        self.shim = Shim.build(folder)
        self.checked = 0
        self.generator: list[float] = []
        if self.shim is None:
            report.notes.append("No C compiler: fsyncs were neither counted nor delayed.")

    def log_list(self, logs: int, *, distinct: bool = False) -> Path:
        path = self.folder / f"logs-{logs}.list"
        if not path.exists():
            path.write_text(Chains(logs, distinct=distinct).log_list())
        return path

    def witness(self, name: str, logs: int, **settings: object) -> OurWitness:
        """Ours, created with so many logs, not yet started."""
        server = OurWitness(name, self.folder / name, self.log_list(logs), self.shim, **settings)
        server.create()
        return server

    @contextlib.contextmanager
    def running(self, server: Server, logs: int, connections: int | None = None) -> Iterator[Contestant]:
        """Starts the server if need be, and a generator for it; ends both."""
        load = None
        try:
            if server.process is None and isinstance(server, OurWitness):
                server.start()
            load = LoadProcess(server.address, logs, connections or self.plan.connections)
            yield Contestant(server, load)
        finally:
            if load is not None:
                load.stop()
            server.stop()

    def alternate(
        self, contestants: Mapping[str, Contestant], logs: int | None = None
    ) -> dict[str, list[Result]]:
        """`rounds` slices of saturation for each, in alternating order, after a short one to warm up."""
        results: dict[str, list[Result]] = {name: [] for name in contestants}
        for contestant in contestants.values():
            contestant.closed(0.4, logs)
        order = list(contestants)
        for _ in range(self.plan.rounds):
            for name in order:
                results[name].append(contestants[name].closed(self.plan.seconds, logs))
            order.reverse()
        for contestant in contestants.values():
            self.checked += contestant.check_answers()
        # Below some hundred a second it mostly waits, and waking costs more than a request.
        self.generator += [r.generator_us for several in results.values() for r in several if r.rate > 1000]
        return results


def median(results: list[Result], figure: Callable[[Result], float]) -> float:
    return statistics.median(map(figure, results))


def ratio(above: list[Result], below: list[Result]) -> tuple[float, str]:
    """The median over the rounds of one side's rate over the other's, and the range as text."""
    ratios = [a.rate / max(b.rate, 1e-9) for a, b in zip(above, below, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f} over {len(ratios)} rounds"


def row(name: str, results: list[Result], *, counted: bool = True) -> list[str]:
    """One contestant as a table row."""
    bad = sum(r.requests - r.ok for r in results)
    return [
        name,
        f"{median(results, lambda r: r.rate):.0f}",
        f"{median(results, lambda r: r.latency_ms.get('p50', 0.0)):.2f}",
        f"{median(results, lambda r: r.latency_ms.get('p99', 0.0)):.2f}",
        f"{median(results, lambda r: r.cpu_us):.0f}",
        f"{median(results, lambda r: r.syncs):.3f}" if counted else "—",
        str(bad),
        f"{median(results, lambda r: r.generator_us):.1f}",
    ]


def group_commit(bench: Bench, floor: Mapping[str, float]) -> None:
    """50 logs, 50 in flight, Ed25519: shared commits against one commit per request, as fsync slows."""
    logs = 50
    group = bench.witness("group", logs, algorithms=ours.ED25519)
    single = bench.witness("single", logs, algorithms=ours.ED25519, max_batch=1)
    rows = []
    with bench.running(group, logs) as one, bench.running(single, logs) as other:
        idle = sum(m.best for m in group.memory().values()) / MEGA
        names = ", ".join(f"{m.best / MEGA:.0f}" for m in group.memory().values())
        bench.report.measured("idle", idle, f"50 logs, just started; by process {names} MB")
        one.load.prime()
        other.load.prime()
        delays = (0, 2, 10) if bench.shim is not None else (0,)
        for delay in delays:
            if bench.shim is not None:
                group.set_sync_delay(delay)
                single.set_sync_delay(delay)
            bench.say(f"group commit against one commit per request, fsync +{delay} ms")
            found = bench.alternate({"group": one, "single": other})
            value, spread = ratio(found["group"], found["single"])
            bench.report.measured(f"single-{delay}", value, spread)
            rows += [row(f"shared commits, +{delay} ms", found["group"])]
            rows += [row(f"one commit per request, +{delay} ms", found["single"])]
            if delay == 0:
                cpu = median(found["group"], lambda r: r.cpu_us)
                note = f"{cpu:.0f} µs over {floor['ed25519']:.0f} µs measured here"
                bench.report.measured("cpu-ed25519", cpu / floor["ed25519"], note)
                bench.report.measured("cpu-ed25519-named", cpu / NAMED_FLOOR["ed25519"], NAMED_NOTE)
                syncs = median(found["group"], lambda r: r.syncs)
                if syncs:
                    bench.report.measured("syncs", syncs, "counted by the preloaded library")
        bench.report.missing([f"single-{d}" for d in (2, 10) if d not in delays], "no C compiler")
        if bench.report.bars["syncs"].value is None:
            bench.report.missing(["syncs"], "the preloaded library counted nothing")
    bench.report.tables.append(("Ed25519, 50 logs, 50 connections", COLUMNS, rows))


def both_algorithms(bench: Bench, floor: Mapping[str, float]) -> None:
    """50 logs, 50 in flight, Ed25519 and ML-DSA-44 in every answer, beside Ed25519 alone."""
    logs = 50
    both = bench.witness("both", logs, algorithms=ours.BOTH)
    alone = bench.witness("alone", logs, algorithms=ours.ED25519)
    bench.say("both algorithms against Ed25519 alone")
    with bench.running(both, logs) as one, bench.running(alone, logs) as other:
        one.load.prime()
        other.load.prime()
        found = bench.alternate({"both": one, "alone": other})
    cpu = median(found["both"], lambda r: r.cpu_us)
    note = f"{cpu:.0f} µs over {floor['both']:.0f} µs measured here"
    bench.report.measured("cpu-both", cpu / floor["both"], note)
    bench.report.measured("cpu-both-named", cpu / NAMED_FLOOR["both"], NAMED_NOTE)
    rows = [row("Ed25519 and ML-DSA-44", found["both"]), row("Ed25519", found["alone"])]
    bench.report.tables.append(("Both algorithms, 50 logs, 50 connections", COLUMNS, rows))


def isolation(bench: Bench) -> None:
    """50 logs, 50 in flight: two locked-down processes against one with nothing between core and front."""
    logs, bad = 50, 0
    for name, algorithms in (("ed25519", ours.ED25519), ("both", ours.BOTH)):
        apart = bench.witness(f"apart-{name}", logs, algorithms=algorithms)
        together = bench.witness(f"together-{name}", logs, algorithms=algorithms)
        bench.say(f"isolation and lock-down against one process, {name}")
        together.start_in_process()
        with bench.running(apart, logs) as one, bench.running(together, logs) as other:
            one.load.prime()
            other.load.prime()
            found = bench.alternate({"apart": one, "together": other})
        bad += sum(result.requests - result.ok for results in found.values() for result in results)
        value, spread = ratio(found["apart"], found["together"])
        bench.report.measured(f"isolation-{name}", value, spread)
        rows = [row("core and front, locked down", found["apart"]), row("one process", found["together"])]
        bench.report.tables.append((f"Isolation, {name}, 50 logs, 50 connections", COLUMNS, rows))
    if bad:
        bench.report.notes.append(f"Isolation: {bad} answers were not 200.")


def many_logs(bench: Bench) -> None:
    """100k logs against 1k: throughput, memory and start; on the 1k also refusals and latency by rate."""
    plan = bench.plan
    bench.say(f"creating a witness with {plan.big} logs")
    big = bench.witness("many", plan.big, algorithms=ours.ED25519)
    small = bench.witness("few", plan.small, algorithms=ours.ED25519)
    bench.report.facts["import_seconds"] = big.import_seconds
    starts = []
    with bench.running(big, plan.big) as many, bench.running(small, plan.small) as few:
        bench.say(f"first contact of {plan.primed} logs")
        many.load.prime(plan.primed)
        few.load.prime()
        found = bench.alternate({"many": many, "few": few}, plan.primed)
        value, spread = ratio(found["many"], found["few"])
        bench.report.measured("many-rate", value, spread)
        sizes = [sum(m.best for m in server.memory().values()) for server in (big, small)]
        per_log = (sizes[0] - sizes[1]) / (plan.big - plan.small) / 1e3
        note = f"{sizes[0] / MEGA:.0f} MB against {sizes[1] / MEGA:.0f} MB; {plan.primed} logs with a head"
        bench.report.measured("many-memory", per_log, note)
        rows = [row(f"{plan.big} logs", found["many"]), row(f"{plan.small} logs", found["few"])]
        bench.report.tables.append(("Number of logs, Ed25519, 50 connections", COLUMNS, rows))
        _by_rate(bench, few)
        big.stop()
        for _ in range(3):
            starts.append(big.start())
            big.stop()
    note = f"median of {len(starts)}; import took {big.import_seconds:.1f} s"
    bench.report.measured("start", statistics.median(starts), note)


def _by_rate(bench: Bench, few: Contestant) -> None:
    """Open loop on distinct logs: 80 % of the saturation measured just before, and 200 a second."""
    plan = bench.plan
    few.load.connect(200)
    saturation = few.closed(plan.seconds).rate
    bench.say(f"80 % of {saturation:.0f}/s, then 200/s")
    probe = few.server.probe()
    high = few.load.scheduled(0.8 * saturation, plan.seconds * 2, probe)
    low = few.load.scheduled(200, max(2.0, plan.seconds * 2), probe)
    bench.checked += few.check_answers()
    refused = high.requests - high.ok + high.skipped
    bench.report.measured(
        "refusals", refused, f"of {high.requests + high.skipped} at {0.8 * saturation:.0f}/s"
    )
    columns = [
        "offered/s",
        "answered/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "not 200",
        "generator's lag p99 ms",
    ]
    rows = []
    for offered, result in ((0.8 * saturation, high), (200.0, low)):
        latency = [f"{result.latency_ms.get(p, 0.0):.2f}" for p in ("p50", "p90", "p99", "max")]
        lag = f"{result.lag_ms.get('p99', 0.0):.2f}"
        rows.append([f"{offered:.0f}", f"{result.rate:.0f}", *latency, str(result.requests - result.ok), lag])
    title = f"Latency by rate, {plan.small} distinct logs, from each request's due moment"
    bench.report.tables.append((title, columns, rows))


def traced(bench: Bench) -> None:
    """Every system call of a loaded witness recorded, and each 200 held against the fdatasyncs."""
    logs = 40
    list_path = bench.folder / "logs-distinct.list"
    list_path.write_text(Chains(logs, distinct=True).log_list())
    server = OurWitness("traced", bench.folder / "traced", list_path, bench.shim, algorithms=ours.ED25519)
    server.create()
    bench.say("tracing")
    try:
        server.start()
        load = Load(server.address, logs, logs, distinct=True)
        load.prime()
        tracer = Tracer(server.pids(), bench.folder / "trace.txt")
        if not tracer.attach():
            bench.report.missing(["covered"], tracer.reason)
            return
        result = load.closed(30, bench.plan.traced)
        verdict = tracer.detach()
        load.close()
    finally:
        server.stop()
    if verdict.answers < result.ok * 0.9:
        reason = f"the trace shows {verdict.answers} of {result.ok} answers"
        bench.report.missing(["covered"], reason)
        return
    note = f"{verdict.covered} of {verdict.answers} answers, {verdict.syncs} syncs"
    bench.report.measured("covered", 100 * verdict.covered / verdict.answers, note)


def processes(server: Server) -> str:
    """The server's processes by command, for the notes."""
    return "; ".join(command(pid)[:80] for pid in server.pids())
