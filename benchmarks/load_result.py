"""What one slice of load saw."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from benchmarks.measure import Sample


@dataclass
class Result:
    """What one slice of load saw. Latencies in milliseconds, CPU in microseconds a request."""

    seconds: float
    statuses: dict[int, int]
    latency_ms: dict[str, float]
    generator_us: float
    lag_ms: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    reconnects: int = 0
    ran_dry: bool = False
    server: Sample = field(default_factory=Sample)

    @property
    def ok(self) -> int:
        return self.statuses.get(200, 0)

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def rate(self) -> float:
        """Answered with 200, a second."""
        return self.ok / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of all server processes for one answered request."""
        return self.server.cpu_seconds * 1e6 / max(1, self.requests)

    @property
    def syncs(self) -> float:
        """fsync and fdatasync calls for one 200."""
        return self.server.syncs / max(1, self.ok)


def percentiles(values: array[int]) -> dict[str, float]:
    """p50, p90, p99, p99.9 and the largest of nanoseconds, as milliseconds."""
    if not values:
        return {}
    ordered = sorted(values)
    last = len(ordered) - 1
    points = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: ordered[round(last * share)] / 1e6 for name, share in points.items()}
