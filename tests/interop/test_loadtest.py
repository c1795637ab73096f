"""Omniwitness's `loadtest` runs against this witness and likes what it is answered."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.interop.processes import Program, Witness, poll
from tests.interop.programs import LOADTEST, GoPrograms

pytestmark = pytest.mark.slow

LOGS = 20
BATCHES = 12  # of 25 updates each
BOUND_SECONDS = 60


def test_loadtest_likes_every_answer(
    make_witness: Callable[[], Witness], programs: GoPrograms, tmp_path: Path
) -> None:
    loadtest = str(programs.path(LOADTEST))
    config = subprocess.run(
        [loadtest, f"-log_count={LOGS}"], check=True, capture_output=True, text=True, timeout=BOUND_SECONDS
    ).stdout
    logs = yaml.safe_load(config)["Logs"]
    assert len(logs) == LOGS
    entries = [
        f"vkey {log['PublicKey']}\norigin {log['Origin']}\nqpd 8640000\ncontact nobody\n" for log in logs
    ]
    (tmp_path / "logs").write_text("\n".join(["logs/v0\n", *entries]))
    witness = make_witness()
    witness.command("logs", "import", str(tmp_path / "logs"))
    witness.start()

    # It ends at once, with an error, on the first answer that it does not like. Its success depends on its
    # own timer's keeping pace, so it is ended here, after enough updates that it did like.
    output = tmp_path / "loadtest.output"
    load = Program(
        [loadtest, f"-target={witness.url}", f"-log_count={LOGS}", "-num_extra_sigs=3", "-timeout=10s",
         "-start_qps=100", "-max_qps=100"],
        output,
    )  # fmt: skip

    def enough() -> bool | None:
        done = output.read_text().count("Average update time") >= BATCHES
        assert load.process.poll() is None, load.said() + witness.said()
        return True if done else None

    try:
        poll(f"loadtest's {BATCHES} batches of 25 updates", enough)
    finally:
        load.kill()

    sizes = []
    for log in logs:
        note = witness.checkpoint(log["Origin"])
        assert note is not None, log["Origin"]
        request = {
            "note": note,
            "origin": log["Origin"],
            "log": log["PublicKey"],
            "cosigners": witness.vkeys,
        }
        answer = programs.run("notecheck", request)
        assert len(answer["cosignatures"]) == len(witness.vkeys)
        # The extra signatures are by keys that the witness does not know; it must not republish them.
        assert answer["unverified"] == []
        sizes.append(answer["size"])
    assert sum(sizes) >= BATCHES * 25
