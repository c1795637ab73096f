"""What the front counts, for Prometheus.

The rule of this file: a label's value is one of a fixed set of ours, or the origin of a configured log. Bytes
that a caller sent never become a label before the core has accepted them, and there is a cap even then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from witness.core.refusals import BY_CODE
from witness.front.endpoints import NOT_MODIFIED, NOT_READY, OK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from witness.core.wire import CoreStatus
    from witness.front.view import Logs

CONTENT_TYPE: str = CONTENT_TYPE_PLAIN_0_0_4

ADD_CHECKPOINT = "add-checkpoint"
SIGN_SUBTREE = "sign-subtree"
CHECKPOINT = "checkpoint"
ENDPOINTS = (
    ADD_CHECKPOINT,
    SIGN_SUBTREE,
    CHECKPOINT,
    "healthz",
    "readyz",
    "metrics",
    "status",
    "page",
    "other",
)
"""Every value of the label `endpoint`."""

TOO_LARGE = "too-large"
TOO_SLOW = "too-slow"
BROKEN_BODY = "broken-body"
NOT_FOUND = "not-found"
WRONG_METHOD = "wrong-method"
OUTCOMES = (
    *(OK, NOT_MODIFIED, NOT_READY, TOO_LARGE, TOO_SLOW, BROKEN_BODY, NOT_FOUND, WRONG_METHOD),
    *sorted(BY_CODE),
)
"""Every value of the label `outcome`: what a carrier says, and the core's refusal codes."""

_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0)
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scrape reports besides the counters: the state at that moment, as far as it is known."""

    connected: bool
    in_flight: int
    core: CoreStatus | None = None
    logs: Logs | None = None


class FrontMetrics:
    """The front's counters, and a collector of the core's.

    Args:
        registry: where they are registered; each front brings its own.
        max_origins: origins whose accepted checkpoints are counted singly, at most.
    """

    def __init__(self, registry: CollectorRegistry, *, max_origins: int) -> None:
        self._registry = registry
        self._max_origins = max_origins
        self._accepted: dict[bytes, int] = {}
        self._accepted_seen: dict[bytes, int] = {}
        self._snapshot = Snapshot(connected=False, in_flight=0)
        requests = Counter(
            "witness_http_requests",
            "Requests answered, by endpoint and outcome (ok, or the code of the refusal).",
            ("endpoint", "outcome"),
            registry=registry,
        )
        seconds = Histogram(
            "witness_http_request_seconds",
            "Seconds from a complete request to its answer.",
            ("endpoint",),
            buckets=_BUCKETS,
            registry=registry,
        )
        # The label sets are closed; their children are looked up by one dictionary access a request.
        self._requests = {pair: requests.labels(*pair) for pair in _pairs()}
        self._seconds = {name: seconds.labels(name) for name in (ADD_CHECKPOINT, SIGN_SUBTREE, CHECKPOINT)}
        self._shed = Counter(
            "witness_http_shed", "Requests answered 429 before their body was read.", registry=registry
        )
        self._in_flight = Gauge(
            "witness_http_in_flight", "Requests that wait for the core.", registry=registry
        )
        self._in_flight.set_function(lambda: self._snapshot.in_flight)
        self._connected = Gauge(
            "witness_core_connected", "1 while the front has a connection to the core.", registry=registry
        )
        self._connected.set_function(lambda: float(self._snapshot.connected))
        registry.register(self)

    def answered(self, endpoint: str, outcome: str, seconds: float | None = None) -> None:
        """Counts one answer; `endpoint` is one of `ENDPOINTS`, `outcome` one of `OUTCOMES`."""
        self._requests[endpoint, outcome].inc()
        if seconds is not None:
            self._seconds[endpoint].observe(seconds)

    def shed(self) -> None:
        """Counts a request refused early."""
        self._shed.inc()

    def accepted(self, origin: bytes) -> None:
        """Counts a checkpoint that the core has accepted, so that its origin is a configured one."""
        accepted = self._accepted
        if origin in accepted:
            accepted[origin] += 1
        elif len(accepted) < self._max_origins:
            accepted[origin] = 1

    def take(self, snapshot: Snapshot) -> None:
        """Sets the state that the next `expose` reports."""
        self._snapshot = snapshot
        self._accepted_seen = dict(self._accepted)

    def expose(self) -> bytes:
        """Everything in Prometheus' text format; may run in another thread than the counters."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What the snapshot holds (prometheus-client calls this)."""
        snapshot = self._snapshot
        if snapshot.core is not None:
            yield from _core_families(snapshot.core)
        if snapshot.logs is not None:
            yield from self._log_families(snapshot.logs)

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead of time: registering must not collect."""
        return iter(())

    def _log_families(self, logs: Logs) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "witness_log_series_enabled",
            "0 when there are too many logs for series of single logs, which are then left out.",
            value=float(logs.listed),
        )
        if not logs.listed:
            return
        size = GaugeMetricFamily(
            "witness_log_size", "Size of the latest cosigned checkpoint.", labels=("origin",)
        )
        cosigned = GaugeMetricFamily(
            "witness_log_cosigned_timestamp_seconds",
            "When the latest checkpoint was cosigned, seconds since the epoch.",
            labels=("origin",),
        )
        accepted = CounterMetricFamily(
            "witness_log_accepted", "Checkpoints of the log accepted over HTTP.", labels=("origin",)
        )
        for log in logs.logs:
            labels = (log.origin,)
            accepted.add_metric(labels, self._accepted_seen.get(log.origin.encode(), 0))
            if log.size >= 0:
                size.add_metric(labels, log.size)
                cosigned.add_metric(labels, log.timestamp)
        yield size
        yield cosigned
        yield accepted


def _pairs() -> Iterator[tuple[str, str]]:
    return ((endpoint, outcome) for endpoint in ENDPOINTS for outcome in OUTCOMES)


def _core_families(core: CoreStatus) -> Iterator[Metric]:
    gauges = (
        ("ready", "1 while the core would sign.", float(core.ready)),
        ("warnings", "Warnings the core gives.", len(core.warnings)),
        ("start_time_seconds", "When the core started, seconds since the epoch.", core.started),
        ("logs", "Configured logs.", core.logs),
        ("heads", "Logs with a cosigned checkpoint.", core.heads),
        ("pending", "Requests that wait in the core.", core.pending),
        ("last_issued_timestamp_seconds", "The latest timestamp in a cosignature.", core.last_issued),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"witness_core_{name}", text, value=value)
    counters = (
        ("accepted", "Checkpoints cosigned.", core.accepted),
        ("commits", "Transactions committed.", core.commits),
        ("contradictions", "Checkpoints by which a log contradicted itself.", core.contradictions),
    )
    yield GaugeMetricFamily(
        "witness_core_alarms", "Alarms that stand until an operator settles them.", value=len(core.alarms)
    )
    for name, text, value in counters:
        yield CounterMetricFamily(f"witness_core_{name}", text, value=value)
    refused = CounterMetricFamily("witness_core_refusals", "Refusals by code.", labels=("code",))
    counts: dict[str, int] = {}
    for code, count in core.refusals.items():
        label = code if code in BY_CODE else _OTHER
        counts[label] = counts.get(label, 0) + count
    for label, count in sorted(counts.items()):
        refused.add_metric((label,), count)
    yield refused
    restarts = CounterMetricFamily(
        "witness_core_restarts", "Starts anew since `witness run` began, by their reason.", labels=("reason",)
    )
    restarts.add_metric(("ended",), core.restarts)
    restarts.add_metric(("hung",), core.hung)
    yield restarts
    stages = CounterMetricFamily("witness_core_stage_seconds", "Seconds spent in a stage.", labels=("stage",))
    for stage in ("queue", "judge", "commit"):
        stages.add_metric((stage,), core.stages.get(stage, 0.0))
    yield stages
    keys = GaugeMetricFamily("witness_core_key_ready", "1 while the key can sign.", labels=("vkey",))
    for key in core.keys:
        keys.add_metric((key.vkey,), float(key.state == "ready"))
    yield keys
