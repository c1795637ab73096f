"""The main job on real input: two real logs with their real keys, through the daemon, and onwards.

The Armory Drive log (serverless) and sum.golang.org (sumdb) are served on loopback from the shared test data;
docs/transcript.md shows the same by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.endtoend.world import Distributor, LogFolder, serve
from tests.interop.processes import Witness, poll
from tests.simulated_log import SimulatedLog
from witness.tlog.checkpoint import Checkpoint, log_id, parse_checkpoint
from witness.tlog.note import VerifierKey, parse_note, parse_vkey
from witness.tlog.signature import verify_note

NAME = "witness.example/end-to-end"
ARMORY, SUMDB = "Armory Drive Prod 2", "go.sum database tree"

pytestmark = pytest.mark.slow


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    daemon = Witness(tmp_path / "state", NAME)
    yield daemon
    daemon.stop()


def checkpoint_in(note: bytes, keys: list[VerifierKey]) -> Checkpoint:
    """The checkpoint of a note that carries a valid signature of each of the keys, and nothing else."""
    parsed = parse_note(note)
    assert {v.key for v in verify_note(parsed, keys)} == set(keys)
    assert len(parsed.signatures) == len(keys)
    return parse_checkpoint(parsed.text)


def at_size(witness: Witness, origin: str, size: int) -> Callable[[], bytes | None]:
    def ask() -> bytes | None:
        note = witness.checkpoint(origin)
        if note is None or parse_checkpoint(parse_note(note.encode()).text).size != size:
            return None
        return note.encode()

    return ask


def test_real_logs_are_polled_cosigned_served_and_published(
    testdata: Path, tmp_path: Path, witness: Witness
) -> None:
    armory = testdata / "logs/serverless/armory-drive-prod2"
    sumdb = testdata / "logs/sumdb/size11094656"
    proofs = json.loads((sumdb / "proofs.json").read_text())
    heads = {
        parse_checkpoint(parse_note(c["note"].encode()).text).size: c["note"] for c in proofs["checkpoints"]
    }
    old, new = 11094215, 11094656
    keys = {
        ARMORY: parse_vkey((armory / "armory-drive-log.pub").read_text().strip()),
        SUMDB: parse_vkey(proofs["vkey"]),
    }
    own = [parse_vkey(text) for text in witness.vkeys]
    assert len(own) == 2

    sumdb_site, distributor = LogFolder(sumdb), Distributor()
    sumdb_site.replaced["latest"] = heads[old].encode()
    static = tmp_path / "static"
    with (
        serve(LogFolder(armory)) as armory_url,
        serve(sumdb_site) as sumdb_url,
        serve(distributor) as onwards,
    ):
        witness.configure(
            distributors=[{"url": onwards}],
            static={"dir": str(static)},
            feeders={"interval": 1, "refresh": 3600},
        )
        witness.start()
        # Added while it runs: it takes them up within a second.
        witness.add_log(str(keys[ARMORY]), "--origin", ARMORY, "--feeder", "serverless", "--url", armory_url)
        witness.add_log(str(keys[SUMDB]), "--origin", SUMDB, "--feeder", "sumdb", "--url", sumdb_url)

        note = poll("the Armory Drive log is cosigned", at_size(witness, ARMORY, 2))
        assert checkpoint_in(note, [keys[ARMORY], *own]).size == 2
        poll("sum.golang.org is cosigned", at_size(witness, SUMDB, old))
        assert not any(path.startswith("tile") for path in sumdb_site.asked), "first contact needs no proof"

        # The log grows by 441 records; the proof comes from its real tiles.
        sumdb_site.replaced["latest"] = heads[new].encode()
        grown = poll("sum.golang.org has grown", at_size(witness, SUMDB, new))
        head = checkpoint_in(grown, [keys[SUMDB], *own])
        assert head == parse_checkpoint(parse_note(heads[new].encode()).text)
        assert {path for path in sumdb_site.asked if path.startswith("tile")} == {
            "tile/8/0/x043/336", "tile/8/0/x043/338.p/128", "tile/8/1/169.p/74", "tile/8/2/000.p/169",
        }  # fmt: skip

        # Onwards: the distributor got the very notes that monitors get, and so did the static folder.
        for origin, served in ((ARMORY, note), (SUMDB, grown)):
            path = f"/distributor/v0/logs/{log_id(origin)}/byWitness/{quote(NAME, safe='')}/checkpoint"
            poll(f"{origin} is published", lambda p=path, n=served: n in distributor.notes.get(p, []) or None)
            file = static / hashlib.sha256(origin.encode()).hexdigest() / "checkpoint"
            poll(
                f"{origin} is written", lambda f=file, n=served: (f.is_file() and f.read_bytes() == n) or None
            )

        # And it can be seen to work.
        status = json.loads(witness.command("status", "--json"))
        assert re.search(r'"current"', json.dumps(status)), status
        shown = witness.command("checkpoint", SUMDB)
        assert shown.encode() == grown

        # After a restart everything is published anew, and nothing went back.
        witness.stop()
        distributor.notes.clear()
        witness.start()
        assert at_size(witness, SUMDB, new)() is not None
        for origin in (ARMORY, SUMDB):
            path = f"/distributor/v0/logs/{log_id(origin)}/byWitness/{quote(NAME, safe='')}/checkpoint"
            poll(f"{origin} is published again", lambda p=path: distributor.notes.get(p))


def test_a_fork_is_refused_and_shown(witness: Witness) -> None:
    """A log that shows another root at the same size: nothing is cosigned, and the operator can see why."""
    log = SimulatedLog("fork.example/log", size=5)
    liar = log.fork(3)
    liar.append(2)
    witness.start()
    witness.add_log(str(log.vkeys[0]))
    witness.submit_once_known(log.add_checkpoint(0))
    before = witness.checkpoint(log.origin)
    answer = witness.submit(liar.add_checkpoint(5, proof=()))
    assert answer.status == 422
    assert answer.body.count(b"\n") == 1
    assert witness.checkpoint(log.origin) == before
    status = json.loads(witness.command("status", "--json"))
    assert status["core"]["contradictions"] == 1
