"""The units and the documents about the lock-down, held to what they say."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from witness.core.lockdown.calls import core_calls, front_refused
from witness.core.lockdown.steps import Step

UNIT = ROOT / "deploy" / "witness.service"
DROP_IN = ROOT / "deploy" / "two-users.conf"


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_knows_every_line_of_the_unit() -> None:
    said = analyze("verify", UNIT).stderr.splitlines()
    # The program itself need not be installed where the tests run.
    assert [line for line in said if "witness" in line and "is not executable" not in line] == []


def test_systemd_rates_the_unit_as_documented() -> None:
    outcome = analyze("security", "--offline=true", "--threshold=21", UNIT)
    assert outcome.returncode == 0, outcome.stdout[-400:]


def test_the_drop_in_leaves_what_its_processes_need() -> None:
    """What the lock-down does as root, by the capability that it needs for it."""
    kept = " ".join(re.findall(r"^CapabilityBoundingSet=(.+)$", DROP_IN.read_text(), re.MULTILINE)).split()
    assert set(kept) == {
        "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_KILL",
        "CAP_SYS_ADMIN", "CAP_IPC_LOCK",
    }  # fmt: skip


@pytest.mark.parametrize("step", Step)
def test_every_step_is_documented(step: Step) -> None:
    assert f"| `{step.value}` |" in (ROOT / "docs/security.md").read_text()
    assert re.search(rf"^  {step.value}: true$", (ROOT / "config/witness.yaml").read_text(), re.MULTILINE)


def test_the_core_keeps_no_call_that_the_front_loses() -> None:
    free = {call.name for call in core_calls() if not call.when}
    lost = {call.name for call in front_refused() if not call.when}
    assert free & lost == set()
    assert not free & {
        "socket",
        "connect",
        "bind",
        "clone",
        "clone3",
        "fork",
        "openat2",
        "prctl",
        "rename",
        "mkdir",
    }
