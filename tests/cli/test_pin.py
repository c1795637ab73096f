"""`logs add --pin FILE`: a signed checkpoint that the log's first contact must extend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import make, witness
from tests.cli.daemon import daemon, eventually
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.tlog.checkpoint import origin_hash

LOG = SimulatedLog("pinned.example/log", size=20)
LIAR = LOG.fork(8)
LIAR.sign_wrongly = True
VKEY = str(LOG.vkeys[0])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return make(tmp_path / "state")


def pinned(tmp_path: Path, note: bytes) -> Path:
    file = tmp_path / "checkpoint"
    file.write_bytes(note)
    return file


def test_the_daemon_starts_the_log_from_there(state, tmp_path):
    file = pinned(tmp_path, LOG.checkpoint(8))
    with daemon(state, "--listen", "127.0.0.1:0") as running:
        outcome = witness("logs", "add", VKEY, "--pin", file, state=state)
        assert outcome.code == 0, outcome.err
        facts = witness("logs", "show", LOG.origin, "--json", state=state).json
        assert (facts["pinned"], facts["size"]) == (8, None)
        path = f"/{origin_hash(LOG.origin).hex()}/checkpoint"

        def add(old: int, **more) -> tuple[int, bytes]:
            return running.request("POST", "/add-checkpoint", LOG.add_checkpoint(old, **more))

        eventually("the core knows the log", lambda: add(0)[0] != 404)
        assert add(0) == (409, b"8\n")
        assert running.get(path)[0] == 404
        assert add(8)[0] == 200
        assert running.get(path)[0] == 200


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (b"no note", "not a signed checkpoint"),
        (SimulatedLog("other.example", size=8).checkpoint(), "a checkpoint of 'other.example'"),
        (LOG.checkpoint(8, keys=[SimulatedKey("stranger.example")]), "not signed by any"),
        (SimulatedLog("pinned.example/log", size=0).checkpoint(), "starts from the empty tree"),
        (LIAR.checkpoint(8), "does not verify"),
    ],
)
def test_what_is_no_start_of_this_log_adds_nothing(state, tmp_path, note, words):
    outcome = witness("logs", "add", VKEY, "--pin", pinned(tmp_path, note), state=state)
    assert outcome.code == 2
    assert words in outcome.error()
    assert witness("logs", "list", "--json", state=state).json == []


def test_a_known_log_takes_no_pin(state, tmp_path):
    file = pinned(tmp_path, LOG.checkpoint(8))
    assert witness("logs", "add", VKEY, state=state).code == 0
    assert witness("logs", "add", VKEY, "--pin", file, state=state).code == 2
    assert witness("logs", "show", LOG.origin, "--json", state=state).json["pinned"] is None
