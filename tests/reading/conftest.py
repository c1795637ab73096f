"""Fixtures of the readers' tests: the real GET and POST, over loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from feeders.fetch import HttpFetch
from witness.reading.post import HttpPost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def fetch(session: aiohttp.ClientSession) -> HttpFetch:
    return HttpFetch(session, "tests (operator@witness.example)")


@pytest.fixture
async def post(session: aiohttp.ClientSession) -> HttpPost:
    return HttpPost(session, "tests (operator@witness.example)")
