"""What the sources of all families share in one process: the bounded GET, kept tiles, shared answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from feeders.cache import TileCache
from feeders.protocol import FeedError, Fetch


@dataclass(slots=True)
class _Answer:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    body: bytes | None = None
    asked: float = float("-inf")
    failure: FeedError | None = None
    failed: float = float("-inf")


class SharedAnswers:
    """One fetch of a resource for all that want it at about the same time.

    For resources in which one server tells of many logs. It remembers one answer a URL, of configured
    URLs only.

    Args:
        fetch: the bounded GET.
        now: seconds, monotonic.
    """

    def __init__(self, fetch: Fetch, now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._now = now
        self._answers: dict[str, _Answer] = {}

    async def get(self, url: str, limit: int, max_age: float) -> bytes:
        """The body of `url`, asked for at most `max_age` seconds ago.

        Who waits while another asks takes that answer, or that failure.

        Raises:
            FetchFailed, BadLogData: as the GET.
        """
        answer = self._answers.setdefault(url, _Answer())
        arrived = self._now()
        async with answer.lock:
            if answer.body is not None and arrived - answer.asked < max_age:
                return answer.body
            if answer.failure is not None and answer.failed >= arrived:
                raise type(answer.failure)(answer.failure.url, answer.failure.reason)
            asked = self._now()
            try:
                body = await self._fetch(url, limit)
            except FeedError as error:
                answer.failure, answer.failed = error.with_traceback(None), self._now()
                raise
            answer.body, answer.asked, answer.failure = body, asked, None
            return body


class Tools:
    """What a family's source is made with.

    Args:
        fetch: the bounded GET, for resources that do not change or that nobody asks for twice.
        latest: the same for a resource that is asked for again and again: a checkpoint. It may revalidate
            what it has; without it, `fetch` is used.
        tiles: full tiles that were fetched before.
        now: seconds, for the age of shared answers.
    """

    def __init__(
        self,
        fetch: Fetch,
        latest: Fetch | None = None,
        tiles: TileCache | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fetch = fetch
        self.latest = latest if latest is not None else fetch
        self.tiles = tiles if tiles is not None else TileCache()
        self.shared = SharedAnswers(self.latest, now)
