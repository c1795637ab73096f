"""Whose user drives a device, where root starts the witness.

A device's library is native code, and need not be root. So its worker becomes the core's user, with the group
that the device's node belongs to (`tss`, say) and those of that user. A device that cannot be reached so, and
answers its node's owner or root only, is driven by these; `witness status` tells. Nothing is guessed from a
file's mode: the device is asked, and what counts is whether it answers.

Where not root starts the witness, everybody is the same user and nothing is chosen here.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from witness.core.lockdown import kernel, users
from witness.core.lockdown.steps import Account

HOST_CAPABILITIES: Final = (kernel.CAP_DAC_OVERRIDE, kernel.CAP_KILL, kernel.CAP_SETGID, kernel.CAP_SETUID)
"""What the host keeps of root's powers: to start, for another user, and to end what drives a device."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A user that drives a device.

    Attributes:
        account: whom the worker becomes; None where it stays root.
        groups: its further groups.
    """

    account: Account | None
    groups: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.account is None:
            return "root"
        named = ", ".join(_group(gid) for gid in self.groups if gid != self.account.gid)
        return self.account.name + (f" (and {named})" if named else "")

    def fields(self) -> dict[str, Any]:
        """For the way to the worker."""
        account = self.account
        who = None if account is None else [account.name, account.uid, account.gid]
        return {"account": who, "groups": list(self.groups)}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Driver:
        """What `fields` took apart."""
        who = fields["account"]
        return cls(None if who is None else Account(*who), tuple(fields["groups"]))


ROOT: Final = Driver(None)


def drivers(account: Account, backend: str, settings: Mapping[str, str]) -> Iterator[Driver]:
    """Who may drive a device, the least privileged first.

    Args:
        account: the core's user.
        backend: the kind of device.
        settings: how it is found.
    """
    groups = set(os.getgrouplist(account.name, account.gid))
    found = _node(backend, settings)
    if found is not None and found.st_gid != 0 and found.st_mode & stat.S_IWGRP:
        groups.add(found.st_gid)
    yield Driver(account, tuple(sorted(groups)))
    # An ssh-agent answers its own user, and root; nobody whom a mode or a group lets in besides.
    if found is not None and stat.S_ISSOCK(found.st_mode) and found.st_uid not in {0, account.uid}:
        yield Driver(users.account(str(found.st_uid)), (found.st_gid,))
    yield ROOT


def become(driver: Driver) -> None:
    """Makes this process the driver's, for good; root keeps one capability, to reach what is others'.

    Raises:
        OSError: not allowed here.
    """
    if driver.account is None:
        kernel.drop_capabilities(kernel.CAP_DAC_OVERRIDE)
    else:
        users.become(driver.account, driver.groups)


def _node(backend: str, settings: Mapping[str, str]) -> os.stat_result | None:
    """The device's node or socket, where it has one that is named."""
    match backend:
        case "tpm2":
            kind, _, place = settings.get("tcti", "device:/dev/tpmrm0").partition(":")
            path = place if kind == "device" else place.partition("path=")[2]
        case "ssh-agent" | "remote":
            path = settings.get("socket", "")
        case _:
            path = ""
    try:
        return Path(path).stat() if path else None
    except OSError:
        return None


def _group(gid: int) -> str:
    try:
        return f"group {grp.getgrgid(gid).gr_name}"
    except KeyError:
        return f"group {gid}"
