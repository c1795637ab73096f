"""Metrics with bounded labels, pages that hostile origins cannot bend, status for programs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from enum import StrEnum
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest

from tests.front.fake_core import LOG, STATUS, submission
from tests.front.serving import ConnectedFake, fronting, samples
from witness.core import refusals
from witness.core.refusals import BY_CODE
from witness.core.wire import CoreStatus
from witness.front import metrics, page
from witness.front.feeding import AskedFeeders, FeedersDesk, FeedingState
from witness.front.settings import About
from witness.front.view import CoreView, Logs


@contextlib.asynccontextmanager
async def feeding(folder: Path, states: dict[str, object]) -> AsyncIterator[AskedFeeders]:
    """What the feeders' process tells, asked over its socket."""
    path = str(folder / "feed.sock")
    desk = FeedersDesk(
        path,
        state=lambda: FeedingState(7, 1.0, True, ()),
        states=lambda: states,
        expose=lambda: b'# TYPE witness_feeder_logs gauge\nwitness_feeder_logs{status="current"} 3.0\n',
    )
    async with desk.open():
        yield AskedFeeders(path)


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>body{display:none}",
    "log\u202egnp.exe",
    "a&lt;b & 'c'",
    "tab\tnul\x00end",
)


class State(StrEnum):
    WAITING = "waiting"


@dataclasses.dataclass(frozen=True, slots=True)
class FeederState:
    status: State
    last_error: str


@dataclasses.dataclass(frozen=True, slots=True)
class TargetState:
    name: str
    pending: int


class Elements(HTMLParser):
    """What a browser would make of a page: its tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(html: str) -> Elements:
    elements = Elements(html)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "code", "div", "bdi", "a"}
    allowed |= {"table", "thead", "tbody", "tr", "th", "td", "ul", "li", "dl", "dt", "dd", "br"}
    for tag, attributes in elements.tags:
        assert tag in allowed
        assert set(attributes) <= {"class", "href", "charset", "name", "content", "lang"}
        target = attributes.get("href") or ""
        assert target == "https://c2sp.org/tlog-witness" or re.fullmatch(r"\./|[a-z.]*", target)
    assert [tag for tag, _ in elements.tags].count("style") == 1
    return elements


# ---- pages


async def test_the_page_escapes_hostile_origins_and_runs_nothing(tmp_path: Path) -> None:
    logs = tuple(dataclasses.replace(LOG, origin=origin) for origin in HOSTILE)
    core = ConnectedFake(
        log_values=logs,
        status_value=dataclasses.replace(STATUS, name="<b>w</b>", warnings=("<i>hm</i>",)),
    )
    states = {HOSTILE[0]: FeederState(State.WAITING, "10.0.0.1 refused")}
    async with feeding(tmp_path, states) as feeders, fronting(core, feeders=feeders) as front:
        status, headers, body = await front.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    html = body.decode()
    elements = harmless(html)
    for origin in HOSTILE:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in origin)
        assert shown in elements.text
    assert "\u202e" not in html
    assert "<b>w</b>" in elements.text
    assert "<i>hm</i>" in elements.text
    assert "waiting" in elements.text
    assert "10.0.0.1" not in html  # the operator's network is not for the public
    assert "1 min ago" in elements.text


async def test_the_policy_allows_the_one_style_and_nothing_else() -> None:
    async with fronting(ConnectedFake()) as front:
        for path in ("/", "/about"):
            _, headers, body = await front.get(path)
            policy = headers["Content-Security-Policy"]
            style = body.decode().partition("<style>")[2].partition("</style>")[0]
            digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
            assert f"style-src 'sha256-{digest}'" in policy
            assert policy.startswith("default-src 'none'")
            assert b"style=" not in body


async def test_the_page_shows_keys_and_health_with_reasons() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        elements = harmless((await front.get("/"))[2].decode())
        assert "Cosigning." in elements.text
        assert all(key.vkey in elements.text for key in STATUS.keys)
        assert LOG.origin in elements.text
        assert "metrics" in elements.text
    core.status_value = dataclasses.replace(STATUS, ready=False, reasons=("the clock is behind",))
    async with fronting(core) as front:
        text = harmless((await front.get("/"))[2].decode()).text
        assert "Not cosigning" in text
        assert "the clock is behind" in text
    core.status_error = refusals.CoreUnreachable(reason="not connected")
    async with fronting(core) as front:
        status, _, body = await front.get("/")
        assert status == 200
        assert "Not cosigning: the witness's core does not answer" in harmless(body.decode()).text
        assert (await front.get("/about"))[0] == 200


async def test_the_table_is_the_latest_and_says_so() -> None:
    logs = tuple(
        dataclasses.replace(LOG, origin=f"log{i}.example", timestamp=1_700_000_000 + i) for i in range(9)
    )
    new = dataclasses.replace(LOG, origin="new.example", size=-1, timestamp=0)
    async with fronting(ConnectedFake(log_values=(new, *logs)), page_logs=3) as front:
        text = harmless((await front.get("/"))[2].decode()).text
        assert [i for i in range(9) if f"log{i}.example" in text] == [6, 7, 8]
        assert text.index("log8") < text.index("log7") < text.index("log6")
        assert "10 configured" in text
        assert "The 3 cosigned last" in text
    async with fronting(ConnectedFake(log_values=(new, *logs)), max_origins=9) as front:
        text = harmless((await front.get("/"))[2].decode()).text
        assert "10 configured" in text
        assert "Too many to list" in text
        assert "log8" not in text
    async with fronting(ConnectedFake(log_values=(new,))) as front:
        assert "never" in harmless((await front.get("/"))[2].decode()).text


async def test_about_has_what_the_witness_network_asks_for() -> None:
    about = About(
        operator="<Operator>",
        contact="ops@w.example",
        submission_url="https://w.example/w1",
        lists=("https://lists.example/10qps", "<list>"),
        cadence="every hour",
        more=(("Hard<ware", "two\nboxes"),),
    )
    async with fronting(ConnectedFake(), about=about) as front:
        text = harmless((await front.get("/about"))[2].decode()).text
    for wanted in (
        *(key.vkey for key in STATUS.keys),
        *("<Operator>", "ops@w.example", "https://w.example/w1/add-checkpoint"),
        "https://w.example/w1/<origin hash>/checkpoint",
        *about.lists,
        *("every hour", "Hard<ware", "two", "boxes"),
    ):
        assert wanted in text


def test_about_leaves_out_what_the_operator_has_not_said() -> None:
    text = Elements(page.about_page(name="w", status=None, about=About())).text
    assert "Operator" not in text
    assert "add-checkpoint URL" not in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_ages(seconds: int, shown: str) -> None:
    logs = Logs((dataclasses.replace(LOG, timestamp=1_000_000),), 1, listed=True)
    html = page.front_page(
        name="w",
        status=STATUS,
        problem=None,
        logs=logs,
        feeders={},
        rows=10,
        now=1_000_000 + seconds,
        operator_links=True,
    )
    assert f"{shown} ago" in Elements(html).text


# ---- metrics


async def test_labels_are_a_fixed_set_and_configured_origins() -> None:
    """Whatever callers send, the series stay the same."""
    core = ConnectedFake(answer=refusals.UnknownOrigin(origin="evil.example"))
    core.status_value = dataclasses.replace(
        STATUS, refusals={"unknown-origin": 3, "from-a-newer-core": 2, "another": 1}
    )
    async with fronting(core) as front:
        before = {
            (name, tuple(labels.items())) for name, labels, _ in samples_of(await front.get("/metrics"))
        }
        for i in range(20):
            await front.post("/add-checkpoint", submission(f"evil{i}.example"))
            await front.get(f"/evil{i}")
            await front.ask(f"EVIL{i}", "/add-checkpoint")
            await front.get(f"/{i:064x}/checkpoint")
        found = samples_of(await front.get("/metrics"))
        after = {(name, tuple(labels.items())) for name, labels, _ in found}
    assert after == before
    for _, labels, _ in found:
        assert labels.get("endpoint", "other") in metrics.ENDPOINTS
        assert labels.get("outcome", "ok") in metrics.OUTCOMES
        assert labels.get("origin", LOG.origin) == LOG.origin
        assert labels.get("code", "other") in {*BY_CODE, "other"}
        assert labels.get("stage", "judge") in {"queue", "judge", "commit"}
    assert "evil" not in str(found)
    assert ("witness_core_refusals_total", {"code": "other"}, 3.0) in found


def samples_of(answer: tuple[int, object, bytes]) -> list[tuple[str, dict[str, str], float]]:
    assert answer[0] == 200
    return samples(answer[2].decode())


async def test_requests_and_accepted_checkpoints_are_counted() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        await front.post("/add-checkpoint", submission())
        await front.post("/add-checkpoint", submission(old=0))
        await front.post("/add-checkpoint", b"old 0\nproof\nproof\n\nlog.example/one\n43\n")
        core.answer = refusals.StaleOldSize(known=3)
        await front.post("/add-checkpoint", submission())
        count = "witness_http_requests_total"
        assert await front.metric(count, endpoint="add-checkpoint", outcome="ok") == 3
        assert await front.metric(count, endpoint="add-checkpoint", outcome="stale-old-size") == 1
        assert await front.metric("witness_log_accepted_total", origin=LOG.origin) == 3
        assert await front.metric("witness_log_size", origin=LOG.origin) == 42
        stamp = "witness_log_cosigned_timestamp_seconds"
        assert await front.metric(stamp, origin=LOG.origin) == LOG.timestamp
        assert await front.metric("witness_http_request_seconds_count", endpoint="add-checkpoint") == 4
        assert await front.metric("witness_core_connected") == 1
        assert await front.metric("witness_core_commits_total") == 3
        assert await front.metric("witness_core_refusals_total", code="stale-old-size") == 2
        assert await front.metric("witness_core_stage_seconds_total", stage="commit") == 1.5
        assert await front.metric("witness_log_series_enabled") == 1


async def test_above_the_cap_single_logs_have_no_series() -> None:
    logs = tuple(dataclasses.replace(LOG, origin=f"log{i}.example") for i in range(4))
    core = ConnectedFake(log_values=logs)
    async with fronting(core, max_origins=3) as front:
        for log in logs:
            await front.post("/add-checkpoint", submission(log.origin))
        found = samples_of(await front.get("/metrics"))
        assert ("witness_log_series_enabled", {}, 0.0) in found
        assert not [name for name, labels, _ in found if "origin" in labels]
        assert core.logs_calls == 0
        assert len(front.service._door._metrics._accepted) == 3


async def test_a_core_that_does_not_answer_leaves_the_fronts_own_counters() -> None:
    core = ConnectedFake(status_error=refusals.CoreUnreachable(reason="r"))
    async with fronting(core) as front:
        found = samples_of(await front.get("/metrics"))
        names = {name for name, _, _ in found}
        assert "witness_http_shed_total" in names
        assert not any(name.startswith("witness_core_commits") for name in names)


async def test_the_largest_reply_of_origins_is_written_in_valid_format() -> None:
    logs = tuple(dataclasses.replace(LOG, origin=origin) for origin in HOSTILE if "\x00" not in origin)
    async with fronting(ConnectedFake(log_values=logs)) as front:
        found = samples_of(await front.get("/metrics"))
        shown = {labels["origin"] for name, labels, _ in found if name == "witness_log_size"}
        assert shown == {log.origin for log in logs}


# ---- status


async def test_status_is_one_document_for_programs(tmp_path: Path) -> None:
    core = ConnectedFake()
    states = {LOG.origin: FeederState(State.WAITING, "x")}
    async with (
        feeding(tmp_path, states) as feeders,
        fronting(core, feeders=feeders, publisher_states=lambda: (TargetState("d", 4),)) as front,
    ):
        async with front.client.get(front.url + "/status.json") as reply:
            assert reply.headers["Content-Type"] == "application/json"
            found = await reply.json()
        assert found["core"]["name"] == STATUS.name
        assert found["core"]["keys"][0]["vkey"] == STATUS.keys[0].vkey
        assert found["core_problem"] is None
        assert found["front"]["core_connected"] is True
        assert found["front"]["listening"] == front.urls
        assert found["feeders"] == {LOG.origin: {"status": "waiting", "last_error": "x"}}
        assert found["feeding"] == {"pid": 7, "started": 1.0, "core_connected": True, "lockdown": []}
        assert found["publishers"] == [{"name": "d", "pending": 4}]
    core.status_error = refusals.CoreUnreachable(reason="gone")
    async with fronting(core) as front, front.client.get(front.url + "/status.json") as reply:
        found = await reply.json()
        assert found["core"] is None
        assert "gone" in found["core_problem"]
        assert (found["feeding"], found["feeders"]) == (None, {})  # nothing is polled


async def test_feeders_that_do_not_answer_are_told_and_stop_nothing(tmp_path: Path) -> None:
    gone = AskedFeeders(str(tmp_path / "feed.sock"), deadline=0.2)
    async with fronting(ConnectedFake(log_values=(LOG,)), feeders=gone) as front:
        found = json.loads((await front.get("/status.json"))[2])
        assert found["feeders"] == {}
        assert "feed.sock" in found["feeding"]["problem"]
        assert (await front.get("/"))[0] == 200
        assert await front.metric("witness_core_connected") == 1.0

    # One that is there and says nothing costs its deadline, and one that says too much its connection.
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()

    for answer, problem in ((silent, "Timeout"), (chatty, "more than")):
        async with (
            await asyncio.start_unix_server(answer, str(tmp_path / "feed.sock")),
            fronting(
                ConnectedFake(),
                feeders=AskedFeeders(str(tmp_path / "feed.sock"), 20.0 if answer is chatty else 0.2),
            ) as front,
        ):
            assert problem in json.loads((await front.get("/status.json"))[2])["feeding"]["problem"]


async def test_one_scrape_has_the_feeders_metrics_too(tmp_path: Path) -> None:
    async with feeding(tmp_path, {}) as feeders, fronting(ConnectedFake(), feeders=feeders) as front:
        assert await front.metric("witness_feeder_logs", status="current") == 3.0
        assert await front.metric("witness_core_connected") == 1.0


async def test_the_feeders_socket_is_its_owner_s_alone_and_goes_with_them(tmp_path: Path) -> None:
    async with feeding(tmp_path, {}):
        path = tmp_path / "feed.sock"
        assert path.stat().st_mode & 0o777 == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
            for method, resource in (("GET", "/"), ("POST", "/metrics"), ("GET", "/feeders.json/")):
                async with client.request(method, f"http://x{resource}") as reply:
                    assert reply.status == 404
    assert not path.exists()


async def test_readiness_says_why_not() -> None:
    core = ConnectedFake(status_value=dataclasses.replace(STATUS, ready=False, reasons=("key locked",)))
    async with fronting(core) as front:
        status, headers, body = await front.get("/readyz")
        assert (status, body) == (503, b"key locked\n")
        assert "Retry-After" in headers
        assert (await front.get("/healthz"))[0] == 200


# ---- the view


async def test_the_core_is_asked_seldom() -> None:
    core = ConnectedFake()
    async with fronting(core) as front:
        for _ in range(10):
            await front.get("/healthz")
            await front.get("/")
    assert core.status_calls < 10
    clock = [100.0]
    core = ConnectedFake()
    view = CoreView(core, max_origins=10, clock=lambda: clock[0], status_age=1.0, logs_age=5.0)
    for _ in range(3):
        await view.status()
        await view.logs()
    assert (core.status_calls, core.logs_calls) == (1, 1)
    clock[0] += 1.0
    await view.status()
    await view.logs()
    assert (core.status_calls, core.logs_calls) == (2, 1)
    clock[0] += 5.0
    await view.logs()
    assert core.logs_calls == 2


async def test_those_who_wait_for_the_same_answer_share_its_failure() -> None:
    """Else each of a hundred health checks would wait out a mute core's deadline one after another."""
    core = ConnectedFake()
    calls: list[asyncio.Future[CoreStatus]] = []

    async def mute() -> CoreStatus:
        calls.append(asyncio.get_running_loop().create_future())
        return await calls[-1]

    clock = itertools.count(1.0)
    core.status = mute  # type: ignore[method-assign]
    view = CoreView(core, max_origins=10, clock=lambda: next(clock))
    asking = [asyncio.create_task(view.status()) for _ in range(5)]
    while not calls:
        await asyncio.sleep(0)
    calls[0].set_exception(refusals.CoreUnreachable(reason="no reply"))
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [refusals.CoreUnreachable] * 5
    assert len(calls) == 1


async def test_a_failure_is_not_kept() -> None:
    core = ConnectedFake(status_error=refusals.CoreUnreachable(reason="r"))
    clock = [100.0]
    view = CoreView(core, max_origins=10, clock=lambda: clock[0])
    with pytest.raises(refusals.CoreUnreachable):
        await view.status()
    core.status_error = None
    assert (await view.status()).name == STATUS.name


async def test_logs_of_many_pages_are_put_together() -> None:
    logs = tuple(dataclasses.replace(LOG, origin=f"log{i}.example") for i in range(25))
    core = ConnectedFake(log_values=logs, page_size=10)
    assert await CoreView(core, max_origins=25).logs() == Logs(logs, 25, listed=True)
    assert core.logs_calls == 3
