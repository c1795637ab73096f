"""`witness feed`: one witness's logs, or a list's, brought to a real witness by HTTP."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.command import make, witness
from tests.cli.daemon import daemon
from tests.simulated_log import SimulatedLog


@pytest.fixture
def log(tmp_path: Path) -> SimulatedLog:
    return SimulatedLog("fed.example/log", size=300)


@pytest.fixture
def log_url(log: SimulatedLog) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            tile = self.path.removeprefix("/tile/")
            if self.path == "/checkpoint":
                body = log.checkpoint()
            elif "/001.p/" in tile:
                body = log.tile(0, 1, int(tile.rpartition("/")[2]))
            elif tile.startswith("1/000.p/"):
                body = log.tile(1, 0, int(tile.rpartition("/")[2]))
            else:
                body = log.tile(int(tile[0]), int(tile[2:5]), 256)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_logs_of_a_list_are_brought_to_a_witness(tmp_path, log, log_url):
    target = make(tmp_path / "target")
    assert witness("logs", "add", str(log.vkeys[0]), state=target).code == 0
    entry = {"origin": log.origin, "vkeys": [str(log.vkeys[0])], "feeder": "tiles", "url": log_url}
    other = entry | {"origin": "other.example", "url": log_url + "/nothing-here"}
    file = tmp_path / "logs.yaml"
    file.write_text(yaml.safe_dump({"logs": [entry, other]}))
    with daemon(target, "--listen", "127.0.0.1:0") as running:
        args = ["feed", "--to", running.url, "--logs", file, "--once"]
        outcome = witness(*args, log.origin)
        assert outcome.code == 0, outcome.err
        (line,) = outcome.out.splitlines()
        assert f"  {log.origin}  size 300  {running.url}  cosigned by witness.example/test+" in line
        log.append(44)
        answer = json.loads(witness(*args, log.origin, "--json").out)
        assert (answer["origin"], answer["status"], answer["size"]) == (log.origin, "current", 344)
        assert len(answer["cosigners"]) == 1
        dead = "http://127.0.0.1:1"
        outcome = witness(*args, log.origin, "--to", dead)
        assert outcome.code == 3
        assert f"{dead}  witness-unavailable: " in outcome.out
        assert "cosigned by" in outcome.out
    found = {each["origin"]: each for each in witness("logs", "list", "--json", state=target).json}
    assert found[log.origin]["size"] == 344


def test_the_states_own_logs_are_the_default(tmp_path, log, log_url):
    target, source = make(tmp_path / "target"), make(tmp_path / "source")
    with daemon(target, "--listen", "127.0.0.1:0") as running:
        args = ["feed", "--to", running.url, "--once"]
        outcome = witness(*args, state=source)
        assert outcome.code == 2
        assert "there is no log that can be polled" in outcome.err
        add = ["logs", "add", str(log.vkeys[0]), "--feeder", "tiles", "--url", log_url]
        assert witness(*add, state=source).code == 0
        outcome = witness(*args, state=source)  # the target does not know the log
        assert outcome.code == 1
        assert "refused: " in outcome.out
        assert witness(*args, "nobody.example", state=source).code == 2


@pytest.mark.parametrize("url", ["witness.example", "ftp://witness.example", "http://"])
def test_what_is_no_url_is_a_usage_error(tmp_path, url):
    assert witness("feed", "--to", url, state=make(tmp_path / "s")).code == 2
