"""What feeders count, for Prometheus. Every label's value is one of a fixed set of ours."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from feeders.cache import TileCache
from feeders.fetch import HttpFetch
from feeders.loop import FeederPool
from feeders.states import Status


class FeederMetrics:
    """A collector of the pool's counters; register it with the front's registry.

    Args:
        pool: the polling loops.
        fetch: their GET.
        tiles: their kept tiles.
    """

    def __init__(self, pool: FeederPool, fetch: HttpFetch, tiles: TileCache) -> None:
        self._pool = pool
        self._fetch = fetch
        self._tiles = tiles

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead of time: registering must not collect."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The counters as they stand (prometheus-client calls this, perhaps in another thread)."""
        states = self._pool.counts()
        logs = GaugeMetricFamily("witness_feeder_logs", "Logs by their feeder's status.", labels=("status",))
        polls = CounterMetricFamily("witness_feeder_polls", "Polls by how they ended.", labels=("outcome",))
        for status in Status:
            logs.add_metric((status,), states[status])
            polls.add_metric((status,), self._pool.outcomes[status])
        yield logs
        yield polls
        counters = (
            ("missed_polls", "Polls left out because the one before was late.", self._pool.missed),
            ("http_requests", "Requests to logs' servers.", self._fetch.requests),
            ("http_not_modified", "Requests answered 304.", self._fetch.not_modified),
            ("http_bytes", "Bytes of bodies received.", self._fetch.bytes),
            ("tile_cache_hits", "Full tiles that needed no request.", self._tiles.hits),
            ("tile_cache_misses", "Tiles that were looked for and not kept.", self._tiles.misses),
        )
        for name, text, value in counters:
            yield CounterMetricFamily(f"witness_feeder_{name}", text, value=value)
