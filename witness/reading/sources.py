"""Where cosignatures come from: the log itself, distributors, and witnesses.

A source that fails, or that gives what does not count, is told of and passed over: no source can keep others
from being asked. Only a fork (`Forked`) ends everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from feeders.protocol import MAX_CHECKPOINT_SIZE, FeedError, Fetch, NotFound
from witness.reading.heads import BadHead, Gathering, Head
from witness.reading.log import LogReader
from witness.reading.post import Answer, Post, PostFailed
from witness.tlog.checkpoint import log_id, origin_hash
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, parse_signature_lines
from witness.tlog.submission import format_add_checkpoint

Tell = Callable[[str], None]
"""Takes one line about a source that did not help."""

Enough = Callable[[], bool]
"""Whether what was gathered suffices."""

_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_TRIES: Final = 3  # of one add-checkpoint: others may feed the witness at the same time
_OK: Final = 200
_CONFLICT: Final = 409
_MOST_N: Final = 32


@dataclass(frozen=True, slots=True)
class Sources:
    """Who is asked, in this order, until it is enough.

    Attributes:
        fetch: the bounded GET.
        distributors: URLs without `/distributor/v0`.
        monitoring: witnesses' monitoring prefixes.
        submission: witnesses' submission prefixes, for add-checkpoint.
        post: the bounded POST; needed with `submission`.
    """

    fetch: Fetch
    distributors: tuple[str, ...] = ()
    monitoring: tuple[str, ...] = ()
    submission: tuple[str, ...] = ()
    post: Post | None = None


class Collector:
    """Collects cosignatures for one log.

    Args:
        gathering: takes what the sources give.
        reader: the log, for consistency proofs to witnesses.
        sources: who is asked.
        tell: hears of what did not help.
    """

    def __init__(self, gathering: Gathering, reader: LogReader, sources: Sources, tell: Tell) -> None:
        self._gathering = gathering
        self._reader = reader
        self._sources = sources
        self._tell = tell

    async def collect(self, head: Head, enough: Enough) -> None:
        """Asks all sources in turn until it is enough.

        Args:
            head: the log's own latest checkpoint, which was added to the gathering.
            enough: when to stop.

        Raises:
            Forked: the log has signed two roots at one size.
        """
        origin = head.checkpoint.origin
        for url in self._sources.distributors:
            await self._ask_distributor(url, origin, enough)
        for url in self._sources.monitoring:
            if not enough():
                await self._take(f"{url.rstrip('/')}/{origin_hash(origin).hex()}/checkpoint")
        for url in self._sources.submission:
            if self._sources.post is not None and not enough():
                await self._submit(self._sources.post, f"{url.rstrip('/')}/add-checkpoint", head)

    async def _take(self, url: str) -> Head | None:
        """The checkpoint at a URL, or None, which was told of; not being there is quite ordinary."""
        try:
            return self._gathering.add(await self._sources.fetch(url, MAX_CHECKPOINT_SIZE))
        except NotFound:
            return None
        except FeedError as error:
            self._tell(str(error))
        except BadHead as error:
            self._tell(f"{url}: {error.reason}")
        return None

    async def _ask_distributor(self, base: str, origin: str, enough: Enough) -> None:
        """The newest checkpoint with N cosignatures, N growing; then each witness's own latest.

        github.com/transparency-dev/distributor, api/http.go. Its N counts all witnesses that it knows, not
        those of our policy: so the least N that could do may not do.
        """
        logs = f"{base.rstrip('/')}/distributor/v0/logs/{log_id(origin)}"
        trust = self._gathering.trust
        for count in range(max(1, trust.fewest()), min(trust.most(), _MOST_N) + 1):
            if enough() or await self._take(f"{logs}/checkpoint.{count}") is None:
                break
        for name in dict.fromkeys(key.name for key in trust.witness_keys(())):
            if enough():
                return
            await self._take(f"{logs}/byWitness/{quote(name, safe='')}/checkpoint")

    async def _submit(self, post: Post, url: str, head: Head) -> None:
        """Has a witness cosign the log's latest checkpoint (tlog-witness, add-checkpoint)."""
        known = 0
        try:
            for _ in range(_TRIES):
                proof = await self._reader.proof(known, head.size) if 0 < known < head.size else ()
                answer = await post(url, format_add_checkpoint(known, proof, head.note))
                if answer.status == _OK:
                    self._gathering.add_lines(head, parse_signature_lines(answer.body))
                    return
                size = _conflict_size(answer)
                if size is None:
                    self._tell(f"{url}: status {answer.status}: {_first_line(answer.body)}")
                    return
                if size > head.size:
                    self._tell(f"{url}: has seen size {size} already; the log's latest is {head.size}")
                    return
                known = size
            self._tell(f"{url}: others feed it faster than we do")
        except PostFailed as error:
            self._tell(str(error))
        except FeedError as error:
            self._tell(f"no consistency proof for {url}: {error}")
        except BadHead as error:
            self._tell(f"{url}: {error.reason}")
        except MalformedNote as error:
            self._tell(f"{url}: not signature lines: {error.reason}")


def _conflict_size(answer: Answer) -> int | None:
    # SPEC tlog-witness: "The response body MUST consist of the tree size of the latest cosigned checkpoint
    # in decimal, followed by a newline (U+000A)."
    match = _SIZE.fullmatch(answer.body) if answer.status == _CONFLICT else None
    size = int(match[1]) if match is not None else None
    return size if size is not None and size <= MAX_TREE_SIZE else None


def _first_line(body: bytes) -> str:
    lines = body[:400].decode("utf-8", "replace").splitlines()
    return lines[0][:200] if lines else "no reason given"
