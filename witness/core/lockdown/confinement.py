"""Keeping the front out of what is the core's: the database, the keys, the core's memory.

The front listens, connects and resolves names, and it starts threads whenever it likes; what it cannot do is
read or write the state folder, start programs, or look into other processes. `confine` runs when its
listeners are bound, and before its first thread and the first byte from outside.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from witness.core.lockdown import calls, kernel, landlock, seccomp, steps, users
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.landlock import READ, Access, Rule
from witness.core.lockdown.steps import Ledger, LockdownSettings, Step
from witness.core.wire import LockdownStep

log = logging.getLogger(__name__)

WRITE: Final = (
    READ | Access.WRITE_FILE | Access.TRUNCATE | Access.MAKE_REG | Access.MAKE_DIR | Access.REMOVE_FILE
    | Access.REMOVE_DIR | Access.REFER
)  # fmt: skip
SYSTEM: Final = (
    "/usr", "/lib", "/lib64",  # shared libraries, time zones, certificates
    "/etc",  # names and their servers, certificates; what replaces a file there must be readable too
    # where the state folder is in /etc:
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/localtime",
    "/run/systemd/resolve", "/run/resolvconf", "/run/nscd",
    "/dev/null", "/dev/urandom", "/sys/devices/system/cpu/online",
)  # fmt: skip
"""What name resolution and TLS read."""


def confine(
    settings: LockdownSettings,
    state: Path,
    *,
    writes: Sequence[Path] = (),
    reads: Sequence[Path] = (),
) -> tuple[LockdownStep, ...]:
    """Confines this process, and the threads that it starts from now on.

    Args:
        settings: which steps, and whom to become.
        state: the state folder, which it may pass through to the core's socket.
        writes: folders that it writes; those that are missing are made for it.
        reads: what it reads besides Python's library and what the system resolves names with.

    Raises:
        RequirementUnmet: a step that `lockdown.require` names could not be taken.
    """
    ledger = Ledger(settings)
    rings = seccomp.uses_io_uring()
    found = readable(reads)
    ledger.take(Step.OWN_USER, lambda: _become(settings, state, writes))
    ledger.take(Step.LIMITS, steps.no_core_files)
    ledger.take(Step.NO_NEW_PRIVILEGES, steps.give_up_privileges)
    ledger.take(Step.NOT_DUMPABLE, steps.hide)
    ledger.take(Step.NO_NEW_CODE, steps.refuse_new_code)
    ledger.take(Step.LANDLOCK, lambda: _landlock(state, writes, found))
    ledger.take(Step.SECCOMP, lambda: seccomp.refuse(calls.front_refused(), absent=_absent(rings=rings)))
    taken = ledger.done("front")
    for step in taken:
        log.info("lock-down step=%s state=%s detail=%r", step.name, step.state, step.detail)
    return taken


def _become(settings: LockdownSettings, state: Path, writes: Sequence[Path]) -> str:
    account = steps.chosen(settings, "the front")
    for folder in writes:
        if not folder.exists():
            folder.mkdir(parents=True)
            os.chown(folder, account.uid, account.gid)
    users.check_reach(account, passing=(state,), writing=writes)
    users.become(account)
    return account.name


def _landlock(state: Path, writes: Sequence[Path], found: Sequence[Path]) -> str:
    steps.one_thread()
    state = state.resolve()
    rules = []
    for folder in writes:
        folder.mkdir(parents=True, exist_ok=True)
        if _holds(folder, state):
            raise NotHere(f"{folder}, which the front writes, holds the state folder")
        rules.append(Rule(folder, WRITE))
    rules += [Rule(path, READ) for path in found if not _holds(path, state)]
    return f"not the state folder ({landlock.restrict(rules, network=True)})"


def _holds(folder: Path, state: Path) -> bool:
    return state.is_relative_to(folder.resolve())


def readable(more: Sequence[Path]) -> list[Path]:
    """The system's and Python's own, where later imports may find something, and more."""
    found = [*map(Path, SYSTEM), *python_paths(), *more]
    return [path for path in dict.fromkeys(found) if path != Path("/")]


def python_paths() -> list[Path]:
    """Where Python's modules are, and ours."""
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path]
    return [path for path in map(Path, filter(None, python)) if path != Path("/")]


def _absent(*, rings: bool) -> tuple[str, ...]:
    if rings:  # refused the use of a ring that it has, libuv aborts; and a ring goes around the filter
        raise NotHere("the event loop uses io_uring, and cannot be kept from it here")
    return calls.FRONT_ABSENT


def prepare(settings: LockdownSettings) -> None:
    """Comes before the event loop: keeps it from io_uring, and other processes from looking in."""
    if Step.SECCOMP not in settings.off:
        seccomp.keep_from_io_uring(privileges=Step.NO_NEW_PRIVILEGES in settings.off)
    if Step.NOT_DUMPABLE not in settings.off:
        with contextlib.suppress(NotHere, OSError):
            kernel.set_undumpable()
