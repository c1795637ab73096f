"""The rollback counter that a registered device has, for the guard (`witness.core.continuity.counter`)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from witness.core.keystore.base import DeviceLost, KeyInvalid, KeyRefused, KeystoreError
from witness.core.keystore.devices import Deadlines, KeptDevice
from witness.core.keystore.hostclient import HostClient
from witness.core.keystore.keyring import DeviceEntry


class DeviceCounter:
    """A counter in a device, reached through a worker process of its own. For one thread at a time.

    The device is opened by the first call, held to be the registered one, and stays open until `close`.
    """

    def __init__(
        self, entry: DeviceEntry, host: HostClient, kept: KeptDevice, deadlines: Deadlines
    ) -> None:  # fmt: skip
        """Takes the device, whose `counter` says where the counter is, and who keeps it for its keys."""
        self.name = entry.name
        self._entry = entry
        self._host = host
        self._kept = kept
        self._deadlines = deadlines
        self._open = False

    def read(self) -> int:
        """Its value.

        Raises:
            DeviceLost: another device answers, or one that was wiped.
            KeystoreError: it cannot be had now.
        """
        return self._ask("counter-read")

    def increment(self) -> int:
        """Moves it by one; its new value. Raises what `read` raises."""
        return self._ask("counter-increment")

    def close(self) -> None:
        """Lets the device go, until the next call."""
        if self._open:
            self._open = False
            with suppress(KeystoreError):
                self._call("close", self._deadlines.sign)

    def _ask(self, op: str) -> int:
        try:
            if not self._open:
                self._bring_up()
            answer = self._call(op, self._deadlines.counter, locator=dict(self._entry.counter))
        except KeystoreError:
            self.close()
            raise
        return int(answer["value"])

    def _bring_up(self) -> None:
        entry, trouble = self._entry, self._kept.error
        # Its keeper waits for it already. What its policy refuses may be just because it was wiped: look.
        if trouble is not None and not isinstance(trouble, (KeyRefused, KeyInvalid)):
            raise type(trouble)(trouble.reason, trouble.hint)
        self._open = True
        answer = self._call(
            "open",
            self._deadlines.open,
            backend=entry.backend,
            settings=dict(entry.settings),
            secret=self._kept.secret,
        )
        if answer["unique_id"] != entry.unique_id:
            raise DeviceLost(
                f"another device answers as {entry.name}, or it was wiped: it calls itself"
                f" {answer['unique_id'] or 'nothing'}"
            )

    def _call(self, op: str, deadline: float, **fields: Any) -> dict[str, Any]:
        # A name of its own: another worker than the one that has the keys.
        return self._host.call(f"{self.name} counter", op, deadline, **fields)
