"""Drills: a witness that stood still for longer than its clock is believed, and one whose clock was set."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import make, witness
from tests.cli.daemon import Daemon, daemon, eventually
from tests.core.processes import CoreProcess, SocketClient, poll, short_folder
from tests.core.state import START, Clock, make_state
from tests.simulated_log import SimulatedLog
from witness.core.clock import ACCEPTED, EARLIEST, MAX_GAP, TOLERANCE, ClockCheck
from witness.core.continuity import recover
from witness.core.continuity.recover import CannotRecover
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout
from witness.core.refusals import ClockWrong
from witness.core.store.audit import Event, entries, leave
from witness.core.store.base import Advance, CosignedHead, Head
from witness.core.store.desk import Desk
from witness.core.store.sqlite import SQLiteStore

LONG_AGO = int(time.time()) - MAX_GAP - 10 * 86400
LOG = SimulatedLog("standstill.example", size=3)


@pytest.fixture
def state() -> Iterator[Path]:
    """A witness that has signed once, long ago."""
    with short_folder() as folder:
        state = make(folder / "s")
        assert witness("logs", "add", str(LOG.vkeys[0]), state=state).code == 0
        store = SQLiteStore(StateLayout(state).database)
        head = CosignedHead(Head(3, LOG.root(), LONG_AGO), LOG.checkpoint(), b"an old cosignature\n")
        assert store.advance([Advance(1, None, head)]) == [True]
        store.close()
        yield state


def cosign(running: Daemon) -> int:
    return running.request("POST", "/add-checkpoint", LOG.add_checkpoint(3))[0]


def test_after_a_standstill_an_operator_says_that_the_clock_is_right(state: Path) -> None:
    with daemon(state) as running:
        _, body = eventually("it says why", lambda: (said := running.get("/readyz"))[0] == 503 and said)
        assert b"410 days after the last timestamp issued" in body
        assert b"witness recover --accept-clock" in body
        assert cosign(running) == 503
        told = witness("recover", state=state)
        assert told.code == 1
        assert "410 days before" in told.out
        assert "way    if it is right, witness recover --accept-clock; else set it" in told.out
        assert json.loads(witness("recover", "--json", state=state).out)["clock"]["too_long"]
        assert cosign(running) == 503
        assert witness("recover", "--accept-clock", state=state).code == 0
        eventually("it is ready", running.ready)
        assert cosign(running) == 200
        assert running.stop() == 0
    assert "clock-accepted" in witness("audit", "show", state=state).out
    with daemon(state) as running:
        eventually("it is ready", running.ready)
        assert cosign(running) == 200


def test_it_is_accepted_while_nothing_runs_too(state: Path) -> None:
    assert witness("recover", "--accept-clock", state=state).code == 0
    with daemon(state) as running:
        eventually("it is ready", running.ready)
        assert cosign(running) == 200


def test_it_needs_the_approval_that_recovering_needs(state: Path, tmp_path: Path) -> None:
    key = tmp_path / "alice"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    operator = "alice " + " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (state / "witness.yaml").write_text(
        (state / "witness.yaml").read_text() + f"authority: {{needed: 1, operators: ['{operator}']}}\n"
    )
    layout = StateLayout(state)
    settings = ContinuitySettings(needed=1, operators=(operator,))
    with CoreProcess(layout, continuity=settings), SocketClient(layout.core_socket) as client:
        assert witness("recover", "--accept-clock", state=state).code == 1
        with Desk(layout.database) as desk:
            with desk.transaction() as connection:
                desk.set_fact(ACCEPTED, str(int(time.time())))  # by hand, around the command
                leave(connection, Event("by-hand", {}), 1)
            poll("the core has looked", lambda: any(b"by-hand" in e.record for e in entries(desk)) or None)
            assert isinstance(client.add_checkpoint(LOG.add_checkpoint(3)), ClockWrong)
        number = witness("approvals", "propose", "recover", state=state).out.strip()
        assert witness("approvals", "approve", number, "--key", key, state=state).code == 0
        assert witness("recover", "--accept-clock", state=state).code == 0
        poll("it signs", lambda: isinstance(client.add_checkpoint(LOG.add_checkpoint(3)), bytes) or None)


def test_a_clock_that_is_wrong_is_not_accepted(state: Path, tmp_path: Path) -> None:
    with Desk(StateLayout(state).database) as desk:
        with pytest.raises(CannotRecover, match="behind a timestamp that was issued"):
            recover.accept_clock(desk, LONG_AGO - 1)
        assert desk.fact(ACCEPTED) is None
    with Desk(make_state(tmp_path / "fresh").database) as desk:
        with pytest.raises(CannotRecover, match="before this program was made"):
            recover.accept_clock(desk, EARLIEST - 1)
        assert desk.fact(ACCEPTED) is None


def test_what_is_accepted_is_a_time_and_no_licence() -> None:
    """A clock accepted at one time is doubted again when it jumps on from there; and never goes back."""
    boot = Clock(50.0)
    check = ClockCheck(elapsed=boot)
    now = START + MAX_GAP + 1
    assert check.wrong(now, START) is not None
    check.accept(now)
    assert check.wrong(now, START) is None
    assert check.wrong(now + MAX_GAP + 1, START) is not None
    check.check(now, START)
    assert check.wrong(now + TOLERANCE + 1, now) is not None
    check.accept(now)  # once more: it says nothing new
    assert check.wrong(now + TOLERANCE + 1, now) is not None
    check.accept(now + TOLERANCE + 1)  # a slow clock was set, and its operator says so
    assert check.wrong(now + TOLERANCE + 1, now) is None
