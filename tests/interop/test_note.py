"""Go's note package and transparency-dev's verifiers read what this witness signs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.interop.processes import Witness
from tests.interop.programs import GoPrograms

pytestmark = pytest.mark.slow

VECTORS = "cosignature/torchwood-v0.10.0"


def vector(testdata: Path, name: str) -> dict[str, object]:
    """A request to notecheck for a vector that another implementation made."""
    policy = [line.split() for line in (testdata / VECTORS / "policy.txt").read_text().splitlines()]
    return {
        "note": (testdata / VECTORS / name).read_text(),
        "origin": "example.com/log",
        "log": next(words[1] for words in policy if words[0] == "log"),
        "cosigners": [words[2] for words in policy if words[0] == "witness"],
    }


@pytest.mark.parametrize(
    ("name", "cosigners"),
    [("cosigned.txt", ["w1", "w2", "w3", "pq"]), ("empty.txt", ["pq"]), ("extension.txt", ["w1"])],
)
def test_the_checker_accepts_notes_of_another_implementation(
    programs: GoPrograms, testdata: Path, name: str, cosigners: list[str]
) -> None:
    answer = programs.run("notecheck", vector(testdata, name))
    assert [found["name"] for found in answer["cosignatures"]] == [
        f"example.com/{each}" for each in cosigners
    ]
    assert answer["unverified"] == []


def test_the_checker_refuses_a_cosignature_over_other_bytes(programs: GoPrograms, testdata: Path) -> None:
    request = vector(testdata, "cosigned.txt")
    note = str(request["note"])
    timestamp = note.index("pyhW4QAAAABqvnLa") + len("pyhW4QAAAABqvnL")
    request["note"] = note[:timestamp] + "b" + note[timestamp + 1 :]
    assert "invalid signature" in programs.run("notecheck", request, refusal=True)["error"]


def test_both_cosignatures_verify_in_go_at_every_step(witness: Witness, programs: GoPrograms) -> None:
    origin = "interop.example/steps"
    steps = [[0, 0], [0, 3], [3, 3], [3, 200], [200, 5000]]
    log = programs.run("gomodlog", {"origin": origin, "seed": origin, "entry": "entry", "steps": steps})
    witness.add_log(log["vkey"])
    expected = {(vkey.split("+")[0], vkey.split("+")[1]) for vkey in witness.vkeys}
    for (_, size), body in zip(steps, log["bodies"], strict=True):
        before = int(time.time())
        lines = witness.submit_once_known(body).decode()
        after = int(time.time())
        signed = body.partition("\n\n")[2] + lines
        request = {"note": signed, "origin": origin, "log": log["vkey"], "cosigners": witness.vkeys}
        answer = programs.run("notecheck", request)
        assert answer["size"] == size
        assert answer["unverified"] == []
        assert answer["unverified_log_only"] == len(expected)
        assert {(found["name"], found["key_id"]) for found in answer["cosignatures"]} == expected
        assert all(before <= found["timestamp"] <= after for found in answer["cosignatures"])


def test_the_monitoring_endpoint_serves_what_go_verifies(witness: Witness, programs: GoPrograms) -> None:
    origin = "interop.example/monitored"
    log = programs.run(
        "gomodlog", {"origin": origin, "seed": origin, "entry": "entry", "steps": [[0, 7], [7, 12]]}
    )
    witness.add_log(log["vkey"])
    for body in log["bodies"]:
        witness.submit_once_known(body)
    served = witness.checkpoint(origin)
    request = {"note": served, "origin": origin, "log": log["vkey"], "cosigners": witness.vkeys}
    answer = programs.run("notecheck", request)
    assert answer["size"] == 12
    assert len(answer["cosignatures"]) == len(witness.vkeys)
    assert answer["unverified"] == []
