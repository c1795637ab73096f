"""The list of families."""

from __future__ import annotations

import pytest

from feeders.kinds import KINDS, NOT_POLLED, UnknownFeeder, make_source, sources
from feeders.protocol import BadUrl, FeedLog
from feeders.tools import Tools

CONTRACT = {
    "tiles", "serverless", "sumdb", "static-ct", "rfc6962", "rekor", "pixel", "sigsum", "none",
}  # fmt: skip


async def nothing(url: str, limit: int) -> bytes:
    raise AssertionError((url, limit))


def test_every_kind_of_the_contract_is_known_once() -> None:
    assert {*KINDS, NOT_POLLED} == CONTRACT
    assert len(KINDS) + 1 == len(CONTRACT)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_built_kinds_make_a_source(kind: str) -> None:
    log = FeedLog("origin - 17", (), kind, "http://log.example/", 30)
    assert sources(Tools(nothing))(log).fetch_checkpoint


def test_unknown_kinds_name_those_that_there_are() -> None:
    with pytest.raises(UnknownFeeder, match="serverless, sumdb") as caught:
        make_source(FeedLog("origin", (), "tile", "http://log.example/", 30), Tools(nothing))
    assert caught.value.kind == "tile"


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("rekor", "http://log.example/"),
        ("rekor", "http://log.example/?treeID=x"),
        ("pixel", "http://log.example/?height=2"),
        ("pixel", "http://log.example/?height=8&height=1"),
        ("pixel", "http://log.example/?hight=8"),
    ],
)
def test_a_url_without_what_the_family_wants_is_named(kind: str, url: str) -> None:
    with pytest.raises(BadUrl):
        make_source(FeedLog("origin", (), kind, url, 30), Tools(nothing))
