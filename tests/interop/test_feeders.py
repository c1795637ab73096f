"""The feeders follow logs that Go programs serve: a Tessera log's files, x/mod's checksum database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.processes import Program, Witness, fetch, poll, serve_folder
from tests.interop.programs import GoPrograms
from tests.interop.tessera_log import TesseraLog

pytestmark = pytest.mark.slow

FEED_SECONDS = 30.0


def test_the_tiles_feeder_follows_a_tessera_log(
    witness: Witness, programs: GoPrograms, tmp_path: Path
) -> None:
    log = TesseraLog(programs, tmp_path / "log", "interop.example/tessera/polled")
    assert "error" not in log.run("quorum none\n", [["a", "b", "c"]])
    with serve_folder(log.folder) as url:
        witness.add_log(log.vkey, "--feeder", "tiles", "--url", url, "--interval", "1")
        await_size(witness, programs, log.origin, log.vkey, 3)
        # More than a tile's width, so that the proof spans full and partial tiles.
        assert "error" not in log.run("quorum none\n", [[f"entry {n}" for n in range(700)]])
        await_size(witness, programs, log.origin, log.vkey, 703)


def test_the_sumdb_feeder_follows_x_mods_server(
    witness: Witness, programs: GoPrograms, tmp_path: Path
) -> None:
    origin = "go.sum database tree"
    server = Program([str(programs.path("sumdbserver"))], tmp_path / "output")
    try:
        where = json.loads(poll("the database listens", lambda: line(server.said())))

        def look_up(numbers: range) -> None:
            for number in numbers:
                assert fetch(f"{where['url']}/lookup/interop.example/m@v1.0.{number}").status == 200

        look_up(range(5))
        witness.add_log(
            where["vkey"], "--origin", origin, "--feeder", "sumdb", "--url", where["url"], "--interval", "1"
        )
        await_size(witness, programs, origin, where["vkey"], 5)
        look_up(range(5, 300))
        await_size(witness, programs, origin, where["vkey"], 300)
    finally:
        assert server.stop() == 0


def line(said: str) -> str | None:
    """The first line, once it is whole."""
    first, end, _ = said.partition("\n")
    return first if end else None


def await_size(witness: Witness, programs: GoPrograms, origin: str, vkey: str, size: int) -> None:
    """Waits until the witness serves a cosigned checkpoint of this size, and has Go verify it."""

    def ask() -> bool | None:
        note = witness.checkpoint(origin)
        if note is None or int(note.split("\n")[1]) < size:
            return None
        request = {"note": note, "origin": origin, "log": vkey, "cosigners": witness.vkeys}
        answer = programs.run("notecheck", request)
        assert answer["size"] == size
        assert len(answer["cosignatures"]) == len(witness.vkeys)
        return True

    poll(f"the feeder brought {origin} to {size}", ask, seconds=FEED_SECONDS)
