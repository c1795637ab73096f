"""The core's lock-down: derive first, then lock.

`begin` runs before anything else, while the process has one thread. `finish` runs when the keys, the database
and the listening socket are open, and before the first request and the first thread. What a key backend needs
of the world (a device, a token's module, an agent's socket, another core's) is held by the device host, a
process that the keystore starts in between and that stays outside; the profile is therefore the same for
every backend: whoever takes over the core finds an open database, an open socket, and keys in memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from typing import Final

from witness.core.layout import StateLayout
from witness.core.lockdown import calls, kernel, landlock, namespace, seccomp, steps, users
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.landlock import Access, Rule
from witness.core.lockdown.steps import Account, Ledger, LockdownSettings, Step
from witness.core.wire import LockdownStep

log = logging.getLogger(__name__)

MAX_FILES: Final = 512
"""Descriptors: connections are bounded by the server, and the database's and our own are some tens."""
MAX_TASKS: Final = 256
"""Threads, where the user is the core's own; judge threads are at most 64."""


class CoreLockdown:
    """The lock-down of this process.

    Args:
        settings: which steps, and whom to become.
        layout: the state folder.
        front: the front's user, if it has one of its own.
    """

    def __init__(
        self, settings: LockdownSettings, layout: StateLayout, *, front: Account | None = None
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._front = front
        self._ledger = Ledger(settings)
        self._began_as = os.geteuid()
        self._user_namespace = False
        self._no_user_namespace = "nobody asked for one"

    def begin(self) -> None:
        """Before keys are read: a user namespace where one is needed, and out of other processes' sight."""
        if self._began_as != 0 and Step.NO_NETWORK not in self._settings.off:
            try:
                namespace.enter_user_namespace()
                self._user_namespace = True
            except (NotHere, OSError) as error:
                self._no_user_namespace = getattr(error, "reason", "") or str(error)
        if Step.SECCOMP not in self._settings.off:
            seccomp.keep_from_io_uring(privileges=Step.NO_NEW_PRIVILEGES in self._settings.off)
        if Step.NOT_DUMPABLE not in self._settings.off:
            with contextlib.suppress(NotHere, OSError):  # `finish` takes this step again, and tells
                kernel.set_undumpable()

    @property
    def shows_root_as(self) -> tuple[int, ...]:
        """User IDs that may be root's in the eyes of this process.

        In a user namespace root has no number, like everybody else but ourselves. The socket file's mode is
        0600 then, and nobody but its owner and root passes that: whoever is connected and is not us, is root.
        """
        return (users.OVERFLOW_ID,) if self._user_namespace else ()

    def finish(self) -> tuple[LockdownStep, ...]:
        """Everything else; afterwards this process reaches what it holds open, and its state folder.

        Raises:
            RequirementUnmet: a step that `lockdown.require` names could not be taken.
        """
        take = self._ledger.take
        rings = seccomp.uses_io_uring()  # asked while /proc can be read
        take(Step.NO_NETWORK, self._leave_network)
        take(Step.LOCKED_MEMORY, _lock_memory)
        own = take(Step.OWN_USER, self._become)
        take(Step.LIMITS, lambda: self._limit(tasks=own))
        take(Step.NO_NEW_PRIVILEGES, steps.give_up_privileges)
        take(Step.NOT_DUMPABLE, steps.hide)
        take(Step.NO_NEW_CODE, steps.refuse_new_code)
        take(Step.LANDLOCK, self._landlock)
        take(Step.SECCOMP, lambda: _seccomp(rings=rings))
        taken = self._ledger.done("core")
        for step in taken:
            log.info("lock-down step=%s state=%s detail=%r", step.name, step.state, step.detail)
        return taken

    # --- The steps ---

    def _leave_network(self) -> str:
        if self._began_as != 0 and not self._user_namespace:
            raise NotHere(self._no_user_namespace)
        steps.one_thread()
        try:
            namespace.leave_network()
        except PermissionError as error:
            raise NotHere("this process may not make a network namespace (CAP_SYS_ADMIN)") from error
        return "a network namespace of its own, without interfaces"

    def _become(self) -> str:
        account = steps.chosen(self._settings, "the core")
        users.check_reach(account, passing=(self._layout.root.parent,))
        users.hand_over(self._layout, account, self._front)
        users.become(account)
        return account.name

    @staticmethod
    def _limit(*, tasks: bool) -> str:
        words = f"{steps.no_core_files()}, {MAX_FILES} descriptors"
        steps.lower(resource.RLIMIT_NOFILE, MAX_FILES)
        if tasks:  # counted by user: where the user is shared, others' processes would count too
            steps.lower(resource.RLIMIT_NPROC, MAX_TASKS)
            words += f", {MAX_TASKS} threads"
        return words

    def _landlock(self) -> str:
        steps.one_thread()
        folder = Access.READ_FILE | Access.READ_DIR | Access.REMOVE_FILE
        file = Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE
        rules = [Rule(self._layout.root, folder), *(Rule(path, file) for path in users.written(self._layout))]
        return f"the state folder alone ({landlock.restrict(rules, network=False)})"


def _lock_memory() -> str:
    try:
        kernel.lock_memory()
    except OSError as error:
        soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        raise NotHere(
            f"RLIMIT_MEMLOCK is {soft // 1024} KiB (LimitMEMLOCK=infinity in a systemd unit)"
        ) from error
    return "what is in memory now stays out of swap"


def _seccomp(*, rings: bool) -> str:
    if rings:  # what is asked of a ring passes no filter; and refused its ring, libuv aborts
        raise NotHere("the event loop uses io_uring, and cannot be kept from it here")
    return seccomp.allow_only(calls.core_calls(), absent=calls.CORE_ABSENT)
