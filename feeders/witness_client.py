"""A witness as somebody else's feeder sees it: tlog-witness add-checkpoint over HTTP.

Specification: https://c2sp.org/tlog-witness. Its answers become the same typed errors that our own core
raises, so that a poller cannot tell the two apart.
"""

from __future__ import annotations

import re
from typing import Final

import aiohttp

from witness.core.refusals import (
    CoreUnreachable,
    InvalidProof,
    MalformedRequest,
    NoTrustedSignature,
    Overloaded,
    Refusal,
    StaleOldSize,
    Unavailable,
    UnknownOrigin,
)
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, Signature, parse_signature_lines
from witness.tlog.submission import MalformedSubmission, parse_add_checkpoint

MAX_ANSWER: Final = 128 * 1024
"""Bytes of an answer: room for sixteen ML-DSA-44 signature lines, twice."""

_SIZE_TYPE: Final = "text/x.tlog.size"
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_LONGEST_WAIT: Final = 3600


class WitnessClient:
    """One witness by its submission prefix.

    Args:
        session: the shared client session.
        url: the prefix, before `/add-checkpoint`.
        user_agent: says who asks.
        timeout: seconds for one answer.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, user_agent: str, timeout: float = 20.0
    ) -> None:
        self.url = url.rstrip("/")
        self._session = session
        self._headers = {"User-Agent": user_agent, "Content-Type": "text/plain; charset=utf-8"}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self.signatures: tuple[Signature, ...] = ()
        """The lines of the latest good answer, unverified."""

    async def add_checkpoint(self, body: bytes) -> bytes:
        """The witness's cosignature lines for an add-checkpoint body.

        Raises:
            StaleOldSize: 409; `known` is the size that it has.
            Refusal: another answer that says no.
            Overloaded: 429.
            Unavailable: any other answer, or none.
        """
        try:
            async with self._session.post(
                f"{self.url}/add-checkpoint",
                data=body,
                headers=self._headers,
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                answer = await _bounded(response)
                return self._judge(response, answer, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CoreUnreachable(
                f"{self.url}: {' '.join(str(error).split()) or 'no answer in time'}"
            ) from error

    def _judge(self, response: aiohttp.ClientResponse, answer: bytes, body: bytes) -> bytes:
        status = response.status
        if status == 200:  # noqa: PLR2004 - HTTP's own numbers
            # SPEC tlog-witness: "If all the checks pass, the witness MUST respond with a "200 OK" HTTP status
            # code. The response body MUST be a sequence of one or more note signature lines".
            try:
                self.signatures = parse_signature_lines(answer)
            except MalformedNote as error:
                raise CoreUnreachable(f"{self.url}: 200 without signature lines: {error}") from error
            return answer
        if status == 409:  # noqa: PLR2004
            # SPEC tlog-witness: "The response body MUST consist of the tree size of the latest cosigned
            # checkpoint in decimal, followed by a newline (U+000A). The response MUST have a Content-Type of
            # text/x.tlog.size."
            size = _SIZE.fullmatch(answer)
            if response.headers.get("Content-Type") != _SIZE_TYPE or size is None:
                raise CoreUnreachable(f"{self.url}: 409 without a size")
            known = int(size[1])
            if known > MAX_TREE_SIZE:
                raise CoreUnreachable(f"{self.url}: 409 with a size of {known}")
            raise StaleOldSize(known)
        raise _error(self.url, response, answer, body)


def _error(url: str, response: aiohttp.ClientResponse, answer: bytes, body: bytes) -> Refusal | Unavailable:
    """What any other status means."""
    said = " ".join(answer[:200].decode(errors="replace").split())
    origin, old_size, size = _facts(body)
    match response.status:
        case 400:
            return MalformedRequest(f"{url}: {said}")
        case 403:
            return NoTrustedSignature(origin)
        case 404:
            return UnknownOrigin(origin)
        case 422:
            return InvalidProof(old_size, size, said or "422")
        case 429:
            wait = response.headers.get("Retry-After", "")
            return Overloaded(min(int(wait), _LONGEST_WAIT) if wait.isdecimal() else 1)
        case status:
            return CoreUnreachable(f"{url}: status {status}: {said}")


def _facts(body: bytes) -> tuple[str, int, int]:
    try:
        submission = parse_add_checkpoint(body)
    except MalformedSubmission:
        return "", 0, 0
    return submission.checkpoint.origin, submission.old_size, submission.checkpoint.size


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise CoreUnreachable(f"{response.url}: an answer longer than {MAX_ANSWER} bytes")
    return bytes(body)
