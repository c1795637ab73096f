"""The lock-down as the kernel and other processes see it, and what `status` says of it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.core.processes import CoreProcess, SocketClient, poll
from tests.core.state import trust
from tests.lockdown.attempts import WORKED
from tests.lockdown.world import (
    CORE,
    EVERY,
    FRONT,
    OTHER,
    as_user,
    facts,
    needs_root,
    run_as,
    state,
    status_of,
    steps_of,
    works,
)  # fmt: skip
from tests.simulated_log import SimulatedLog
from witness.core.lockdown.landlock import abi
from witness.core.lockdown.steps import LockdownSettings
from witness.core.wire import Verb, decode_logs

LOG = SimulatedLog("process.example/log", size=5)


def test_status_tells_every_step_and_the_kernel_agrees() -> None:
    with state(LOG) as layout, CoreProcess(layout) as core:
        works(core, LOG)
        steps = steps_of(core)
        assert set(steps) == set(EVERY)
        assert all(step.detail for step in steps.values())
        is_done = {name: step.state == "done" for name, step in steps.items()}
        known = facts(core.pid)
        assert (known["Seccomp"] == "2") == is_done["seccomp"]
        assert (known["NoNewPrivs"] == "1") == is_done["no_new_privileges"]
        assert (known["VmLck"] != "0 kB") == is_done["locked_memory"]
        namespace = Path(f"/proc/{core.pid}/ns/net").readlink() if os.geteuid() == 0 else None
        if namespace is not None:
            assert (namespace != Path("/proc/self/ns/net").readlink()) == is_done["no_network"]
            limits = Path(f"/proc/{core.pid}/limits").read_text().splitlines()
            core_files = next(line for line in limits if line.startswith("Max core file size"))
            assert core_files.split()[4:6] == ["0", "0"]
        assert is_done["limits"]
        assert is_done["not_dumpable"]


def test_steps_can_be_switched_off() -> None:
    off = ("seccomp", "landlock", "no_network", "locked_memory", "not_dumpable", "no_new_code")
    with state(LOG) as layout, CoreProcess(layout, lockdown=LockdownSettings(off=off)) as core:
        works(core, LOG)
        steps = steps_of(core)
        assert {name for name, step in steps.items() if step.state == "off"} == set(off)
        known = facts(core.pid)
        assert known["Seccomp"] == "0"
        assert known["VmLck"] == "0 kB"


@needs_root
@pytest.mark.parametrize("account", [None, CORE], ids=["started as a user", "with its own user"])
def test_no_other_process_of_the_same_user_looks_in(account) -> None:
    uid = OTHER if account is None else account.uid
    prefix = as_user(OTHER) if account is None else ()
    owner = OTHER if account is None else None
    with (
        state(LOG, owner=owner) as layout,
        CoreProcess(layout, prefix=prefix, lockdown=LockdownSettings(account=account)) as core,
    ):
        works(core, LOG)
        # Of a process that is not dumpable, these belong to root (proc(5)).
        assert Path(f"/proc/{core.pid}/environ").stat().st_uid == 0
        met = run_as(uid, "tests.lockdown.peer", str(core.pid))
        assert WORKED not in {how for what, how in met.items() if what != "signal"}, met
        works(core, LOG, 5)


@needs_root
def test_without_the_step_another_process_of_the_user_does_look_in() -> None:
    """The control of the test above."""
    lockdown = LockdownSettings(off=EVERY)
    with (
        state(owner=OTHER) as layout,
        CoreProcess(layout, prefix=as_user(OTHER), lockdown=lockdown) as core,
    ):
        met = run_as(OTHER, "tests.lockdown.peer", str(core.pid))
        assert set(met.values()) == {WORKED}


@needs_root
def test_its_own_user_owns_what_it_writes_and_nothing_else() -> None:
    lockdown = LockdownSettings(account=CORE, require=("own_user",))
    with (
        state(LOG) as layout,
        CoreProcess(layout, lockdown=lockdown, front_account=FRONT, front_uids=(FRONT.uid,)) as core,
    ):
        works(core, LOG)
        known = facts(core.pid)
        assert set(known["Uid"].split()) == set(known["Gid"].split()) == {str(CORE.uid)}
        assert known["Groups"] == ""
        assert int(known["CapEff"], 16) == int(known["CapPrm"], 16) == int(known["CapBnd"], 16) == 0
        assert steps_of(core)["own_user"].detail == CORE.name

        def owner(path):
            found = path.stat()
            return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

        assert owner(layout.root) == (CORE.uid, FRONT.gid, 0o710)
        assert owner(layout.database) == (CORE.uid, CORE.gid, 0o600)
        assert owner(layout.database.with_name("witness.db-wal")) == (CORE.uid, CORE.gid, 0o600)
        assert owner(layout.config) == owner(layout.softkey) == (0, 0, 0o600)
        assert owner(layout.keys) == (0, 0, 0o700)


@needs_root
def test_root_manages_and_starts_it_again_under_its_own_user() -> None:
    lockdown = LockdownSettings(account=CORE, require=("own_user",))
    more = SimulatedLog("process.example/more", size=3)
    with state(LOG) as layout:
        for turn in range(2):
            with CoreProcess(layout, lockdown=lockdown) as core:
                works(core, LOG, 5 * turn)
                if turn == 0:
                    trust(layout, more)  # as the command line does, which root calls
                    with SocketClient(layout.core_socket) as client:

                        def known():
                            page = decode_logs(client.ask(Verb.LOGS, b"0"))
                            return True if more.origin in {log.origin for log in page.logs} else None

                        poll("the log that root added", known)
                works(core, more, 3 * turn)
                assert core.stop() == 0
                assert "Traceback" not in core.said()
            # A clean end: nothing is left that a restored database could be mixed up with.
            names = {path.name for path in layout.root.iterdir()}
            assert not names & {"witness.db-wal", "witness.db-shm", "core.sock"}
            assert layout.database.stat().st_uid == CORE.uid


@needs_root
def test_a_folder_that_its_user_cannot_get_to_is_told() -> None:
    with state(LOG) as layout:
        layout.root.parent.chmod(0o700)
        before = layout.root.stat()
        with CoreProcess(layout, lockdown=LockdownSettings(account=CORE)) as core:
            step = steps_of(core)["own_user"]
            assert step.state == "unavailable"
            assert f"cannot get into {layout.root.parent}" in step.detail
            works(core, LOG)
        assert (layout.root.stat().st_uid, layout.root.stat().st_mode) == (before.st_uid, before.st_mode)


@needs_root
def test_root_is_served_by_a_core_in_a_user_namespace_and_strangers_are_not() -> None:
    with state(LOG, owner=OTHER) as layout, CoreProcess(layout, prefix=as_user(OTHER)) as core:
        if steps_of(core)["no_network"].state != "done":
            pytest.skip("user namespaces are not allowed here")
        works(core, LOG)  # we are root, whom the core sees as nobody
        with pytest.raises(AssertionError, match="PermissionError"):
            run_as(OTHER + 9, "tests.lockdown.asker", str(layout.core_socket))
        assert run_as(OTHER, "tests.lockdown.asker", str(layout.core_socket)) == {"answered": True}


@needs_root
def test_a_machine_that_has_nothing_of_it_runs_the_core_and_hears_why() -> None:
    prefix = (sys.executable, "-m", "tests.lockdown.without", str(OTHER))
    with state(LOG, owner=OTHER) as layout, CoreProcess(layout, prefix=prefix) as core:
        works(core, LOG)
        lacking = {s.name: s.detail for s in status_of(core).lockdown if s.state == "unavailable"}
        assert lacking["landlock"] == "this kernel has no Landlock (Linux 5.13)"
        assert lacking["seccomp"] == "libseccomp.so.none is not installed"
        assert lacking["no_new_code"] == "this kernel has no PR_SET_MDWE (Linux 6.3)"
        assert lacking["no_network"] == "user namespaces are not allowed here (Operation not permitted)"
        assert lacking["locked_memory"].startswith("RLIMIT_MEMLOCK is 0 KiB")
        assert lacking["own_user"].startswith(f"started as user {OTHER}")


@needs_root
def test_what_is_required_and_cannot_be_had_keeps_the_core_from_starting() -> None:
    prefix = (sys.executable, "-m", "tests.lockdown.without", str(OTHER))
    with state(LOG, owner=OTHER) as layout:
        core = CoreProcess(layout, prefix=prefix, lockdown=LockdownSettings(require=("limits", "landlock")))
        assert core.wait() == 3
        assert core.first_line["error"] == (
            "the core cannot be locked down: landlock is unavailable:"
            " this kernel has no Landlock (Linux 5.13)"
        )
        assert "lockdown.require" in core.first_line["hint"]
        core.kill()
        # A step that was switched off is not done either.
        both = LockdownSettings(off=("seccomp",), require=("seccomp",))
        core = CoreProcess(layout, prefix=as_user(OTHER), lockdown=both)
        assert core.wait() == 3
        assert "seccomp is off" in core.first_line["error"]
        core.kill()


def test_this_machine_has_landlock_or_says_why_not() -> None:
    """Where continuous integration runs, the strong steps must be there: a skip would hide their loss."""
    if os.environ.get("CI"):
        assert abi() >= 1
