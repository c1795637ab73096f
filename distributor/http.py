"""Handing cosigned checkpoints to a distributor over HTTP.

The distributor is github.com/transparency-dev/distributor, whose API is

    PUT {base}/distributor/v0/logs/{log ID}/byWitness/{witness name}/checkpoint

with the cosigned checkpoint as the body. 200 is success. It answers 400 when it does not know the log or
the witness, when it cannot verify both their signatures, and when it already has a larger checkpoint.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import aiohttp
from yarl import URL

from distributor.pace import Clock, SystemClock
from distributor.protocol import PublishFailed, PublishRejected, TargetUnavailable
from distributor.retry_after import parse_retry_after
from witness.tlog.checkpoint import log_id

MAX_ANSWER = 4096
"""Bytes of an answer's body that are read, at most; only the reason of a failure is of interest."""
_MAX_REASON = 200  # characters of it that are shown
_MAX_REDIRECTS = 3

_OK = 200
_KEEPS_METHOD = (307, 308)
_REDIRECTS = range(300, 400)
_CLIENT_ERRORS = range(400, 500)
# Of the 4xx, these speak of the moment and not of the request: time-out, too early.
_PASSING = (408, 425)
# These speak of the server and not of the origin: every other request would get the same answer.
_WHOLE_TARGET = (429, 503)


def open_session() -> aiohttp.ClientSession:
    """A session fit for distributors: no cookies, no decompression, no proxy from the environment.

    The caller closes it, after the publisher has ended. One session serves all targets.
    """
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a bounded read must bound memory too
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
    )


class HttpTarget:
    """One distributor and the name under which we are known there.

    Args:
        base: the distributor's URL without `/distributor/v0`; http or https, no user, query or fragment.
        witness_name: our name, as in our vkeys.
        session: made by `open_session`; not closed here.
        name: what operators know it by; the URL when None.
        timeout: seconds for one publication, redirects and answer included.
        clock: gives the time that a date in Retry-After is counted from.

    Raises:
        ValueError: `base` is not such a URL, or the name cannot stand in a path.
    """

    def __init__(
        self,
        base: str,
        witness_name: str,
        session: aiohttp.ClientSession,
        *,
        name: str | None = None,
        timeout: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        url = URL(base)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"a distributor's URL is http(s)://host…, not {base!r}")
        if url.user is not None or url.password is not None or url.query_string or url.fragment:
            raise ValueError("a distributor's URL has no user, password, query or fragment")
        if witness_name in ("", ".", ".."):  # would be a step in the path even when escaped
            raise ValueError(f"no witness can be published under the name {witness_name!r}")
        self._base = str(url).rstrip("/")
        self._witness = quote(witness_name, safe="")
        self._session = session
        self._name = name or self._base
        self._timeout = timeout
        self._clock: Clock = clock or SystemClock()

    @property
    def name(self) -> str:
        """What operators know it by."""
        return self._name

    def url(self, origin: str) -> URL:
        """Where the checkpoint of an origin is put."""
        path = f"/distributor/v0/logs/{log_id(origin)}/byWitness/{self._witness}/checkpoint"
        # Escaped once, when we were made, and declared so: what is sent is what stands here. yarl would
        # otherwise rewrite the escapes as it sees fit.
        return URL(self._base + path, encoded=True)

    async def publish(self, origin: str, note: bytes) -> None:
        """Puts the cosigned checkpoint, and returns once the distributor has said 200.

        Raises:
            PublishRejected: 4xx, or a redirect that is not followed.
            TargetUnavailable: no connection, no answer in time, 429 or 503.
            PublishFailed: any other answer.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._put(origin, note)
        except TimeoutError as error:
            reason = f"no answer within {self._timeout:g} s"
            raise TargetUnavailable(self._name, origin, reason) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = _one_line(f"{type(error).__name__}: {error}")
            raise TargetUnavailable(self._name, origin, reason) from error

    async def _put(self, origin: str, note: bytes) -> None:
        url = self.url(origin)
        for _ in range(_MAX_REDIRECTS + 1):
            # Redirects are followed here and not by aiohttp, which turns a PUT into a GET on 303 and would
            # carry it to any host: the answer 200 to that GET would look like success.
            async with self._session.put(
                url,
                data=note,
                headers={"Content-Type": "text/plain; charset=utf-8"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout),
            ) as response:
                if response.status == _OK:
                    await _read(response)  # so that the connection can be used again
                    return
                if response.status not in _KEEPS_METHOD:
                    raise await self._failure(origin, response)
                url = self._redirected(origin, url, response)
        raise PublishRejected(self._name, origin, f"more than {_MAX_REDIRECTS} redirects")

    def _redirected(self, origin: str, url: URL, response: aiohttp.ClientResponse) -> URL:
        location = response.headers.get("Location", "")
        answer = f"{response.status} to {_one_line(location)!r}"
        try:
            following = url.join(URL(location, encoded=True)) if location else None
            host = following.host if following else None
        except ValueError:
            following, host = None, None
        if following is None or not host:
            raise PublishRejected(self._name, origin, f"{answer}: a redirect to nowhere")
        # Over plain http anybody on the way can redirect, so it leads to no other host (the witness may
        # stand where it reaches hosts that nobody else can); and what began over https stays there.
        same_host = url.scheme == following.scheme == "http" and url.host == host
        if following.scheme != "https" and not same_host:
            raise PublishRejected(self._name, origin, f"{answer}: a redirect that is not followed")
        return following

    async def _failure(self, origin: str, response: aiohttp.ClientResponse) -> PublishFailed:
        status = response.status
        if status in _REDIRECTS:
            location = _one_line(response.headers.get("Location", ""))
            reason = f"{status} to {location!r}: a redirect that changes the method"
            return PublishRejected(self._name, origin, reason)
        body = _one_line((await _read(response)).decode("utf-8", "replace"))
        reason = f"{status} {body}" if body else str(status)
        wait = parse_retry_after(response.headers.get("Retry-After"), self._clock.posix())
        if status in _WHOLE_TARGET:
            return TargetUnavailable(self._name, origin, reason, wait)
        if status in _CLIENT_ERRORS and status not in _PASSING:
            return PublishRejected(self._name, origin, reason, wait)
        return PublishFailed(self._name, origin, reason, wait)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body's first `MAX_ANSWER` bytes; what is longer costs the connection, not our memory."""
    body = b""
    while len(body) < MAX_ANSWER and (chunk := await response.content.read(MAX_ANSWER - len(body))):
        body += chunk
    return body


def _one_line(text: str) -> str:
    """What a stranger wrote, made fit for a log line and a status page."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(printable.split())
    return line if len(line) <= _MAX_REASON else line[:_MAX_REASON] + "…"
