"""One bounded POST, for add-checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

MAX_ANSWER: Final = 128 * 1024
"""Bytes of an answer: room for sixteen ML-DSA-44 cosignatures, twice over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status and body, at most `MAX_ANSWER` bytes of it."""

    status: int
    body: bytes


class PostFailed(Exception):
    """No complete answer: the world failed; `reason` says how."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


Post = Callable[[str, bytes], Awaitable[Answer]]
"""`post(url, body)`: the answer, whatever its status; raises PostFailed."""


class HttpPost:
    """A `Post` over an aiohttp session. Follows no redirect: a witness has one address.

    Args:
        session: the shared client session.
        user_agent: says who asks.
        timeout: seconds for one whole answer.
    """

    def __init__(self, session: aiohttp.ClientSession, user_agent: str, timeout: float = 20.0) -> None:
        self._session = session
        self._timeout = timeout
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}

    async def __call__(self, url: str, body: bytes) -> Answer:
        """See `Post`."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.post(
                    url, data=body, headers=self._headers, allow_redirects=False, auto_decompress=False
                ) as response,
            ):
                answer = bytearray()
                async for chunk in response.content.iter_chunked(16 * 1024):
                    answer += chunk
                    if len(answer) > MAX_ANSWER:
                        raise PostFailed(url, f"the answer is longer than {MAX_ANSWER} bytes")
                return Answer(response.status, bytes(answer))
        except TimeoutError as error:
            raise PostFailed(url, f"no complete answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PostFailed(url, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
