"""What reads lists: one process without the state, one without network and keys, neither of them root."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.daemon import daemon, eventually
from tests.conftest import ROOT
from tests.core.keystore.rigs import children_of
from tests.core.processes import DEADLINE, CoreProcess, clean_environ, short_folder
from tests.lockdown.attempts import WORKED
from tests.lockdown.test_daemon import made, uids
from tests.lockdown.world import CORE, EVERY, FRONT, OTHER, as_user, facts, needs_root, state
from tests.simulated_log import SimulatedLog
from witness.cli.lockdown import Lockdowns
from witness.core.layout import StateLayout
from witness.core.lockdown.adding import AddingLockdown
from witness.core.lockdown.landlock import abi
from witness.core.lockdown.steps import Account, LockdownSettings, RequirementUnmet

NEEDED = {"fetching": {"connect"}, "adding": {"list logs"}}
"""What each is there for."""
TRIED = {"database", "keys", "configuration", "home", "connect", "execute", "fork", "kill"}


def met(
    which: str, layout: StateLayout, account: Account | None, uid: int | None, *, confined: bool = True
) -> dict[str, Any]:
    """What the process meets that is confined as `witness run` confines it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = {
            "which": which, "state": str(layout.root), "tcp": listener.getsockname()[1], "confined": confined,
            "lockdown": dataclasses.asdict(LockdownSettings(account=account)),
        }  # fmt: skip
        done = subprocess.run(
            [*(as_user(uid) if uid is not None else (sys.executable,)), "-m", "tests.lockdown.reader"],
            check=False, input=json.dumps(told) + "\n", capture_output=True, text=True, timeout=DEADLINE,
            cwd=ROOT, env=clean_environ(),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def worked(tries: dict[str, Any]) -> set[str]:
    return {what for what, how in tries.items() if how == WORKED}


@contextmanager
def witness_of(uid: int | None) -> Iterator[StateLayout]:
    """A state that a core has run on, and runs on."""
    with state(owner=uid) as layout:
        (layout.root.parent / "secret").write_text("x")
        front = FRONT if uid is None else None
        with CoreProcess(
            layout,
            prefix=() if uid is None else as_user(uid),
            lockdown=LockdownSettings(account=CORE if uid is None else None),
            front_account=front,
            front_uids=(FRONT.uid,) if front else (),
        ):
            yield layout


@needs_root
@pytest.mark.parametrize("which", ["fetching", "adding"])
@pytest.mark.parametrize("uid", [None, OTHER], ids=["as root", "as a user"])
def test_it_reaches_what_it_needs_and_nothing_else(which: str, uid: int | None) -> None:
    account = {"fetching": FRONT, "adding": CORE}[which] if uid is None else None
    with witness_of(uid) as layout:
        found = worked(met(which, layout, account, uid))
        # The core is a socket by its path, which nothing but a socket's mode keeps a process from. Whoever
        # stands there may say what any client of the witness may say.
        found -= {"core"}
        if which == "adding":
            found -= {"database"}
        assert found == NEEDED[which]
        assert abi() >= 1, "a machine without Landlock does not show what this test is about"


@needs_root
@pytest.mark.parametrize("which", ["fetching", "adding"])
def test_without_the_lock_down_all_of_it_works(which: str) -> None:
    with witness_of(None) as layout:
        assert worked(met(which, layout, None, None, confined=False)) >= TRIED


@contextmanager
def slow_list(body: bytes) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A list that is answered when it is let go: its URL, that it was asked for, and what lets it go."""
    asked, go = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            go.wait(DEADLINE)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/list", asked, go
    finally:
        go.set()
        server.shutdown()
        thread.join()
        server.server_close()


@needs_root
@pytest.mark.slow
def test_the_daemons_lists_are_read_by_the_users_of_core_and_front() -> None:
    log = SimulatedLog("listed.example", size=5)
    with (
        short_folder() as folder,
        slow_list(f"logs/v0\nvkey {log.vkeys[0]}\nqpd 24\ncontact x\n".encode()) as (url, asked, go),
    ):
        state = made(folder, f"lists: [{{url: '{url}'}}]\n")
        with daemon(state) as running:
            users = uids(running)
            eventually("the list is asked for", asked.is_set)
            (fetching,) = [
                child for pid in children_of(running.process.pid) for child in children_of(pid)
                if b"list_fetch" in Path(f"/proc/{child}/cmdline").read_bytes()
            ]  # fmt: skip
            known = facts(fetching)
            assert set(known["Uid"].split()) == {str(users["front"])}
            assert int(known["CapEff"], 16) == int(known["CapPrm"], 16) == 0
            assert (known["NoNewPrivs"], known["Seccomp"]) == ("1", "2")
            go.set()
            kept = state / "lists.json"
            eventually("what it met is kept", kept.exists)
            assert json.loads(kept.read_text())[url]["added"] == 1
            assert kept.stat().st_uid == users["core"]

            def cosigned() -> bool:
                return running.request("POST", "/add-checkpoint", log.add_checkpoint(0))[0] == 200

            eventually("the core knows the log", cosigned)
            assert list(state.glob("lists.*.tmp")) == []


@needs_root
def test_a_step_that_must_be_done_ends_the_reading() -> None:
    demand = LockdownSettings(off=("seccomp",), require=("seccomp",))
    with state() as layout:
        done = subprocess.run(
            [
                sys.executable, "-m", "witness.cli.pulling", str(layout.root), "http://127.0.0.1:1/",
                Lockdowns(LockdownSettings(), demand).to_json(),
            ],
            check=False, capture_output=True, text=True, timeout=DEADLINE, cwd=ROOT, env=clean_environ(),
        )  # fmt: skip
        assert done.returncode == 3
        assert "the process that fetches lists cannot be locked down: seccomp is off" in done.stderr
        with pytest.raises(RequirementUnmet, match="the process that adds logs cannot be locked down"):
            AddingLockdown(LockdownSettings(off=EVERY, require=("landlock",)), layout).finish(())
