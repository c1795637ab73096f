"""The steps of a lock-down: which there are, which are wanted, and how each went."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from witness.core.lockdown import kernel
from witness.core.lockdown.kernel import NotHere
from witness.core.wire import LockdownStep


class Step(StrEnum):
    """The steps, by the names that `witness.yaml` and `witness status` use."""

    OWN_USER = "own_user"
    NO_NETWORK = "no_network"
    LIMITS = "limits"
    LOCKED_MEMORY = "locked_memory"
    NO_NEW_PRIVILEGES = "no_new_privileges"
    NOT_DUMPABLE = "not_dumpable"
    NO_NEW_CODE = "no_new_code"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


DONE: Final = "done"
UNAVAILABLE: Final = "unavailable"
OFF: Final = "off"


@dataclass(frozen=True, slots=True)
class Account:
    """A user to become: its name (for people), user ID and group ID."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class LockdownSettings:
    """What a process is told about its lock-down.

    Attributes:
        off: steps that the operator switched off.
        require: steps without which the process must not run.
        account: whom to become where started as root; None where nobody was chosen.
    """

    off: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    account: Account | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> LockdownSettings:
        """What `dataclasses.asdict` made of one.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        account = fields["account"]
        return cls(
            tuple(Step(name).value for name in fields["off"]),
            tuple(Step(name).value for name in fields["require"]),
            None if account is None else Account(**account),
        )


class RequirementUnmet(Exception):
    """A step named in `lockdown.require` could not be taken here."""

    def __init__(self, process: str, step: LockdownStep) -> None:
        super().__init__(f"the {process} cannot be locked down: {step.name} is {step.state}: {step.detail}")
        self.step = step
        self.hint = "make it possible, or take the step out of lockdown.require in witness.yaml"


@dataclass(slots=True)
class Ledger:
    """Takes the steps, one after the other, and keeps how each went."""

    settings: LockdownSettings
    steps: list[LockdownStep] = field(default_factory=list)

    def take(self, step: Step, action: Callable[[], str]) -> bool:
        """Takes a step unless it is switched off; `action` returns what is in force then. True if done.

        What the kernel refuses keeps nothing from running: it is told.
        """
        if step in self.settings.off:
            self.steps.append(LockdownStep(step, OFF, "switched off in witness.yaml"))
            return False
        try:
            detail = action()
        except NotHere as error:
            self.steps.append(LockdownStep(step, UNAVAILABLE, error.reason))
            return False
        except OSError as error:
            self.steps.append(LockdownStep(step, UNAVAILABLE, error.strerror or str(error)))
            return False
        self.steps.append(LockdownStep(step, DONE, detail))
        return True

    def done(self, process: str) -> tuple[LockdownStep, ...]:
        """All steps.

        Raises:
            RequirementUnmet: one that must be done is not.
        """
        for step in self.steps:
            if step.name in self.settings.require and step.state != DONE:
                raise RequirementUnmet(process, step)
        return tuple(self.steps)


# --- Steps that both processes take; each returns what is in force then ---


def chosen(settings: LockdownSettings, whose: str) -> Account:
    """Whom to become.

    Raises:
        NotHere: only root can, and somebody must have been chosen.
    """
    if os.geteuid() != 0:
        raise NotHere(f"started as user {os.geteuid()}: only root can give {whose} a user of its own")
    if settings.account is None:
        raise NotHere("nobody was chosen")
    return settings.account


def one_thread() -> None:
    """What holds for one thread and its children must be said before there are others.

    Raises:
        NotHere: there are others.
    """
    count = kernel.threads()
    if count != 1:
        raise NotHere(f"{count} threads run already, and it would hold for one of them")


def no_core_files() -> str:
    """No core files."""
    lower(resource.RLIMIT_CORE, 0)
    return "no core files"


def lower(which: int, value: int) -> None:
    """Lowers a limit of the process to a value, or to what it may have at most."""
    _soft, hard = resource.getrlimit(which)
    if hard == resource.RLIM_INFINITY or hard > value:
        hard = value
    resource.setrlimit(which, (hard, hard))


def give_up_privileges() -> str:
    """No further privileges, and none of those that there are."""
    kernel.set_no_new_privileges()
    # A process that stays root still has to reach files and sockets, whoever they belong to.
    root = os.geteuid() == 0
    kernel.drop_capabilities(*((kernel.CAP_DAC_OVERRIDE,) if root else ()))
    return "no_new_privs, and no capabilities" + (" but CAP_DAC_OVERRIDE" if root else "")


def hide() -> str:
    """Out of the sight of others of the same user."""
    kernel.set_undumpable()
    if kernel.is_dumpable():
        raise NotHere("the kernel keeps the process dumpable")
    return "no core dumps; no other process of its user reads its memory"


def refuse_new_code() -> str:
    """No new code in memory."""
    kernel.refuse_new_code()
    return "nothing that was writable becomes executable"
