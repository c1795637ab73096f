"""What the processes of `witness run` give up: `witness.yaml`'s word on it, and whose users they become."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from witness.cli.config import LockdownConfig
from witness.cli.errors import Failure, say_warning
from witness.core.keystore import keyring
from witness.core.layout import StateLayout
from witness.core.lockdown import kernel, steps, users
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.steps import LockdownSettings, Step


@dataclass(frozen=True, slots=True)
class Lockdowns:
    """What core and front are told."""

    core: LockdownSettings = field(default_factory=LockdownSettings)
    front: LockdownSettings = field(default_factory=LockdownSettings)

    def to_json(self) -> str:
        """One line of JSON, for the process that pulls lists."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Lockdowns:
        """What `to_json` wrote."""
        fields = json.loads(line)
        return cls(*(LockdownSettings.from_fields(fields[name]) for name in ("core", "front")))


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
        identity = keyring.read(layout).identity
        core = users.core_account(config.core_user, layout, identity)
        front = users.front_account(config.front_user, core, identity)
    except users.UnknownAccount as error:
        raise Failure(str(error), error.hint) from error
    if core.uid == front.uid:
        raise Failure(
            f"core and front would both be {core.name}, and the front could read the keys",
            "give lockdown.front_user another user than the state folder belongs to",
        )
    for account, module in ((core, "witness.core"), (front, "witness.cli.front_process")):
        for pid in users.others_of(account, f"-m\0{module}\0".encode()):
            say_warning(
                f"process {pid} of another witness is {account.name} as well: they could reach each other;"
                " give this one users of its own, lockdown.core_user and lockdown.front_user in witness.yaml"
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
