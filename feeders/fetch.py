"""One bounded, polite GET: every byte that feeders read from a log's server comes through here.

Rules: the status must be 200, or 304 to a question of ours. The body is bounded by what the caller says the
resource may be, counted after decompression, and is dropped with its connection at the first byte too many.
One deadline covers everything, redirects included, so that a trickle ends too; waiting for our own limits is
not counted against it. Redirects lead to the same server or to https.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from feeders.hosts import HostLimits, Hosts
from feeders.protocol import BadLogData, FetchFailed, NotFound, TooLong, TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_REDIRECTS: Final = 3

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})
_ANY_ZLIB_HEADER: Final = 32 + zlib.MAX_WBITS  # recognises gzip and zlib by their headers
_CHUNK: Final = 16 * 1024
_MEGA: Final = 1024 * 1024
_MAX_VALIDATOR: Final = 512
_CONNECT_ALONE: Final = aiohttp.ClientTimeout(total=None, sock_connect=10.0)


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer that can be asked for again on condition that it has changed (RFC 9110, section 13)."""

    body: bytes
    question: tuple[tuple[str, str], ...]


class _HeldAnswers:
    """The latest answers with validators, the least recently used dropped first.

    Args:
        most: bytes of bodies, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def get(self, url: str) -> _Held | None:
        held = self._held.get(url)
        if held is not None:
            self._held.move_to_end(url)
        return held

    def put(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Keeps an answer if it has a validator; forgets the one before in any case."""
        before = self._held.pop(url, None)
        self._size -= len(before.body) if before else 0
        etag, date = headers.get("ETag"), headers.get("Last-Modified")
        # The entity tag is the better one, and is enough; the date has a resolution of a second only.
        question = (("If-None-Match", etag),) if etag else (("If-Modified-Since", date),) if date else ()
        if not question or any(len(value) > _MAX_VALIDATOR for _, value in question):
            return
        self._held[url] = _Held(body, question)
        self._size += len(body)
        while self._size > self._most:
            _, dropped = self._held.popitem(last=False)
            self._size -= len(dropped.body)


class HttpFetch:
    """A `feeders.protocol.Fetch` over an aiohttp session; `latest` is another, for what changes.

    The session's connector bounds the connections in all; it is shared by all logs, made and closed by
    whoever composes the front. Needs no cookies: hand in a session with a `DummyCookieJar`.

    Args:
        session: the shared client session.
        user_agent: says who asks, and where to complain.
        timeout: seconds for one whole answer, redirects included.
        limits: what one host is asked at most, for all its logs together; None for no limit.
        held: bytes of answers kept to be revalidated, at most.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        user_agent: str,
        timeout: float = 20.0,
        *,
        limits: HostLimits | None = None,
        held: int = 32 * _MEGA,
    ) -> None:
        self._session = session
        self._timeout = timeout
        self._hosts = Hosts(limits) if limits is not None else None
        self._held = _HeldAnswers(held)
        # Hashes do not compress, so we ask for none; a server that compresses all the same is understood.
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self.requests = 0
        self.not_modified = 0
        self.bytes = 0

    async def __call__(self, url: str, limit: int) -> bytes:
        """The body of a GET of `url`, at most `limit` bytes.

        Raises:
            NotFound: the status is 404 or 410.
            TooSlow: no complete answer in time.
            FetchFailed: any other status than 200, a forbidden redirect, a broken connection.
            TooLong: the body is longer than `limit`.
            BadLogData: the body is not what its Content-Encoding says.
        """
        return await self._fetch(url, limit, latest=False)

    async def latest(self, url: str, limit: int) -> bytes:
        """As the call, of a resource that is asked for again and again.

        Where the server gave a validator (ETag, Last-Modified), the next question is conditional, and the
        answer that nothing has changed is answered with what is held.
        """
        return await self._fetch(url, limit, latest=True)

    async def _fetch(self, url: str, limit: int, *, latest: bool) -> bytes:
        try:
            target = URL(url)
        except ValueError as error:
            raise FetchFailed(url, "not a URL") from error
        loop = asyncio.get_running_loop()
        left = self._timeout
        for _ in range(MAX_REDIRECTS + 1):
            try:
                if self._hosts is None:
                    began = loop.time()
                    answer = await self._within(left, url, target, limit, latest=latest)
                else:
                    async with self._hosts.turn(f"{target.host}:{target.port}"):
                        began = loop.time()
                        answer = await self._within(left, url, target, limit, latest=latest)
            except TimeoutError as error:
                raise TooSlow(url, f"no complete answer within {self._timeout:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                raise FetchFailed(url, _one_line(error)) from error
            left -= loop.time() - began
            if isinstance(answer, bytes):
                return answer
            if not _may_redirect(target, answer):
                raise FetchFailed(url, f"refused to follow a redirect to {answer}")
            target = answer
        raise FetchFailed(url, f"more than {MAX_REDIRECTS} redirects")

    async def _within(
        self, seconds: float, url: str, target: URL, limit: int, *, latest: bool
    ) -> bytes | URL:
        async with asyncio.timeout(seconds):
            return await self._get(url, target, limit, latest=latest)

    async def _get(self, url: str, target: URL, limit: int, *, latest: bool) -> bytes | URL:
        """The body, or where a redirect leads."""
        held = self._held.get(str(target)) if latest else None
        headers = self._headers if held is None else self._headers | dict(held.question)
        self.requests += 1
        # auto_decompress=False: the library would inflate what it likes before we could count.
        # The context manager closes the connection where a body was not read to its end.
        async with self._session.get(
            target, headers=headers, allow_redirects=False, auto_decompress=False, timeout=_CONNECT_ALONE
        ) as response:
            status = response.status
            if status in _REDIRECTS:
                try:
                    return target.join(URL(response.headers.get("Location", "")))
                except ValueError as error:
                    raise FetchFailed(url, "a redirect to nowhere") from error
            if status == _NOT_MODIFIED and held is not None:
                self.not_modified += 1
                if len(held.body) > limit:
                    raise TooLong(url, f"the body is longer than {limit} bytes")
                return held.body
            if status in _GONE:
                raise NotFound(url, f"status {status}")
            if status != _OK:
                raise FetchFailed(url, f"status {status}")
            body = await self._body(url, response, limit)
            if latest:
                self._held.put(str(target), body, response.headers)
            return body

    async def _body(self, url: str, response: aiohttp.ClientResponse, limit: int) -> bytes:
        inflate = _decoder(url, response.headers.get("Content-Encoding", ""))
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            self.bytes += len(chunk)
            try:
                body += inflate(chunk, limit - len(body) + 1)
            except zlib.error as error:
                raise BadLogData(url, "the body is not what its Content-Encoding says") from error
            if len(body) > limit:
                raise TooLong(url, f"the body is longer than {limit} bytes")
        return bytes(body)


def open_session(connections: int) -> aiohttp.ClientSession:
    """A session as `HttpFetch` wants it: no cookies, and so many connections in all.

    The limits of a single host are `HostLimits`.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=300),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


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
