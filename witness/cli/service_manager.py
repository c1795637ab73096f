"""Telling systemd how we are: sd_notify(3), where it has given us a socket for it.

The unit has `Type=notify` and `WatchdogSec=`: systemd then knows when the witness serves, and ends a
supervisor whose event loop stands still. Children are the supervisor's own to watch (`witness.cli.watchdog`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd tells the one process that it started; no child of ours is to take it for its own."""

PATIENCE: Final = 1.0
"""Seconds that a line may wait for room in its queue: `READY=1` must not be lost to a crowd of others."""


class ServiceManager:
    """Who started us, if it wants to hear of us. Sending never fails, and waits no longer than `PATIENCE`."""

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract socket
            self._address = "\0" + self._address[1:]
        usec, whom = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = not whom or whom == str(os.getpid() if pid is None else pid)
        self.interval = int(usec) / 2_000_000 if ours and usec.isdigit() else 0.0
        """Seconds between two signs of life, half of what systemd allows; 0 where it wants none."""

    def say(self, *lines: str) -> bool:
        """Sends lines such as `READY=1`; whether they were taken."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(PATIENCE)
                sending.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # it has gone, or reads nothing: nothing of ours depends on it
            return False
        return True

    async def keep_telling(self) -> None:
        """Gives signs of life while this loop runs, until cancelled; returns where none is wanted."""
        while self.interval:
            self.say("WATCHDOG=1")
            await asyncio.sleep(self.interval)
