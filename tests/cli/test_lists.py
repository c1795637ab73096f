"""Lists that are read again and again: they only add, an entry spoils nothing, a changed key is an alarm."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.command import make, witness
from tests.cli.daemon import daemon, eventually
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.cli.config import ListConfig
from witness.cli.importing import CHUNK, difference, import_logs
from witness.cli.list_schedule import FIRST, pull_on_schedule
from witness.cli.log_lists import parse
from witness.cli.pulling import alarms, readings
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook


def key(name: str, number: int = 0) -> str:
    return str(SimulatedKey(name, number=number).vkey)


def entry(name: str, number: int = 0, origin: str = "", qpd: int = 86400) -> str:
    line = f"origin {origin}\n" if origin else ""
    return f"vkey {key(name, number)}\n{line}qpd {qpd}\ncontact ops@{name}\n\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make(tmp_path / "state")


@contextmanager
def serving(bodies: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = bodies.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listed(state: Path) -> dict[str, dict]:
    return {each["origin"]: each for each in witness("logs", "list", "--json", state=state).json}


LIST = (
    "logs/v0\n" + entry("a.example") + "vkey spoilt\nqpd 1\ncontact x\n\n"
    + entry("b.example", origin="b.example/log", qpd=100)
    + entry("b2.example", origin="b.example/log", qpd=100)
)  # fmt: skip


def test_preview_shows_what_would_be_added_and_changes_nothing(state):
    assert witness("logs", "add", key("a.example", 1), state=state).code == 0
    with serving({"/list": LIST.encode()}) as url:
        outcome = witness("lists", "preview", f"{url}/list", state=state)
        facts = witness("lists", "preview", f"{url}/list", "--json", state=state).json
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "+  b.example/log  qpd 100  ops@b.example",
        f"      {key('b.example')}",
        f"      {key('b2.example')}",
        f"!  a.example: another key: {key('a.example')}",
        "1 new log, 0 known already, 1 changed key, 1 skipped",
    ]
    assert "warning: skipped: line 6: vkey" in outcome.err
    assert [each["origin"] for each in facts["new"]] == ["b.example/log"]
    assert facts["changed_keys"] == [{"origin": "a.example", "vkey": key("a.example")}]
    assert listed(state).keys() == {"a.example"}
    assert readings(StateLayout(state)) == {}


def test_pull_adds_what_is_new_with_all_its_keys_and_takes_no_changed_key(state):
    assert witness("logs", "add", key("a.example", 1), state=state).code == 0
    assert witness("logs", "disable", "a.example", state=state).code == 0
    bodies = {"/list": LIST.encode()}
    with serving(bodies) as url:
        outcome = witness("lists", "pull", f"{url}/list", state=state)
        assert outcome.code == 0, outcome.err
        assert outcome.out == f"{url}/list: 1 log added, 0 known already, 1 changed key not taken\n"
        assert (
            f"warning: changed key: a.example: the list shows another key, {key('a.example')}" in outcome.err
        )
        logs = listed(state)
        assert logs["b.example/log"]["vkeys"] == [key("b.example"), key("b2.example")]
        assert (logs["b.example/log"]["qpd"], logs["b.example/log"]["contact"]) == (100, "ops@b.example")
        assert logs["b.example/log"]["source"] == f"list {url}/list"
        assert (logs["a.example"]["vkeys"], logs["a.example"]["disabled"]) == ([key("a.example", 1)], True)
        (alarm,) = alarms(StateLayout(state))
        assert "another key for a.example" in alarm
        status = witness("status", "--json", state=state)
        assert status.json["warnings"] == [alarm]

        # The list lets a log go, and mends the key: nothing is taken away, and the alarm ends.
        bodies["/list"] = ("logs/v0\n" + entry("a.example", 1)).encode()
        outcome = witness("lists", "pull", f"{url}/list", state=state)
        assert outcome.out == f"{url}/list: 0 logs added, 1 known already, 0 changed keys not taken\n"
        assert listed(state).keys() == {"a.example", "b.example/log"}
        assert alarms(StateLayout(state)) == []

        bodies["/list"] = b"<html>sorry</html>"
        outcome = witness("lists", "pull", f"{url}/list", state=state)
        assert outcome.code == 3
        (alarm,) = alarms(StateLayout(state))
        assert "was not read at the last try" in alarm
        (reading,) = witness("lists", "status", "--json", state=state).json
        assert (reading["logs"], reading["changed"]) == (1, [])  # of the last time that it was read
    assert f"{url}/list" in witness("lists", "status", state=state).out


def test_what_cannot_be_had_is_told_and_does_not_keep_other_lists_away(state):
    (state / "witness.yaml").write_text("name: witness.example/test\n")
    assert witness("lists", "pull", state=state).code == 2
    with serving({"/list": LIST.encode()}) as url:
        outcome = witness("lists", "pull", f"{url}/none", f"{url}/list", state=state)
        assert outcome.code == 3
        assert outcome.error() == f"error: {url}/none: status 404"
        assert listed(state).keys() == {"a.example", "b.example/log"}
        assert witness("lists", "preview", f"{url}/none", state=state).code == 3
        assert witness("lists", "preview", "ftp://x/list", state=state).code == 2
        (state / "witness.yaml").write_text(f"name: witness.example/test\nlists: [{{url: '{url}/list'}}]\n")
        assert "2 known already" in witness("lists", "pull", state=state).out


def test_a_list_of_thousands_is_added_in_chunks_between_which_others_write(state, tmp_path):
    """44,000 logs do not hold the database for as long as they take together."""
    count = 3 * CHUNK + 7
    logs, skipped = parse(("logs/v0\n" + "".join(entry(f"{n}.example") for n in range(count))).encode())
    assert (len(logs), skipped) == (count, [])
    seen = []

    def others_write(_: float) -> None:
        with closing(sqlite3.connect(state / "witness.db", timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            seen.append(connection.execute("SELECT count(*) FROM logs").fetchone()[0])
            connection.execute("ROLLBACK")

    with LogBook(state / "witness.db") as book:
        imported = import_logs(book, logs, source="list x", now=int(time.time()), pause=others_write)
        assert len(imported.added) == count
        assert seen == [CHUNK, 2 * CHUNK, 3 * CHUNK, count]
        again = import_logs(book, logs, source="list x", now=int(time.time()), pause=others_write)
    assert (again.added, again.known, again.changed) == ((), count, ())
    assert len(seen) == 4, "nothing new, nothing written"


def test_a_list_that_names_a_log_for_each_of_its_keys_is_compared_as_one(state):
    logs, _ = parse(LIST.encode())
    found = difference({"b.example/log": (key("b.example"),)}, logs)
    assert [log.origin for log in found.new] == ["a.example"]
    assert [each.vkey for each in found.changed] == [key("b2.example")]
    assert found.known == 0


async def test_the_schedule_pulls_each_list_again_and_again(state):
    bodies = {"/one": LIST.encode(), "/two": ("logs/v0\n" + entry("c.example")).encode()}
    slept: list[float] = []
    said: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(3600 if len(slept) > 4 else 0)

    with serving(bodies) as url:
        lists = [ListConfig(f"{url}/one", 60), ListConfig(f"{url}/two", 600)]
        task = asyncio.create_task(
            pull_on_schedule(state, lists, {"PATH": "/usr/bin"}, said.append, sleep=sleep)
        )
        async with asyncio.timeout(60):
            while len(slept) < 5 or not {"a.example", "c.example"} <= listed(state).keys():
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
    assert said == []
    assert all(each <= 10 or 54 <= each <= 66 or 540 <= each <= 660 for each in slept)
    assert json.loads((state / "lists.json").read_text()).keys() == {f"{url}/one", f"{url}/two"}


@pytest.mark.slow
def test_the_daemon_reads_its_lists_and_takes_new_logs_up(tmp_path):
    """The whole way: a list over HTTP, the process that reads it, the database, the core, an answer."""
    log = SimulatedLog("listed.example", size=5)
    state = make(tmp_path / "state")
    with serving({"/list": f"logs/v0\nvkey {log.vkeys[0]}\nqpd 24\ncontact x\n".encode()}) as url:
        with (state / "witness.yaml").open("a") as file:
            file.write(f"\nlists: [{{url: '{url}/list'}}]\n")
        with daemon(state, "--listen", "127.0.0.1:0") as running:

            def cosigned() -> bool:
                return running.request("POST", "/add-checkpoint", log.add_checkpoint(0))[0] == 200

            assert not cosigned()
            eventually("the list was read and the core knows the log", cosigned, FIRST + 20)
            assert listed(state)["listed.example"]["source"] == f"list {url}/list"
