"""SIGKILL at random moments under load: state never goes back, and what a client saw is in it."""

from __future__ import annotations

import random
import threading

import pytest

from tests.core.processes import CoreProcess, poll, short_folder
from tests.core.state import make_state, trust
from tests.crash.load import Loader, Story, enough
from tests.crash.promise import Ledger
from witness.core.keystore import softkey

LOGS = 8
CLIENTS = 2


def run_campaign(kills: int, seed: int, *, size: int = 400, **settings: int) -> Ledger:
    """Starts a core, loads it, kills it, checks; again and again on one state folder."""
    choose = random.Random(seed)
    stories = [Story(f"kill.example/{n}", size) for n in range(LOGS)]
    with short_folder() as folder:
        layout = make_state(folder, algorithms=("ed25519",))
        trust(layout, *(story.truth for story in stories))
        vkeys = softkey.read_public(layout.softkey).vkeys
        ledger = Ledger(vkeys, {story.origin: [story.truth, story.lie] for story in stories})
        for kill in range(kills):
            with CoreProcess(layout, **settings) as core:
                # Logs are shared between the clients, so that they race for the same heads.
                loaders = [
                    Loader(layout.core_socket, stories, ledger, seed + kill * CLIENTS + number)
                    for number in range(CLIENTS)
                ]
                before = ledger.answers
                for loader in loaders:
                    loader.start()
                # The moment: after some answers, at any point of whatever comes next.
                wanted = before + choose.randint(0, 120)
                poll("answers", lambda want=wanted, of=loaders: enough(ledger, want, of))
                threading.Event().wait(choose.random() * 0.02)
                core.kill()
            for loader in loaders:
                loader.join(30)
                assert not loader.is_alive()
                if loader.failure is not None:
                    raise loader.failure
            ledger.check_state(layout.database)
    return ledger


def test_twenty_kills() -> None:
    ledger = run_campaign(20, seed=1)
    assert ledger.answers > 200
    assert len(ledger.disk) == LOGS


def test_kills_with_one_commit_for_each_request() -> None:
    assert run_campaign(3, seed=2, max_batch=1).answers > 20


@pytest.mark.campaign
def test_two_hundred_kills() -> None:
    ledger = run_campaign(200, seed=random.SystemRandom().randrange(10**9), size=8000)
    assert len(ledger.disk) == LOGS
