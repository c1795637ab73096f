"""HTTP/1.1 by aiohttp: routes, bounded bodies, and nothing that a handler of the hot route does not need.

aiohttp's low-level server is used, without its application and router: the few routes are one dictionary, and
a request to add-checkpoint passes one look-up, one read and the door.

The rules of this file:

- What is read of a request is bounded in bytes and in time, also when it is refused.
- Refusing for load comes before reading a body.
- Nothing that is sent names software or versions.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from witness.core.refusals import InternalError
from witness.front.endpoints import Reply, refusal, text
from witness.front.metrics import (
    ADD_CHECKPOINT,
    BROKEN_BODY,
    CHECKPOINT,
    NOT_FOUND,
    SIGN_SUBTREE,
    TOO_LARGE,
    TOO_SLOW,
    WRONG_METHOD,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from witness.front.door import Door
    from witness.front.reports import Reports
    from witness.front.settings import FrontSettings

SERVER = "witness"
"""The Server header: no software, no version."""

DISCARD_BYTES = 1024 * 1024
DISCARD_SECONDS = 1.0
"""What is read at most of a body that nobody wants, so that its sender sees the refusal and not a reset."""

_READ = ("GET", "HEAD")
_CHECKPOINT_END = "/checkpoint"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Route:
    endpoint: str
    methods: tuple[str, ...]
    handle: Callable[[web.BaseRequest], Awaitable[Reply]]


class HttpCarrier:
    """Carries HTTP requests to the door and the reports; one for each set of listeners with the same routes.

    Args:
        door: the core's endpoints.
        reports: health, metrics and pages.
        settings: the front's.
        public: whether the public endpoints are served.
        operator: whether the operator's endpoints are served.
        prefix: a path before every endpoint, or empty.
    """

    def __init__(
        self,
        door: Door,
        reports: Reports,
        settings: FrontSettings,
        *,
        public: bool,
        operator: bool,
        prefix: str = "",
    ) -> None:
        self._door = door
        self._settings = settings
        self._prefix = prefix
        self._reading = 0
        self._busy = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._routes: dict[str, _Route] = {}
        self._monitoring: _Route | None = None
        if public:
            self._monitoring = _Route(CHECKPOINT, _READ, self._checkpoint)
            self._routes[f"{prefix}/add-checkpoint"] = _Route(ADD_CHECKPOINT, ("POST",), self._add_checkpoint)
            self._routes[f"{prefix}/sign-subtree"] = _Route(SIGN_SUBTREE, ("POST",), self._sign_subtree)
            self._report("/", "page", reports.front_page)
            self._report("/about", "page", reports.about)
            if prefix:
                self._report("", "page", self._to_front_page)
        self._report("/healthz", "healthz", reports.healthz)
        if operator:
            self._report("/readyz", "readyz", reports.readyz)
            self._report("/metrics", "metrics", reports.metrics)
            self._report("/status.json", "status", reports.status_json)

    def server(self) -> web.Server:
        """A new server of these routes, for aiohttp's runners."""
        return _Server(
            self._handle,
            keepalive_timeout=self._settings.keep_alive,
            access_log=None,
            # Refused bodies are discarded here, bounded in bytes too; aiohttp would bound the time alone.
            lingering_time=0,
            # A body is what the client sent. (Unpacking would also multiply what one may send.)
            auto_decompress=False,
        )

    async def drain(self) -> None:
        """From now on connections close after their answer; returns once no request is in flight."""
        self._draining = True
        await asyncio.sleep(0)  # what has arrived already becomes a request in flight
        if self._busy:
            await self._idle.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._busy += 1
        try:
            route = self._routes.get(request.raw_path) or self._find(request)
            if route is None:
                reply = self._counted("other", text(404, "no such endpoint", NOT_FOUND))
            elif request.method not in route.methods:
                allow = ", ".join(route.methods)
                line = f"this endpoint takes {allow}"
                # SPEC tlog-witness: The request MUST be an HTTP POST.
                # SPEC tlog-witness (monitor retrieval): The request MUST be an HTTP GET.
                reply = self._counted(route.endpoint, text(405, line, WRONG_METHOD, ("Allow", allow)))
            else:
                reply = await route.handle(request)
            headers = (("Content-Type", reply.content_type), ("Server", SERVER), *reply.headers)
            response = web.Response(status=reply.status, body=reply.body, headers=headers)
            if self._draining:
                response.force_close()
            if not request.content.is_eof():
                await _send_before_body(request, response, reply)
            return response
        finally:
            self._busy -= 1
            if self._draining and not self._busy:
                self._idle.set()

    def _find(self, request: web.BaseRequest) -> _Route | None:
        """The route of a path that is not exactly one of ours: with a query, absolute, or a monitor's."""
        path = _path(request)
        monitoring = path.endswith(_CHECKPOINT_END) and path.startswith(f"{self._prefix}/")
        return self._routes.get(path) or (self._monitoring if monitoring else None)

    async def _add_checkpoint(self, request: web.BaseRequest) -> Reply:
        body = await self._body(request, ADD_CHECKPOINT)
        return await self._door.add_checkpoint(body) if isinstance(body, bytes) else body

    async def _sign_subtree(self, request: web.BaseRequest) -> Reply:
        body = await self._body(request, SIGN_SUBTREE)
        return await self._door.sign_subtree(body) if isinstance(body, bytes) else body

    async def _checkpoint(self, request: web.BaseRequest) -> Reply:
        segment = _path(request)[len(self._prefix) + 1 : -len(_CHECKPOINT_END)]
        return await self._door.checkpoint(segment, request.headers.get("If-None-Match"))

    async def _to_front_page(self) -> Reply:
        # The page's links are relative, so that it works behind any proxy; they need the final slash.
        return text(308, "see /", "ok", ("Location", f"{self._prefix}/"))

    async def _body(self, request: web.BaseRequest, endpoint: str) -> bytes | Reply:
        """The whole body, or the reply that says why it was not read."""
        if self._door.full:
            return self._door.shed(endpoint)
        content = request.content
        limit = self._settings.body_limit
        if content.is_eof():  # most bodies arrive with their headers: no waiting, no timer
            try:
                body = content.read_nowait()
            except web.RequestPayloadError:
                return self._counted(endpoint, _broken_body())
            return body if len(body) <= limit else self._counted(endpoint, _too_large(limit))
        if (request.content_length or 0) > limit:
            return self._counted(endpoint, _too_large(limit))
        # Slow senders have a bound of their own: they cannot take the places of those who have sent all.
        if self._reading >= self._settings.max_reading:
            return self._door.shed(endpoint)
        self._reading += 1
        try:
            received = await _receive(request, limit, self._settings.body_timeout)
        finally:
            self._reading -= 1
        return received if isinstance(received, bytes) else self._counted(endpoint, received)

    def _report(self, path: str, endpoint: str, report: Callable[[], Awaitable[Reply]]) -> None:
        async def handle(_request: web.BaseRequest) -> Reply:
            return self._counted(endpoint, await report())

        self._routes[self._prefix + path] = _Route(endpoint, _READ, handle)

    def _counted(self, endpoint: str, reply: Reply) -> Reply:
        return self._door.answered(endpoint, reply)


async def _receive(request: web.BaseRequest, limit: int, seconds: float) -> bytes | Reply:
    """Reads a body of at most `limit` bytes within `seconds`; else the reply to its sender."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            if _expects_continue(request):
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # aiohttp takes what it has written for the response's start
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > limit:
                    return _too_large(limit)
                chunks.append(chunk)
    except ConnectionError:
        return _broken_body()  # the sender has gone: nobody will read this
    except TimeoutError:
        return text(408, f"the body did not arrive within {seconds:g} s", TOO_SLOW)
    except web.RequestPayloadError:
        return _broken_body()
    return b"".join(chunks)


async def _send_before_body(request: web.BaseRequest, response: web.Response, reply: Reply) -> None:
    """Sends a response whose request has a body still arriving, and reads a bounded part of that body."""
    content = request.content
    # Without the body's end the next request's start is not known; aiohttp closes such connections, and
    # where we know that now, we say it.
    given_up = reply.outcome in (TOO_SLOW, BROKEN_BODY) or _expects_continue(request)
    if given_up or reply.outcome == TOO_LARGE:
        response.force_close()
    left = DISCARD_BYTES
    try:
        await response.prepare(request)
        await response.write_eof()
        if given_up:
            return
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0 and (chunk := await content.readany()):
                left -= len(chunk)
    except (TimeoutError, ConnectionError, web.RequestPayloadError):
        return  # or its sender has gone


def _path(request: web.BaseRequest) -> str:
    raw = request.raw_path
    # RFC 9112, 3.2.2: a server takes the absolute form too.
    return raw.partition("?")[0] if raw.startswith("/") else request.rel_url.raw_path


def _expects_continue(request: web.BaseRequest) -> bool:
    return request.headers.get("Expect", "").lower() == "100-continue"


def _too_large(limit: int) -> Reply:
    return text(413, f"the body is larger than {limit} bytes", TOO_LARGE)


def _broken_body() -> Reply:
    return text(400, "the body's transfer coding is broken", BROKEN_BODY)


class _Server(web.Server):
    """aiohttp's server, of connections that answer in our own words."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **options: Any
    ) -> None:
        super().__init__(handler)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


class _Connection(web.RequestHandler):
    """One connection; what is no HTTP, and what fails by a bug, gets one plain line and the end of it."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # quotes the peer's bytes; nobody needs them back
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004  # a class of statuses
            _log.error("a handler failed", exc_info=exc)
            reply = refusal(InternalError())
        else:
            reply = text(400, "malformed HTTP request", BROKEN_BODY)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun; it cannot become another")
        headers = (("Content-Type", reply.content_type), ("Server", SERVER), *reply.headers)
        response = web.Response(status=reply.status, body=reply.body, headers=headers)
        response.force_close()
        return response
