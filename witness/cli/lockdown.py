"""What the processes of `witness run` give up: `witness.yaml`'s word on it, and whose users they become."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from witness.cli.config import LockdownConfig
from witness.cli.errors import Failure
from witness.core.layout import StateLayout
from witness.core.lockdown import kernel, steps, users
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.steps import LockdownSettings, Step


@dataclass(frozen=True, slots=True)
class Lockdowns:
    """What core and front are told."""

    core: LockdownSettings = field(default_factory=LockdownSettings)
    front: LockdownSettings = field(default_factory=LockdownSettings)


def lockdowns(layout: StateLayout, config: LockdownConfig) -> Lockdowns:
    """What core and front are told; users of their own only where we are root.

    Raises:
        Failure: a user that was named does not exist, or is named for both.
    """
    off = tuple(step.value for step in Step if not getattr(config, step))
    require = config.require
    if os.geteuid() != 0 or Step.OWN_USER in off:
        return Lockdowns(LockdownSettings(off, require), LockdownSettings(off, require))
    try:
        core = users.core_account(config.core_user, layout)
        front = users.front_account(config.front_user, core)
    except users.UnknownAccount as error:
        raise Failure(str(error), error.hint) from error
    if core.uid == front.uid:
        raise Failure(
            f"core and front would both be {core.name}, and the front could read the keys",
            "give lockdown.front_user another user than the state folder belongs to",
        )
    return Lockdowns(LockdownSettings(off, require, core), LockdownSettings(off, require, front))


def hide_supervisor(config: LockdownConfig) -> None:
    """Keeps other processes of our user out of our environment, where the passphrase may stand."""
    if config.not_dumpable:
        try:
            steps.no_core_files()
            kernel.set_undumpable()
        except (NotHere, OSError):  # the core tells, for whom the same holds
            return
