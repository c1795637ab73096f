"""One bounded, polite GET: every byte that feeders read from a log's server comes through here.

Rules: the status must be 200. The body is bounded by what the caller says the resource may be, counted
after decompression, and is dropped with its connection at the first byte too many. One deadline covers
everything, redirects included, so that a trickle ends too. Redirects lead to the same server or to https.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from feeders.protocol import BadLogData, FetchFailed, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REDIRECTS: Final = 3

_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})
_ANY_ZLIB_HEADER: Final = 32 + zlib.MAX_WBITS  # recognises gzip and zlib by their headers
_CHUNK: Final = 16 * 1024


class HttpFetch:
    """A `feeders.protocol.Fetch` over an aiohttp session.

    The session's connector bounds the connections in all and per host; it is shared by all logs, made
    and closed by whoever composes the front. Needs no cookies: hand in a session with a `DummyCookieJar`.

    Args:
        session: the shared client session.
        user_agent: says who asks, and where to complain.
        timeout: seconds for one whole answer, redirects included.
    """

    def __init__(self, session: aiohttp.ClientSession, user_agent: str, timeout: float = 20.0) -> None:
        self._session = session
        self._timeout = timeout
        # Hashes do not compress, so we ask for none; a server that compresses all the same is understood.
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}

    async def __call__(self, url: str, limit: int) -> bytes:
        """The body of a GET of `url`, at most `limit` bytes.

        Raises:
            NotFound: the status is 404 or 410.
            FetchFailed: any other status than 200, a forbidden redirect, no complete answer in time.
            BadLogData: the body is longer than `limit`, or not what its Content-Encoding says.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(url, limit)
        except TimeoutError as error:
            raise FetchFailed(url, f"no complete answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise FetchFailed(url, _one_line(error)) from error

    async def _follow(self, url: str, limit: int) -> bytes:
        try:
            target = URL(url)
        except ValueError as error:
            raise FetchFailed(url, "not a URL") from error
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(url, target, limit)
            if isinstance(answer, bytes):
                return answer
            if not _may_redirect(target, answer):
                raise FetchFailed(url, f"refused to follow a redirect to {answer}")
            target = answer
        raise FetchFailed(url, f"more than {MAX_REDIRECTS} redirects")

    async def _get(self, url: str, target: URL, limit: int) -> bytes | URL:
        """The body, or where a redirect leads."""
        # auto_decompress=False: the library would inflate what it likes before we could count.
        # The context manager closes the connection where a body was not read to its end.
        async with self._session.get(
            target,
            headers=self._headers,
            allow_redirects=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as response:
            if response.status in _REDIRECTS:
                try:
                    return target.join(URL(response.headers.get("Location", "")))
                except ValueError as error:
                    raise FetchFailed(url, "a redirect to nowhere") from error
            if response.status in _GONE:
                raise NotFound(url, f"status {response.status}")
            if response.status != _OK:
                raise FetchFailed(url, f"status {response.status}")
            inflate = _decoder(url, response.headers.get("Content-Encoding", ""))
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                try:
                    body += inflate(chunk, limit - len(body) + 1)
                except zlib.error as error:
                    raise BadLogData(url, "the body is not what its Content-Encoding says") from error
                if len(body) > limit:
                    raise BadLogData(url, f"the body is longer than {limit} bytes")
            return bytes(body)


def _decoder(url: str, encoding: str) -> Callable[[bytes, int], bytes]:
    """`inflate(chunk, most)`: the decoded bytes of the next chunk, at most `most` of them."""
    match encoding.strip().lower():
        case "" | "identity":
            return lambda chunk, _most: chunk
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(_ANY_ZLIB_HEADER).decompress
        case _:
            raise BadLogData(url, f"unknown Content-Encoding {encoding[:40]!r}")


def _may_redirect(source: URL, target: URL) -> bool:
    """Whether a redirect is allowed: to https anywhere, else only within the same server.

    A log's server thereby cannot send us to the plain-HTTP services of our own network.
    """
    if target.host is None:
        return False
    return target.scheme == "https" or target.origin() == source.origin()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
