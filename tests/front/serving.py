"""A whole front in the test's own process, on loopback, over a fake core."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from tests.front.fake_core import FakeCore
from witness.front.feeding import FeederNews
from witness.front.service import FrontService
from witness.front.settings import FrontSettings

SETTINGS = FrontSettings(name="witness.example/w1", core_socket="unused", listen=("127.0.0.1:0",))


class ConnectedFake(FakeCore):
    """A fake core without a socket between."""

    connected = True


class Front:
    """A running front: `url` of its first listener, an HTTP `client`, and `stop` to tell it to end."""

    def __init__(self, service: FrontService, client: aiohttp.ClientSession) -> None:
        self.service = service
        self.client = client
        self.stop = asyncio.Event()
        self.url = ""
        self.urls: list[str] = []

    async def get(self, path: str, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: bytes, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
        return await self.ask("POST", path, data=body, **options)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
        async with self.client.request(method, self.url + path, allow_redirects=False, **options) as response:
            return response.status, response.headers, await response.read()

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of a scrape; 0 when it is not there."""
        _, _, body = await self.get("/metrics")
        found = [
            labelled for labelled in samples(body.decode()) if labelled[0] == name and labelled[1] == labels
        ]
        return found[0][2] if found else 0.0

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection to the first listener."""
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return await asyncio.open_connection(host.strip("[]"), int(port))


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


@contextlib.asynccontextmanager
async def fronting(
    core: Any,
    settings: FrontSettings = SETTINGS,
    *,
    registry: CollectorRegistry | None = None,
    feeders: FeederNews | None = None,
    publisher_states: Callable[[], Any] = tuple,
    **changes: Any,
) -> AsyncIterator[Front]:
    service = FrontService(
        dataclasses.replace(settings, **changes),
        core,
        registry or CollectorRegistry(),
        feeders=feeders,
        publisher_states=publisher_states,
        now=lambda: 1_700_000_160.0,
    )
    async with aiohttp.ClientSession() as client:
        front = Front(service, client)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run(front.stop))
            front.urls = [bound.url for bound in await service.listening()]
            front.url = front.urls[0]
            try:
                yield front
            finally:
                front.stop.set()


async def head(reader: asyncio.StreamReader) -> tuple[str, list[str]]:
    """The status line and the header lines of a response, as they came."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    return lines[0], lines[1:-2]


async def response(reader: asyncio.StreamReader) -> tuple[str, list[str], bytes]:
    """A whole response by its Content-Length."""
    status, headers = await head(reader)
    length = next(int(line.split(":")[1]) for line in headers if line.lower().startswith("content-length:"))
    return status, headers, await reader.readexactly(length)
