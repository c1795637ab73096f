"""The list of families."""

from __future__ import annotations

import pytest

from feeders.kinds import KINDS, NOT_BUILT, NOT_POLLED, UnknownFeeder, make_source, sources
from feeders.loop import FeedLog

CONTRACT = {
    "tiles", "serverless", "sumdb", "static-ct", "rfc6962", "rekor", "pixel", "sigsum", "none",
}  # fmt: skip


async def nothing(url: str, limit: int) -> bytes:
    raise AssertionError((url, limit))


def test_every_kind_of_the_contract_is_known_once() -> None:
    assert {*KINDS, *NOT_BUILT, NOT_POLLED} == CONTRACT
    assert len(KINDS) + len(NOT_BUILT) + 1 == len(CONTRACT)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_built_kinds_make_a_source(kind: str) -> None:
    log = FeedLog("origin", (), kind, "http://log.example/", 30)
    assert sources(nothing)(log).fetch_checkpoint


@pytest.mark.parametrize("kind", sorted(NOT_BUILT))
def test_planned_kinds_say_so(kind: str) -> None:
    with pytest.raises(UnknownFeeder, match="is not built yet") as caught:
        make_source(kind, "http://log.example/", nothing)
    assert (caught.value.kind, caught.value.planned) == (kind, True)


def test_unknown_kinds_name_those_that_there_are() -> None:
    with pytest.raises(UnknownFeeder, match="serverless, sumdb") as caught:
        make_source("tile", "http://log.example/", nothing)
    assert (caught.value.kind, caught.value.planned) == ("tile", False)
