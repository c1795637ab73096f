"""A Tessera log whose witness policy names this witness publishes checkpoints that carry its cosignatures."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.processes import Witness, poll
from tests.interop.programs import GoPrograms
from tests.interop.tessera_log import TesseraLog

pytestmark = pytest.mark.slow


def policy_of(witness: Witness, *kinds: int) -> str:
    """A policy that wants every one of the witness's keys of these types.

    Tessera keeps one verifier for each URL, so each key gets another spelling of the same address.
    """
    hosts = ("127.0.0.1", "localhost")
    lines = []
    for kind, host in zip(kinds, hosts, strict=False):
        url = witness.url.replace("127.0.0.1", host)
        lines.append(f"witness key{kind} {witness.vkey(kind)} {url}")
    names = " ".join(f"key{kind}" for kind in kinds)
    return "\n".join([*lines, f"group ours all {names}", "quorum ours", ""])


def test_published_checkpoints_carry_both_cosignatures(
    witness: Witness, programs: GoPrograms, tmp_path: Path
) -> None:
    log = TesseraLog(programs, tmp_path / "log", "interop.example/tessera/both")
    witness.add_log(log.vkey)
    await_known(witness, log)
    # Both keys are asked side by side; the one that comes second is told the new size (409) and asks again.
    outcome = log.run(policy_of(witness, 4, 6), [["a"], ["b", "c"], [f"entry {n}" for n in range(300)]])
    assert "error" not in outcome, outcome
    sizes = []
    for note in outcome["checkpoints"]:
        answer = log.check(note, list(witness.vkeys))
        assert len(answer["cosignatures"]) == len(witness.vkeys), note
        sizes.append(answer["size"])
    # A new Tessera log publishes its empty tree first, under the same policy.
    assert sizes == [0, 1, 3, 303]


@pytest.mark.parametrize("kind", [4, 6])
def test_one_key_is_enough_for_a_policy_that_names_one(
    witness: Witness, programs: GoPrograms, tmp_path: Path, kind: int
) -> None:
    log = TesseraLog(programs, tmp_path / "log", f"interop.example/tessera/{kind}")
    witness.add_log(log.vkey)
    await_known(witness, log)
    outcome = log.run(policy_of(witness, kind), [["a", "b"]])
    assert "error" not in outcome, outcome
    answer = log.check(outcome["checkpoints"][-1], [witness.vkey(kind)])
    assert (answer["size"], len(answer["cosignatures"])) == (2, 1)


def test_a_log_that_grew_unwitnessed_learns_the_size_and_goes_on(
    make_witness: Callable[[], Witness], programs: GoPrograms, tmp_path: Path
) -> None:
    log = TesseraLog(programs, tmp_path / "log", "interop.example/tessera/late")
    assert "error" not in log.run("quorum none\n", [["a", "b", "c"]])
    witness = make_witness()
    witness.add_log(log.vkey)
    witness.start()
    # Tessera believes the witness to be at size 3; it must learn from the 409 that it is at 0.
    outcome = log.run(policy_of(witness, 4), [["d"]])
    assert "error" not in outcome, outcome
    assert log.check(outcome["checkpoints"][-1], [witness.vkey(4)])["size"] == 4
    # The witness starts again from its state alone, and the log goes on.
    witness.stop()
    witness.start()
    outcome = log.run(policy_of(witness, 4), [["e"]])
    assert "error" not in outcome, outcome
    answer = log.check(outcome["checkpoints"][-1], [witness.vkey(4)])
    assert (answer["size"], len(answer["cosignatures"])) == (5, 1)


def test_a_forked_log_gets_no_checkpoint_published(
    witness: Witness, programs: GoPrograms, tmp_path: Path
) -> None:
    log = TesseraLog(programs, tmp_path / "log", "interop.example/tessera/forked")
    witness.add_log(log.vkey)
    await_known(witness, log)
    policy = policy_of(witness, 4)
    assert "error" not in log.run(policy, [["a", "b"]])
    fork = TesseraLog(programs, tmp_path / "fork", log.origin)
    shutil.copytree(log.folder, fork.folder)
    assert "error" not in log.run(policy, [["c"]])
    known = witness.checkpoint(log.origin)

    # Larger than what the witness knows, and not an extension of it.
    outcome = fork.run(policy, [["x", "y", "z"]], deadline=3)
    assert "no checkpoint was published" in outcome["error"]
    assert [fork.check(note, [])["size"] for note in outcome["checkpoints"]] == [2]
    assert witness.checkpoint(log.origin) == known


def await_known(witness: Witness, log: TesseraLog) -> None:
    """Waits until the running daemon knows the log: any other refusal than 404 says so."""
    body = f"old 0\n\n{log.origin}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— {log.origin} "
    wrong = base64.b64encode(bytes.fromhex(log.vkey.split("+")[1]) + bytes(64)).decode()
    poll(
        "the daemon knows a log that was added",
        lambda: True if witness.submit(f"{body}{wrong}\n").status == 403 else None,
        seconds=10,
    )
