"""The steps of a lock-down: which there are, which are wanted, and how each went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

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
