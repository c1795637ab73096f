"""The log families, listed by hand: adding one is one module, one line here, one test module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from feeders.pixel import pixel_source
from feeders.rekor import rekor_source
from feeders.rfc6962 import rfc6962_source
from feeders.serverless import serverless_source
from feeders.sigsum import sigsum_source
from feeders.static_ct import static_ct_source
from feeders.sumdb import sumdb_source
from feeders.tiles import tiles_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from feeders.protocol import FeedLog, LogSource
    from feeders.tools import Tools

NOT_POLLED: Final = "none"
"""The kind of a log that pushes its checkpoints itself."""

KINDS: Final[dict[str, Callable[[FeedLog, Tools], LogSource]]] = {
    "tiles": tiles_source,
    "serverless": serverless_source,
    "sumdb": sumdb_source,
    "static-ct": static_ct_source,
    "rfc6962": rfc6962_source,
    "rekor": rekor_source,
    "pixel": pixel_source,
    "sigsum": sigsum_source,
}
"""Kind -> what makes a source of the log with the shared tools."""


class UnknownFeeder(Exception):
    """No log can be polled by this kind.

    Attributes:
        kind: as configured.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(f"no feeder is called {kind!r}; there are {', '.join([*KINDS, NOT_POLLED])}")


def make_source(log: FeedLog, tools: Tools) -> LogSource:
    """The source of a log.

    Raises:
        UnknownFeeder: its kind is none of `KINDS`.
        BadUrl: its URL is not of the form that the family wants.
    """
    if log.kind not in KINDS:
        raise UnknownFeeder(log.kind)
    return KINDS[log.kind](log, tools)


def sources(tools: Tools) -> Callable[[FeedLog], LogSource]:
    """`make_source` for logs that all share their tools: what `FeederPool` is handed."""
    return lambda log: make_source(log, tools)
