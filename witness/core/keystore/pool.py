"""One key in several devices: they sign side by side, and each stands in for another that is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from witness.core.keystore.base import KeyAbsent, KeyBusy, KeystoreError, Pace
from witness.core.keystore.devices import KeptDevice
from witness.tlog.note import VerifierKey

MAX_WAITING: Final = 64
"""Callers that wait for a free device, at most, for each device that there is."""
_PATIENCE: Final = 2.0
"""Seconds that a caller waits for a free device."""


class PooledSigner:
    """Signs with a key that devices hold. May be called from as many threads as there are lanes, and more."""

    def __init__(self, vkey: VerifierKey, devices: Sequence[KeptDevice], guard: threading.Condition) -> None:
        self.vkey = vkey
        self._devices = tuple(devices)
        self._guard = guard
        self._waiting = 0

    @property
    def devices(self) -> tuple[KeptDevice, ...]:
        """The devices that hold the key."""
        return self._devices

    @property
    def most_lanes(self) -> int:
        """Devices that may ever sign side by side."""
        return len(self._devices)

    @property
    def pace(self) -> Pace:
        """How fast the devices sign that can sign now."""
        with self._guard:
            times = [device.seconds.get(self.vkey, 0.0) for device in self._devices if device.error is None]
        return Pace(max(1, len(times)), sum(times) / len(times) if times else 0.0)

    @property
    def rate(self) -> float:
        """Signatures a second that the devices which can sign now have been measured at, together."""
        with self._guard:
            times = [device.seconds.get(self.vkey, 0.0) for device in self._devices if device.error is None]
        return sum(1 / seconds for seconds in times if seconds)

    @property
    def error(self) -> KeystoreError | None:
        """Why no device can sign, or None."""
        with self._guard:
            return self._why_not()

    def sign(self, message: bytes) -> bytes:
        """The signature of the message, verified, by whichever device is free.

        Raises:
            KeyBusy: more wait than can be answered in time.
            KeystoreError: no device can sign, and why.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            device = self._take(until)
            try:
                return device.sign(self.vkey, message)
            except KeystoreError as error:
                with self._guard:
                    device.fail(error)
                # The same key in another device is the same key: it takes over, if there is one.
            finally:
                with self._guard:
                    device.busy = False
                    self._guard.notify_all()

    def _take(self, until: float) -> KeptDevice:
        with self._guard:
            if self._waiting >= MAX_WAITING * len(self._devices):
                raise KeyBusy("too many wait for the devices")
            self._waiting += 1
            try:
                while True:
                    error = self._why_not()
                    if error is not None:
                        raise type(error)(error.reason, error.hint)
                    free = [d for d in self._devices if d.error is None and not d.busy]
                    if free:
                        # The fastest first; one not measured yet is as good as any.
                        chosen = min(free, key=lambda device: device.seconds.get(self.vkey, 0.0))
                        chosen.busy = True
                        return chosen
                    remaining = until - time.monotonic()
                    if remaining <= 0:
                        raise KeyBusy("no device was free in time")
                    self._guard.wait(remaining)
            finally:
                self._waiting -= 1

    def _why_not(self) -> KeystoreError | None:
        errors = [device.error for device in self._devices]
        if any(error is None for error in errors):
            return None
        return errors[0] or KeyAbsent("no device is registered")
