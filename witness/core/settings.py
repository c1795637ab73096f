"""The core's settings: plain values, handed over as one line of JSON by whoever starts it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from witness.core.continuity.settings import ContinuitySettings
from witness.core.lockdown.steps import Account, LockdownSettings


class BadSettings(Exception):
    """The line is not the settings this core knows."""


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What the core is told at its start.

    Attributes:
        state_dir: the state folder.
        max_batch: requests that share one transaction, at most; 1 is one commit a request (for benchmarks).
        max_pending: requests waiting in the core before it sheds load.
        judge_threads: threads that check and sign.
        passphrase_env: name of the environment variable that holds the key file's passphrase.
        passphrase_file: path of a file that holds it (a systemd credential, say).
        wait_for_unlock: start although the key file is sealed and no passphrase opens it, and wait for one.
        key_deadline: seconds that a device has to make one signature.
        key_open_deadline: seconds that a device has to be opened, and to derive.
        front_uids: user IDs that may connect besides our own.
        front_account: the front's user, where it has one of its own.
        lockdown: what this process gives up.
        continuity: the guards against the past.
        log_level: DEBUG, INFO, WARNING or ERROR.
        restarts: how often whoever starts it had to start it anew because it had ended.
        hung: how often because it did not answer.
    """

    state_dir: str
    max_batch: int = 256
    max_pending: int = 2048
    judge_threads: int = 2
    passphrase_env: str = "WITNESS_PASSPHRASE"  # noqa: S105 - the variable's name, not its value
    passphrase_file: str | None = None
    wait_for_unlock: bool = False
    key_deadline: float = 2.0
    key_open_deadline: float = 20.0
    front_uids: tuple[int, ...] = ()
    front_account: Account | None = None
    lockdown: LockdownSettings = field(default_factory=LockdownSettings)
    continuity: ContinuitySettings = field(default_factory=ContinuitySettings)
    log_level: str = "INFO"
    restarts: int = 0
    hung: int = 0

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> CoreSettings:
        """What `to_json` wrote.

        Raises:
            BadSettings: it is something else.
        """
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise BadSettings("not the core's settings: not a JSON object")
            fields["front_uids"] = tuple(fields.get("front_uids", ()))
            if fields.get("front_account") is not None:
                fields["front_account"] = Account(**fields["front_account"])
            if "lockdown" in fields:
                fields["lockdown"] = LockdownSettings.from_fields(fields["lockdown"])
            if "continuity" in fields:
                continuity = dict(fields["continuity"])
                continuity["operators"] = tuple(continuity.get("operators", ()))
                fields["continuity"] = ContinuitySettings(**continuity)
            return cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadSettings(f"not the core's settings: {error}") from error
