"""Every refusal has its status, and the bytes of a reply are those the specification names."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib

import pytest

from tests.front.fake_core import COSIGNATURES, STATUS, FakeCore
from witness.core import refusals
from witness.core.refusals import BY_CODE, CoreError, Refusal, Unavailable
from witness.front import endpoints
from witness.front.endpoints import SIZE, TEXT

EXAMPLES: list[tuple[CoreError, int]] = [
    (refusals.MalformedRequest(reason="no old size line"), 400),
    (refusals.UnknownOrigin(origin="l"), 404),
    (refusals.DisabledLog(origin="l"), 404),
    (refusals.NoTrustedSignature(origin="l"), 403),
    (refusals.InvalidSignature(key_name="l", key_id="00000000"), 403),
    (refusals.UnsignedExtensions(origin="o"), 403),
    (refusals.OldSizeTooLarge(old_size=5, size=4), 400),
    (refusals.StaleOldSize(known=9), 409),
    (refusals.WrongEmptyRoot(origin="l"), 422),
    (refusals.RootMismatch(origin="l", size=4), 422),
    (refusals.InvalidProof(old_size=1, size=4, reason="r"), 422),
    (refusals.InvalidSubtree(start=1, end=4, reason="r"), 400),
    (refusals.InvalidSubtreeProof(start=1, end=4, size=5, reason="r"), 422),
    (refusals.NoOwnCosignature(origin="l"), 403),
    (refusals.SubtreesUnsupported(), 501),
    (refusals.NoCheckpoint(origin_hash="00"), 404),
    (refusals.Overloaded(retry_after=3), 429),
    (refusals.ClockBehind(now=1, issued=2), 503),
    (refusals.ClockWrong(now=1, reason="before this program was made"), 503),
    (refusals.StateBehind(origin="o", have=1, seen=2, source="the high-water record"), 503),
    (refusals.SigningStopped(kind="restored", reason="from a backup"), 503),
    (refusals.NotCompared(reason="the world has not been asked"), 503),
    (refusals.NotYetCosigned(origin_hash="00" * 32), 503),
    (refusals.KeyUnavailable(key_name="w", reason="r"), 503),
    (refusals.StoreUnavailable(reason="r"), 503),
    (refusals.Stopping(), 503),
    (refusals.CoreUnreachable(reason="r"), 503),
    (refusals.InternalError(), 500),
]


def concrete(cls: type[CoreError]) -> set[type[CoreError]]:
    below = cls.__subclasses__()
    return set().union(*(concrete(sub) for sub in below)) if below else {cls}


def test_every_concrete_error_stands_in_the_table_and_in_the_examples() -> None:
    everything = concrete(CoreError)
    assert set(endpoints.STATUS) == everything
    assert {type(error) for error, _ in EXAMPLES} == everything
    assert set(BY_CODE.values()) == everything


@pytest.mark.parametrize(("error", "status"), EXAMPLES, ids=lambda value: getattr(value, "code", ""))
def test_a_refusal_is_its_status_and_one_line_that_says_why(error: CoreError, status: int) -> None:
    reply = endpoints.refusal(error)
    assert reply.status == status
    assert reply.outcome == error.code
    assert reply.body.endswith(b"\n")
    assert reply.body.count(b"\n") == 1
    if isinstance(error, refusals.StaleOldSize):
        assert (reply.content_type, reply.body, reply.headers) == ("text/x.tlog.size", b"9\n", ())
    else:
        assert reply.content_type == "text/plain; charset=utf-8"
        assert reply.body.decode() == f"{error}\n"


@pytest.mark.parametrize(("error", "status"), EXAMPLES, ids=lambda value: getattr(value, "code", ""))
def test_what_is_worth_repeating_says_when(error: CoreError, status: int) -> None:
    after = dict(endpoints.refusal(error).headers).get("Retry-After")
    if status in (429, 503):
        assert after is not None
        assert int(after) >= 1
    else:
        assert after is None
    if isinstance(error, refusals.Overloaded):
        assert after == "3"


def test_families_keep_to_their_statuses() -> None:
    for cls, status in endpoints.STATUS.items():
        assert issubclass(cls, Refusal) == (status not in (500, 503))
        assert issubclass(cls, Refusal) != issubclass(cls, Unavailable)


@pytest.mark.parametrize("reason", ["two\nlines", "a\r\nb", "\u2028", "lone \udcff surrogate"])
def test_a_body_is_one_line_of_utf8_whatever_the_reason_holds(reason: str) -> None:
    body = endpoints.refusal(refusals.MalformedRequest(reason=reason)).body
    assert len(body.decode("utf-8").splitlines()) == 1
    assert body.endswith(b"\n")


async def test_cosignature_lines_pass_unchanged() -> None:
    core = FakeCore()
    for endpoint in (endpoints.add_checkpoint, endpoints.sign_subtree):
        reply = await endpoint(core, b"body")
        assert (reply.status, reply.content_type, reply.body) == (200, TEXT, COSIGNATURES)
        assert reply.outcome == "ok"
    assert core.bodies == [b"body", b"body"]


async def test_the_largest_known_size_is_written_in_full() -> None:
    reply = endpoints.refusal(refusals.StaleOldSize(known=2**63 - 1))
    assert (reply.content_type, reply.body) == (SIZE, b"9223372036854775807\n")
    assert endpoints.refusal(refusals.StaleOldSize(known=0)).body == b"0\n"


async def test_monitors_get_the_note_with_caching_headers() -> None:
    core = FakeCore()
    origin_hash = hashlib.sha256(b"log.example/one").digest()
    core.checkpoints[origin_hash] = b"the note"
    reply = await endpoints.checkpoint(core, origin_hash.hex())
    assert (reply.status, reply.content_type, reply.body) == (200, TEXT, b"the note")
    headers = dict(reply.headers)
    assert headers["Cache-Control"] == "public, max-age=10"
    assert headers["Access-Control-Allow-Origin"] == "*"
    tag = headers["ETag"]
    for seen in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await endpoints.checkpoint(core, origin_hash.hex(), seen)
        assert (again.status, again.body, again.outcome) == (304, b"", "not-modified")
        assert dict(again.headers) == headers
    core.checkpoints[origin_hash] = b"a newer note"
    newer = await endpoints.checkpoint(core, origin_hash.hex(), tag)
    assert (newer.status, newer.body) == (200, b"a newer note")
    assert dict(newer.headers)["ETag"] != tag


@pytest.mark.parametrize(
    "segment",
    ["", "00" * 31, "00" * 33, "AA" * 32, "gg" * 32, "0x" + "0" * 62, "٣" * 64, "00" * 32 + "\n"],
)
async def test_what_is_no_origin_hash_is_not_found(segment: str) -> None:
    core = FakeCore()
    core.checkpoints[bytes.fromhex("aa" * 32)] = b"note"
    reply = await endpoints.checkpoint(core, segment)
    assert (reply.status, reply.outcome) == (404, "no-checkpoint")
    assert reply.body.count(b"\n") == 1


async def test_a_log_never_cosigned_is_not_found_and_says_so() -> None:
    reply = await endpoints.checkpoint(FakeCore(), "00" * 32)
    assert (reply.status, reply.content_type) == (404, TEXT)
    assert b"00" * 32 in reply.body
    assert dict(reply.headers)["Access-Control-Allow-Origin"] == "*"


async def test_healthy_is_a_core_that_answers_and_ready_one_that_would_sign() -> None:
    core = FakeCore()
    assert (await endpoints.healthz(core)).status == 200
    assert (await endpoints.readyz(core)).status == 200
    core.status_value = dataclasses.replace(STATUS, ready=False, reasons=("clock behind", "key\nlocked"))
    assert (await endpoints.healthz(core)).status == 200
    reply = await endpoints.readyz(core)
    assert (reply.status, reply.body) == (503, b"clock behind\nkey locked\n")
    assert reply.outcome == "not-ready"
    core.status_error = refusals.CoreUnreachable(reason="gone")
    for endpoint in (endpoints.healthz, endpoints.readyz):
        with pytest.raises(refusals.CoreUnreachable):
            await asyncio.wait_for(endpoint(core), 5)
