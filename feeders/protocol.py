"""What a log family gives the polling loop: checkpoints and consistency proofs, and two kinds of failure.

As in the field's best clients there are two families of errors: the world failed (`FetchFailed`, worth
retrying with back-off), or the log is wrong (`BadLogData`, retried only at the log's next turn).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from witness.tlog.checkpoint import Checkpoint
    from witness.tlog.note import VerifierKey

Fetch = Callable[[str, int], Awaitable[bytes]]
"""`fetch(url, limit)`: the body of one GET, at most `limit` bytes after decompression.

Raises `NotFound`, other `FetchFailed`, and `BadLogData` (`TooLong` for a body longer than the limit).
"""

MAX_CHECKPOINT_SIZE: Final = 64 * 1024
"""Bytes of a signed checkpoint: room for sixteen ML-DSA-44 signature lines of 3.3 kB each."""


class FeedError(Exception):
    """A log could not be polled.

    Attributes:
        url: the resource that was asked for.
        reason: one plain line.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class FetchFailed(FeedError):
    """The world failed: no answer in time, a broken connection, a status other than 200."""


class NotFound(FetchFailed):
    """The server answers that it has no such resource (404 or 410)."""


class TooSlow(FetchFailed):
    """No complete answer in time: a server that stalls, or sends a byte a second."""


class BadLogData(FeedError):
    """The log is wrong: an answer that is too long, malformed, or does not lead to its own root hash."""


class TooLong(BadLogData):
    """An answer longer than the resource may be; an endless one is one of these."""


class WrongProof(BadLogData):
    """Tiles, or a proof, that do not lead to the root hash of the log's own signed checkpoint."""


class BadUrl(FeedError):
    """The configured URL is not of the form that the log's family wants."""


@dataclass(frozen=True, slots=True)
class FeedLog:
    """A log to poll.

    Attributes:
        origin: the checkpoint origin, which names the log.
        vkeys: the log's keys, as many as are trusted for the origin.
        kind: the family (`feeders.kinds`), or `none`.
        url: the log's prefix, with its family's parameters as a query.
        interval: seconds from one poll to the next.
    """

    origin: str
    vkeys: tuple[VerifierKey, ...]
    kind: str
    url: str
    interval: float

    @property
    def host(self) -> str:
        """The server that is asked, as `host:port`: what limits a host are counted by."""
        return urlsplit(self.url).netloc.lower()


class LogSource(Protocol):
    """One log, as its family's API shows it. It does not judge checkpoints: the loop and the core do."""

    async def fetch_checkpoint(self) -> bytes:
        """The latest checkpoint as a signed note, as served; at most `MAX_CHECKPOINT_SIZE` bytes.

        Raises:
            FetchFailed: the world failed.
            BadLogData: the answer cannot be a checkpoint.
        """

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """The consistency proof from `old_size` to a checkpoint whose signature was verified.

        A source that can tell returns only proofs that lead to the checkpoint's root hash, so that the
        core's refusal of such a proof means a fork and not a damaged answer.

        Args:
            old_size: tree size, 1 <= old_size < checkpoint.size.
            checkpoint: the checkpoint to prove.
            old_root: the 32-byte root hash at `old_size`, where the caller knows it. It may spare a
                request; a proof that contradicts it but fits the checkpoint is returned all the same.

        Returns:
            32-byte hashes in the order of RFC 6962, section 2.1.2.

        Raises:
            ValueError: the sizes are not as above.
            FetchFailed: the world failed.
            BadLogData: the log's answers do not lead to the checkpoint's root hash.
        """
