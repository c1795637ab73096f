"""The public endpoints as functions from bytes to a `Reply`: https://c2sp.org/tlog-witness, HTTP Interface.

Carriers (aiohttp, a bastion's HTTP/2 stream) read a bounded body, call an endpoint and send what it returns.
Nothing here knows which carrier it was. Which status a refusal has stands in `STATUS` and nowhere else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from witness.core import refusals
from witness.core.refusals import CoreError, Overloaded, StaleOldSize, Unavailable

if TYPE_CHECKING:
    from witness.core.wire import Core, CoreStatus

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
# SPEC tlog-witness: The response MUST have a `Content-Type` of `text/x.tlog.size`.
# Exactly so, without a charset: clients compare it as a string, and take anything else for a root mismatch.
SIZE = "text/x.tlog.size"

RETRY_AFTER = 1
"""Seconds after which a request that met a failure of ours is worth repeating."""
MAX_AGE = 10
"""Seconds for which a cache may keep a checkpoint, or its absence. (tlog-witness allows up to an hour.)"""

STATUS: dict[type[CoreError], int] = {
    # SPEC tlog-witness: The request body MUST be a sequence of … (the form of the body, and of
    # sign-subtree's)
    refusals.MalformedRequest: 400,
    # SPEC tlog-witness: If the checkpoint origin is unknown, the witness MUST respond with a "404 Not Found"
    # HTTP status code. (Of add-checkpoint and of sign-subtree.)
    refusals.UnknownOrigin: 404,
    refusals.DisabledLog: 404,
    # SPEC tlog-witness: The witness MUST respond with a "403 Forbidden" HTTP status code if either no
    # signature from a trusted key for the origin is present, or a signature line's key name and ID match a
    # trusted key but the signature itself fails to verify
    refusals.NoTrustedSignature: 403,
    refusals.InvalidSignature: 403,
    refusals.UnsignedExtensions: 403,
    # SPEC tlog-witness: The old size MUST be equal to or lower than the checkpoint size. Otherwise, the
    # witness MUST respond with a "400 Bad Request" HTTP status code.
    refusals.OldSizeTooLarge: 400,
    # SPEC tlog-witness: If it doesn't match, the witness MUST respond with a "409 Conflict" HTTP status code.
    refusals.StaleOldSize: 409,
    # SPEC tlog-witness: A checkpoint of size zero MUST have the root hash of the empty tree […] Otherwise,
    # the witness MUST respond with a "422 Unprocessable Entity" HTTP status code.
    refusals.WrongEmptyRoot: 422,
    # SPEC tlog-witness: If the proof is not empty when the old size is zero, or if a Merkle Consistency Proof
    # doesn't verify, the witness MUST respond with a "422 Unprocessable Entity" HTTP status code.
    refusals.InvalidProof: 422,
    # SPEC tlog-witness: If the old size matches the checkpoint size, the witness MUST check that the root
    # hashes are also identical. If they don't match, the witness MUST respond with a "422 Unprocessable
    # Entity"
    refusals.RootMismatch: 422,
    # SPEC tlog-witness, sign-subtree: If the request is invalid according to the rules above, the witness
    # MUST respond with a "400 Bad Request" HTTP status code.
    refusals.InvalidSubtree: 400,
    # SPEC tlog-witness, sign-subtree: If the Merkle Consistency Proof doesn't verify, the witness MUST
    # respond with a "422 Unprocessable Entity" HTTP status code.
    refusals.InvalidSubtreeProof: 422,
    # SPEC tlog-witness, sign-subtree: If the witness can't verify the checkpoint, it MUST respond with a "403
    # Forbidden" HTTP status code.
    refusals.NoOwnCosignature: 403,
    # SPEC tlog-witness: It is OPTIONAL for a witness to support this API.
    refusals.SubtreesUnsupported: 501,
    # SPEC tlog-witness: If the witness has never cosigned a checkpoint for that log, it MUST respond with a
    # "404 Not Found" HTTP status code instead.
    refusals.NoCheckpoint: 404,
    refusals.Overloaded: 429,
    refusals.ClockBehind: 503,
    refusals.ClockWrong: 503,
    refusals.StateBehind: 503,
    refusals.SigningStopped: 503,
    refusals.NotCompared: 503,
    refusals.NotYetCosigned: 503,
    refusals.KeyUnavailable: 503,
    refusals.StoreUnavailable: 503,
    refusals.Stopping: 503,
    refusals.CoreUnreachable: 503,
    refusals.InternalError: 500,
}

OK = "ok"
NOT_MODIFIED = "not-modified"
NOT_READY = "not-ready"

# SPEC tlog-witness: The origin hash is the SHA-256 hash of the log's origin, hex encoded, in lowercase.
_ORIGIN_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a carrier sends: a status, the exact Content-Type, the body, further headers.

    `outcome` names it for metrics and logs: `ok`, or a code out of a fixed set, never a caller's bytes.
    """

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    outcome: str = OK


class HasStatus(Protocol):
    """The one thing that health asks of the core."""

    async def status(self) -> CoreStatus:
        """How the core is."""
        ...


def text(status: int, line: str, outcome: str, *headers: tuple[str, str]) -> Reply:
    """A reply of one plain line, whatever characters `line` holds."""
    body = " ".join(line.splitlines()).encode("utf-8", "backslashreplace") + b"\n"
    return Reply(status, TEXT, body, headers, outcome)


def refusal(error: CoreError) -> Reply:
    """The reply that tells a caller why not."""
    if isinstance(error, StaleOldSize):
        # SPEC tlog-witness: The response body MUST consist of the tree size of the latest cosigned
        # checkpoint in decimal, followed by a newline (U+000A).
        return Reply(STATUS[StaleOldSize], SIZE, b"%d\n" % error.known, (), error.code)
    status = STATUS[type(error)]
    if isinstance(error, Overloaded):
        return text(status, str(error), error.code, ("Retry-After", str(max(1, error.retry_after))))
    if isinstance(error, Unavailable) and status == STATUS[refusals.CoreUnreachable]:
        return text(status, str(error), error.code, ("Retry-After", str(RETRY_AFTER)))
    return text(status, str(error), error.code)


async def add_checkpoint(core: Core, body: bytes) -> Reply:
    """`POST <submission prefix>/add-checkpoint`: the cosignature lines, or why there are none.

    Raises:
        Refusal, Unavailable: what the core answers; `refusal` makes a reply of them.
    """
    # SPEC tlog-witness: If all the checks above pass, the witness MUST update its record of the latest
    # cosigned checkpoint and respond with a "200 Success" HTTP status code. The response body MUST be a
    # sequence of one or more note signature lines. (The record is durable before the core returns.)
    return Reply(200, TEXT, await core.add_checkpoint(body))


async def sign_subtree(core: Core, body: bytes) -> Reply:
    """`POST <submission prefix>/sign-subtree`: the subtree cosignature lines.

    Raises:
        Refusal, Unavailable: what the core answers; `refusal` makes a reply of them.
    """
    # SPEC tlog-witness, sign-subtree: the witness MUST respond with a "200 Success" HTTP status code. The
    # response body MUST be a sequence of one or more note signature lines for the subtree
    return Reply(200, TEXT, await core.sign_subtree(body))


async def checkpoint(core: Core, origin_hash: str, if_none_match: str | None = None) -> Reply:
    """`GET <monitoring prefix>/<origin hash>/checkpoint`: the latest cosigned checkpoint, cacheable.

    Args:
        core: the core.
        origin_hash: the path segment as it came.
        if_none_match: the request's If-None-Match header, or None.
    """
    caching = (("Cache-Control", f"public, max-age={MAX_AGE}"), ("Access-Control-Allow-Origin", "*"))
    if _ORIGIN_HASH.fullmatch(origin_hash) is None:
        return text(404, "not an origin hash: 64 lowercase hex digits", refusals.NoCheckpoint.code, *caching)
    try:
        # SPEC tlog-witness: The response body MUST be a checkpoint for the log identified by the origin, and
        # it MUST include the cosignature(s) from the witness's key(s) that were returned from add-checkpoint
        # and the cosignature from the log key(s) that the witness verified.
        # (As the core stored it, byte by byte.)
        note = await core.checkpoint(bytes.fromhex(origin_hash))
    except refusals.NoCheckpoint as error:
        return text(STATUS[type(error)], str(error), error.code, *caching)
    tag = f'"{hashlib.sha256(note).hexdigest()[:32]}"'
    headers = (*caching, ("ETag", tag))
    if if_none_match is not None and _matches(if_none_match, tag):
        return Reply(304, TEXT, b"", headers, NOT_MODIFIED)
    return Reply(200, TEXT, note, headers)


async def healthz(core: HasStatus) -> Reply:
    """`GET /healthz`: 200 once the core answers, whatever it answers.

    Raises:
        Unavailable: it does not.
    """
    await core.status()
    return Reply(200, TEXT, b"ok\n", (("Cache-Control", "no-store"),))


async def readyz(core: HasStatus) -> Reply:
    """`GET /readyz`: 200 while the core would sign, else 503 with one line for each reason.

    Raises:
        Unavailable: the core does not answer.
    """
    status = await core.status()
    uncached = ("Cache-Control", "no-store")
    if status.ready:
        return Reply(200, TEXT, b"ready\n", (uncached,))
    lines = [" ".join(reason.splitlines()) for reason in status.reasons] or ["not ready"]
    body = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
    return Reply(503, TEXT, body, (uncached, ("Retry-After", str(RETRY_AFTER))), NOT_READY)


def _matches(if_none_match: str, tag: str) -> bool:
    """Whether an If-None-Match header names the entity tag (RFC 9110, 13.1.2: compared weakly)."""
    candidates = (candidate.strip() for candidate in if_none_match.split(","))
    return any(candidate == "*" or candidate.removeprefix("W/") == tag for candidate in candidates)
