"""Subtree cosignatures verify in transparency-dev/formats."""

from __future__ import annotations

import base64

import pytest

from tests.interop.processes import Witness, fetch
from tests.interop.programs import GoPrograms
from tests.simulated_log import SimulatedLog

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("start", "end"), [(0, 8), (8, 12), (16, 21)])
def test_a_subtree_cosignature_verifies_in_go(
    witness: Witness, programs: GoPrograms, start: int, end: int
) -> None:
    origin = f"interop.example/subtree/{start}"
    log = SimulatedLog(origin)
    log.append(21)
    witness.add_log(str(log.vkeys[0]))
    lines = witness.submit_once_known(log.add_checkpoint(0))
    cosigned = log.checkpoint() + lines
    answer = fetch(f"{witness.url}/sign-subtree", body=log.sign_subtree(start, end, cosigned))
    assert answer.status == 200, answer
    vkey = witness.vkey(6)
    key_id = bytes.fromhex(vkey.split("+")[1])
    (line,) = [
        line
        for line in answer.body.decode().splitlines()
        if base64.b64decode(line.split(" ")[2]).startswith(key_id)
    ]
    root = subtree_root(log, start, end)
    request = {"vkey": vkey, "line": line, "origin": origin, "start": start, "end": end, "root": root}
    checked = programs.run("subtreecheck", request)
    assert checked["verified"]
    # SPEC tlog-cosignature: "If start is not zero, timestamp MUST be zero."
    assert start == 0 or checked["timestamp"] == 0
    assert not programs.run("subtreecheck", request | {"end": end + 1})["verified"]


def subtree_root(log: SimulatedLog, start: int, end: int) -> str:
    """A subtree's hash in base64."""
    from witness.tlog.merkle import subtree_root as root_of

    return base64.b64encode(root_of(start, end, log.node)).decode()
