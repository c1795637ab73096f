"""Omniwitness's `loadtest` runs against this witness to its own idea of success."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.interop.processes import Witness
from tests.interop.programs import LOADTEST, GoPrograms

pytestmark = pytest.mark.slow

LOGS = 20
BOUND_SECONDS = 60


def test_loadtest_reaches_its_rate(
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

    # The rates are low on purpose: this asks whether every update is understood and answered, not how
    # fast. (Far above them its own timer falls behind, and it never ends.) It gives up on the first
    # answer that it does not like, and raises its rate by a tenth after each 25 that it does.
    outcome = subprocess.run(
        [loadtest, f"-target={witness.url}", f"-log_count={LOGS}", "-num_extra_sigs=3", "-timeout=10s",
         "-start_qps=25", "-success_qps=33"],
        check=False, capture_output=True, text=True, timeout=BOUND_SECONDS,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr + witness.said()
    assert "Exiting successfully" in outcome.stderr

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
    assert sum(sizes) >= 5 * 25
