"""A hostile program in the front's place: no signature that the rules do not allow, and nothing else either.

What the program does is in `tests.redteam.hostile`; here everything that it got is held against the rules.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.core.processes import CoreProcess, clean_environ
from tests.core.state import trust
from tests.crash.promise import Ledger
from tests.lockdown.attempts import WORKED
from tests.lockdown.world import CORE, FRONT, OTHER, as_user, facts, needs_root, state, steps_of, works
from tests.redteam.hostile import logs
from tests.simulated_log import SimulatedLog
from tests.transcripts import check_cosignatures
from witness.core.keystore import softkey
from witness.core.lockdown.steps import Account, LockdownSettings
from witness.core.server import MAX_CONNECTIONS
from witness.core.wire import Verb
from witness.tlog.attestation import KEY_NAME
from witness.tlog.note import parse_note
from witness.tlog.record_head import parse_record_head

GROWTH = 192 * 1024
"""KiB that the core may grow under attack: its bounds on bodies, answers and half frames together."""


@dataclasses.dataclass
class Report:
    """What the hostile program said."""

    steps: dict[str, str] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    open: list[int] = dataclasses.field(default_factory=list)
    floods: list[tuple[int, int, float]] = dataclasses.field(default_factory=list)
    signed: int = 0


def attack(
    core: CoreProcess, account: Account | None, prefix: tuple[str, ...], seed: int, **much: int
) -> Report:
    """Lets the program loose on a core, and checks every answer that it gets."""
    layout = core.layout
    ledger = Ledger(softkey.read_public(layout.softkey).vkeys, {each[0].origin: each for each in logs()})
    aims = {
        "state": str(layout.root), "core": core.pid, "seed": seed,
        "account": dataclasses.asdict(account) if account else None, **much,
    }  # fmt: skip
    report = Report()
    with subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.redteam.hostile"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=clean_environ(), text=True,
    ) as hostile:  # fmt: skip
        try:
            assert hostile.stdin is not None
            assert hostile.stdout is not None
            hostile.stdin.write(json.dumps(aims) + "\n")
            hostile.stdin.close()
            ended = False
            for line in hostile.stdout:
                said = json.loads(line)
                ended = "end" in said
                take(said, report, ledger)
            assert ended, f"the hostile program did not get to its end: {core.said()}"
        finally:
            hostile.kill()
    ledger.check_state(layout.database)
    report.signed = ledger.answers
    return report


def take(said: dict[str, Any], report: Report, ledger: Ledger) -> None:
    assert "bug" not in said, f"an internal error: {said}"
    report.steps = said.get("steps", report.steps)
    report.files = said.get("files", report.files)
    if "open" in said:
        report.open.append(said["open"])
    if "flood" in said:
        report.floods.append(tuple(said["flood"]))
    if "ok" in said:
        verb, body, answer = said["ok"]
        body, answer = base64.b64decode(body), base64.b64decode(answer)
        if verb == Verb.ADD_CHECKPOINT:
            check_cosignatures("add-checkpoint", body, answer, ledger.vkeys)
            ledger.answered(body, answer)
        elif verb == Verb.CHECKPOINT:
            ledger.served(answer)
        elif verb == Verb.SIGN_SUBTREE:
            check_cosignatures("sign-subtree", body, answer, ledger.vkeys)
        else:
            if verb == Verb.STATUS:
                answer = without_record_head(answer)
            # No other verb's answer holds a signature: there is nothing in them to be misused.
            assert "— ".encode() not in answer
            assert verb in set(Verb)


def without_record_head(answer: bytes) -> bytes:
    """A status without the one signed note in it, which must be a record head by the attestation key."""
    status = json.loads(answer)
    head = status.pop("attested_head", "")
    if head:
        note = parse_note(head.encode())
        assert parse_record_head(note.text).name == status["name"]
        assert all(line.name.startswith(KEY_NAME) for line in note.signatures)
    return json.dumps(status, ensure_ascii=False).encode()


def run(core: CoreProcess, account: Account | None, prefix: tuple[str, ...], seed: int, **much: int) -> None:
    steps = steps_of(core)
    honest = SimulatedLog("redteam.example/honest", size=9)
    works(core, honest)
    before = int(facts(core.pid)["VmHWM"].split()[0])
    report = attack(core, account, prefix, seed, **much)
    assert core.alive
    if report.steps["landlock"] == "done" or report.steps["own_user"] == "done":
        allowed = {what for what, how in report.files.items() if how == WORKED}
        if steps["not_dumpable"].state == "done" and report.steps["seccomp"] == "done":
            assert allowed == set()
        else:
            assert not {what for what in allowed if not what.startswith("core's")}
    assert report.signed > 10, "the attack missed the door: nothing was signed"
    assert all(count <= MAX_CONNECTIONS for count in report.open)
    grown = int(facts(core.pid)["VmHWM"].split()[0]) - before
    assert grown < GROWTH, f"the core grew by {grown} KiB"
    works(core, honest, 9)  # and is there for an honest front
    assert core.stop() == 0
    said = core.said()
    assert "Traceback" not in said
    assert len(core.errors.read_bytes()) < 200_000, "the attacker fills the log"


SHORT = {"turns": 1, "rounds": 12, "connections": 1000, "patience": 20}


@pytest.mark.slow
@needs_root
def test_with_users_of_their_own() -> None:
    lockdown = LockdownSettings(account=CORE)
    with state() as layout:
        trust(layout, *(each[0] for each in logs()), SimulatedLog("redteam.example/honest"))
        with CoreProcess(
            layout, lockdown=lockdown, front_account=FRONT, front_uids=(FRONT.uid,)
        ) as core:  # fmt: skip
            run(core, FRONT, (), 1, **SHORT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "root", [pytest.param(True, marks=needs_root), False], ids=["as a user", "as we are"]
)
def test_with_one_user_for_both(*, root: bool) -> None:
    uid = OTHER if root else None
    prefix = () if uid is None else as_user(uid)
    with state(owner=uid) as layout:
        trust(layout, *(each[0] for each in logs()), SimulatedLog("redteam.example/honest"))
        if uid is not None:
            for path in layout.root.iterdir():
                os.chown(path, uid, uid)
        with CoreProcess(layout, prefix=prefix) as core:
            run(core, None, prefix, 2, **SHORT)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 104))
def test_for_long(seed: int) -> None:
    account = CORE if os.geteuid() == 0 else None
    front = FRONT if os.geteuid() == 0 else None
    uids = (FRONT.uid,) if front else ()
    with state() as layout:
        trust(layout, *(each[0] for each in logs()), SimulatedLog("redteam.example/honest"))
        lockdown = LockdownSettings(account=account)
        with CoreProcess(layout, lockdown=lockdown, front_account=front, front_uids=uids) as core:
            run(core, front, (), seed, turns=4, rounds=150, connections=1000, patience=400)
