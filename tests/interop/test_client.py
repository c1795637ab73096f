"""Omniwitness's HTTP client understands this witness's answers, refusals too."""

from __future__ import annotations

import pytest

from tests.interop.processes import Witness
from tests.interop.programs import GoPrograms

pytestmark = pytest.mark.slow


def test_their_client_tells_our_refusals_apart(witness: Witness, programs: GoPrograms) -> None:
    origin = "interop.example/client"

    def bodies(steps: list[list[int]], *, seed: str = origin, entry: str = "entry") -> list[str]:
        made = programs.run("gomodlog", {"origin": origin, "seed": seed, "entry": entry, "steps": steps})
        return list(made["bodies"])

    def send(body: str) -> dict[str, object]:
        return programs.run("addcheckpoint", {"url": witness.url, "body": body})

    steps = [[0, 5], [5, 9], [0, 9], [12, 9], [9, 20]]
    first, second, stale, ahead, later = bodies(steps)
    (fork,) = bodies([[9, 20]], entry="fork")
    (other_root,) = bodies([[9, 9]], entry="fork")
    (foreign,) = bodies([[9, 20]], seed="another key")
    refused = {"signatures": "", "size": 0}

    assert send(first) == refused | {"error": "unknown log"}
    witness.add_log(programs.run("gomodlog", {"origin": origin, "seed": origin, "steps": []})["vkey"])
    witness.submit_once_known(first)

    accepted = send(second)
    assert accepted["error"] == ""
    assert str(accepted["signatures"]).count(f"— {witness.name} ") == len(witness.vkeys)

    assert send(stale) == {"signatures": "", "size": 9, "error": "stale"}
    assert send(ahead) == refused | {"error": "old size invalid"}
    assert send(fork) == refused | {"error": "invalid proof"}
    assert send(other_root) == refused | {"error": "invalid proof"}
    assert send(foreign) == refused | {"error": "no valid signature"}
    assert send(later)["error"] == ""
