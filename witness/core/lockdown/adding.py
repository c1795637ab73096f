"""What the processes that read lists of logs give up (decision 20). They live for seconds.

One fetches: it needs the network, and nothing of the witness. One adds what was fetched to the database: it
needs that and the file in which it keeps what it met, and neither network nor keys. Both take the steps that
`witness.yaml` leaves on, as the front does; a step that must be done and cannot be ends them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from witness.core.layout import StateLayout
from witness.core.lockdown import calls, landlock, seccomp, steps, users
from witness.core.lockdown.confinement import python_paths, readable
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.landlock import READ, Access, Rule
from witness.core.lockdown.steps import Ledger, LockdownSettings, Step


def confine_fetching(settings: LockdownSettings, state: Path, reads: Sequence[Path]) -> None:
    """Confines this process, before its first thread and the first byte from outside.

    Args:
        settings: the front's steps, and the front's user.
        state: the state folder, of which it is not to see anything.
        reads: what it reads besides Python's library and what the system resolves names with.

    Raises:
        RequirementUnmet: a step that must be done cannot be.
    """
    ledger = Ledger(settings)
    rules = [
        Rule(path, READ) for path in readable(reads) if not state.resolve().is_relative_to(path.resolve())
    ]
    ledger.take(Step.OWN_USER, lambda: _become(settings, "whoever fetches lists"))
    _take_plain_steps(ledger)
    ledger.take(Step.LANDLOCK, lambda: _restrict(rules, network=True))
    ledger.take(Step.SECCOMP, lambda: seccomp.refuse(calls.front_refused(), absent=calls.FRONT_ABSENT))
    ledger.done("process that fetches lists")


class AddingLockdown:
    """The steps of the process that adds logs.

    Args:
        settings: the core's steps, and the core's user.
        layout: the state folder.
    """

    def __init__(self, settings: LockdownSettings, layout: StateLayout) -> None:
        self._ledger = Ledger(settings)
        self._settings = settings
        self._layout = layout

    def begin(self) -> None:
        """Becomes the core's user, before anything of the state is opened."""
        self._ledger.take(
            Step.OWN_USER, lambda: _become(self._settings, "whoever adds logs", self._layout.root)
        )

    def finish(self, writes: Sequence[Path]) -> None:
        """Gives up the rest, once the database is open and before what was fetched is looked at.

        Args:
            writes: files of the state folder that it writes besides the database; they exist.

        Raises:
            RequirementUnmet: a step that must be done cannot be.
        """
        file = Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE
        root = self._layout.root
        rules = [
            Rule(
                root, Access.READ_DIR | Access.MAKE_REG | Access.REMOVE_FILE
            ),  # to put one in another's place
            *(Rule(path, file) for path in (*users.database_files(self._layout), *writes)),
            *(
                Rule(path, READ)
                for path in python_paths()
                if not root.resolve().is_relative_to(path.resolve())
            ),
        ]
        with suppress(NotHere):  # `refuse` tells
            seccomp.library()  # which could not be loaded after the next step but one
        _take_plain_steps(self._ledger)
        self._ledger.take(Step.LANDLOCK, lambda: _restrict(rules, network=False))
        self._ledger.take(
            Step.SECCOMP, lambda: seccomp.refuse(calls.adding_refused(), absent=calls.FRONT_ABSENT)
        )
        self._ledger.done("process that adds logs")


def _become(settings: LockdownSettings, whose: str, writing: Path | None = None) -> str:
    account = steps.chosen(settings, whose)
    users.check_reach(account, writing=() if writing is None else (writing,))
    users.become(account)
    return account.name


def _reading(paths: Sequence[Path], state: Path) -> list[Rule]:
    """The right to read these, but none that the state folder is in."""
    return [Rule(path, READ) for path in paths if not state.resolve().is_relative_to(path.resolve())]


def _take_plain_steps(ledger: Ledger) -> None:
    ledger.take(Step.LIMITS, steps.no_core_files)
    ledger.take(Step.NO_NEW_PRIVILEGES, steps.give_up_privileges)
    ledger.take(Step.NOT_DUMPABLE, steps.hide)
    ledger.take(Step.NO_NEW_CODE, steps.refuse_new_code)


def _restrict(rules: Sequence[Rule], *, network: bool) -> str:
    steps.one_thread()
    return landlock.restrict(rules, network=network)
