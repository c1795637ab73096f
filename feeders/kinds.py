"""The log families, listed by hand: adding one is one module, one line here, one test module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from feeders.serverless import serverless_source
from feeders.sumdb import sumdb_source
from feeders.tiles import tiles_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from feeders.poll import FeedLog
    from feeders.protocol import Fetch, LogSource

NOT_POLLED: Final = "none"
"""The kind of a log that pushes its checkpoints itself."""

KINDS: Final[dict[str, Callable[[str, Fetch], LogSource]]] = {
    "tiles": tiles_source,
    "serverless": serverless_source,
    "sumdb": sumdb_source,
}
"""Kind -> what makes a source of (the log's URL, the bounded GET)."""

NOT_BUILT: Final = frozenset({"static-ct", "rfc6962", "rekor", "pixel", "sigsum"})
"""Kinds that may stand in a configuration, and that this version cannot poll."""


class UnknownFeeder(Exception):
    """No log can be polled by this kind.

    Attributes:
        kind: as configured.
        planned: the kind is known, and is not built yet.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.planned = kind in NOT_BUILT
        if self.planned:
            super().__init__(f"feeder {kind} is not built yet: this log can only push its checkpoints")
        else:
            super().__init__(f"no feeder is called {kind!r}; there are {', '.join([*KINDS, NOT_POLLED])}")


def make_source(kind: str, url: str, fetch: Fetch) -> LogSource:
    """The source of a log of this kind at this URL.

    Raises:
        UnknownFeeder: the kind is none of `KINDS`.
    """
    if kind not in KINDS:
        raise UnknownFeeder(kind)
    return KINDS[kind](url, fetch)


def sources(fetch: Fetch) -> Callable[[FeedLog], LogSource]:
    """`make_source` for logs that all share one bounded GET: what `FeederPool` is handed."""
    return lambda log: make_source(log.kind, log.url, fetch)
