"""All keys of one witness, from whatever backends: what the core signs with.

Two steps, because the core locks itself down in between:

- `prepare` reads the ring and the secrets, wherever they are kept, opens the key file, and starts the device
  host. It needs to open files and start a program, and starts no thread.
- `open` opens the devices, through the host. It needs the socket to the host, and starts threads.

A key file that cannot be opened keeps a witness from starting, unless it was told to wait for its passphrase.
A device that is away does not: its keys answer why they cannot sign, until it is there.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from witness.core.keystore import keyring
from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.backend import BACKENDS
from witness.core.keystore.base import KeyAbsent, KeyLocked, KeystoreError, Signer
from witness.core.keystore.devices import Deadlines, KeptDevice
from witness.core.keystore.disposal import absent_files, destroy_files, destroy_in_devices
from witness.core.keystore.drivers import ROOT
from witness.core.keystore.held import HeldSigner
from witness.core.keystore.hostclient import HostClient
from witness.core.keystore.key_files import KeyFiles
from witness.core.keystore.keyring import ATTESTATION, SOFT, WITNESS, DeviceEntry, KeyEntry, Ring
from witness.core.keystore.pool import PooledSigner
from witness.core.keystore.rollback import DeviceCounter
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.core.lockdown.steps import DONE, UNAVAILABLE, Account
from witness.core.wire import KeyInfo, LockdownStep
from witness.tlog.note import VerifierKey

_OWN_SECRET: Final = frozenset({"pkcs11"})
"""Backends for which the witness's own passphrase serves, where a device names no secret of its own. A token
always has a PIN; a TPM's hierarchy seldom has an authorisation value, nor is an agent often locked."""
MAX_SECRET: Final = 4096
"""Bytes of a secret in a file."""


class Keychain:
    """The keys of one witness identity. `signers`, `states` and `warnings` are a `Keystore`'s."""

    def __init__(
        self,
        layout: StateLayout,
        ring: Ring,
        *,
        passphrase: str | None,
        secrets: Mapping[str, str | None],
        host: HostClient | None,
        wait: bool = False,
        deadlines: Deadlines | None = None,
        retired: Collection[str] = (),
    ) -> None:
        self.ring = ring
        self._absent: frozenset[Path] = frozenset()
        self._keys = tuple(key for key in ring.witness_keys if str(key.vkey) not in retired)
        if not self._keys:
            raise KeyAbsent(
                f"every key of {ring.name} that is registered here was retired",
                "restore the keys folder of the present generation from its backup",
            )
        self._on_lost: Callable[[], object] | None = None
        self._host = host
        self._deadlines = deadlines or Deadlines()
        self._layout = layout
        self._secrets = dict(secrets)
        self._guard = threading.Condition()
        self._held = {key.vkey: HeldSigner(key.vkey) for key in self._keys if key.how == "derive"}
        self._devices: dict[str, KeptDevice] = {}
        if host is not None:
            for device in ring.devices:
                here = tuple(each for each in ring.keys_on(device.name) if self._is_kept(each[0]))
                if ring.is_needed(device) and (here or device.counts):
                    self._devices[device.name] = KeptDevice(
                        device,
                        here,
                        host,
                        secret=secrets.get(device.name),
                        guard=self._guard,
                        deadlines=self._deadlines,
                        held=self._held,
                    )
        self._files = KeyFiles(layout, ring, self._keys, wait=wait)
        self._files.open(passphrase)
        self._by_vkey = {key.vkey: self._signer(key) for key in self._keys}

    @classmethod
    def prepare(
        cls,
        layout: StateLayout,
        *,
        passphrase: str | None,
        wait: bool = False,
        deadlines: Deadlines | None = None,
        account: Account | None = None,
        retired: Collection[str] = (),
        ring: Ring | None = None,
        statements: bool = False,
        secrets: Mapping[str, str | None] | None = None,
    ) -> Keychain:
        """Reads what is registered and every secret, opens the key file, and starts the device host.

        Args:
            layout: the state folder.
            passphrase: the witness's own passphrase, if there is one.
            wait: start without a passphrase that opens the key file, and wait for `unlock`.
            deadlines: seconds that devices have.
            account: whose user drives the devices, where we are root (`keystore.drivers`); None for ours.
            retired: vkeys that are not to be opened, though they are registered.
            ring: what is registered, where it is not (or not yet) what the state folder says.
            statements: whether devices may sign succession statements; never in a core.
            secrets: of devices, by name, where they are at hand already.

        Raises:
            KeystoreError: nothing is registered, a secret cannot be read, or the key file does not open.
            OSError: the host cannot be started.
        """
        ring = ring or keyring.read(layout)
        given = secrets or {}
        found = {
            device.name: given[device.name] if device.name in given else secret_of(device, passphrase)
            for device in ring.devices
        }
        for device in ring.devices:  # read by all of them first: two may share a variable
            os.environ.pop(device.secret.get("env", ""), None)
        away = any(ring.is_needed(device) for device in ring.devices)
        host = HostClient.spawn(_known(ring), account, statements=statements) if away else None
        try:
            return cls(
                layout,
                ring,
                passphrase=passphrase,
                secrets=found,
                host=host,
                wait=wait,
                deadlines=deadlines,
                retired=retired,
            )
        except BaseException:
            if host is not None:
                host.close()
            raise

    def open(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        lost: asyncio.Event | None = None,
        *,
        patience: float = 10.0,
    ) -> None:
        """Tries every device once, for at most `patience` seconds in all; they are tried on, in any case.

        `lost` is set, on its `loop`, should the device host end by itself while its devices are needed.
        """
        if loop is not None and lost is not None:
            self._on_lost = functools.partial(loop.call_soon_threadsafe, lost.set)
        if self._host is not None:
            self._host.start(self._host_lost)
        for device in self._devices.values():
            device.start()
        until = time.monotonic() + patience
        for device in self._devices.values():
            device.wait_tried(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Lets all devices go and ends the host."""
        self._on_lost = None
        for device in self._devices.values():
            device.stop()
        if self._host is not None:
            self._host.close()
        for device in self._devices.values():
            device.join()

    def drivers(self) -> tuple[LockdownStep, ...]:
        """Which users drive the devices, where that was chosen and they have been opened."""
        known = {name: device.driver for name, device in self._devices.items() if device.driver}
        if not known:
            return ()
        by_root = any(driver.startswith(str(ROOT)) for driver in known.values())
        told = ", ".join(f"{name} by {driver}" for name, driver in known.items())
        return (LockdownStep("devices", UNAVAILABLE if by_root else DONE, told),)

    @property
    def host_pid(self) -> int:
        """The device host's process ID; 0 where there is none."""
        return self._host.pid if self._host is not None else 0

    # --- a Keystore's ---------------------------------------------------------------------------------------

    def signers(self) -> tuple[Signer, ...]:
        """The keys that sign, in the order in which their cosignatures are returned."""
        return tuple(self._by_vkey[key.vkey] for key in self._keys)

    def states(self) -> tuple[KeyInfo, ...]:
        """Every key that signs, with its state."""
        return tuple(self._state(key) for key in self._keys)

    def forget(self, vkeys: Collection[VerifierKey]) -> None:
        """Shows keys no more that sign no more."""
        self._keys = tuple(key for key in self._keys if key.vkey not in vkeys)

    def delete_files(self, retired: Collection[str]) -> None:
        """Deletes key files of keys retired earlier, while this process may: before it is locked down."""
        destroy_files(self._layout, self.ring, retired)
        self._absent = absent_files(self._layout, self.ring)

    def destroy(self, vkeys: Collection[VerifierKey]) -> tuple[str, ...]:
        """Destroys the secrets of retired keys, where it can be done; what was left, a line each. Blocks."""
        gone = {str(vkey) for vkey in vkeys}
        left = destroy_files(self._layout, self.ring, gone, absent=self._absent)
        return (*left, *destroy_in_devices(self._host, self.ring, self._secrets, gone))

    def warnings(self) -> tuple[str, ...]:
        """What the operator should know about how the keys are kept."""
        lines = list(self._files.warnings())
        for device in self._devices.values():
            if device.note:
                lines.append(f"device {device.entry.name}: {device.note}")
            if BACKENDS[device.entry.backend].counts and not device.entry.counter:
                lines.append(
                    f"device {device.entry.name} has no rollback counter, so that a state folder which is set"
                    " back as a whole may go unseen: witness keys counter makes one"
                )
            if device.attestation_error:
                lines.append(f"device {device.entry.name} attests nothing: {device.attestation_error}")
            keys = self.ring.keys_on(device.entry.name)
            keys = tuple(each for each in keys if self._is_kept(each[0]))
            if device.error is not None and keys and all(len(key.places) > 1 for key, _ in keys):
                error = device.error
                lines.append(f"device {device.entry.name} is {error.state}, others stand in: {error.reason}")
        if any(key.dev for key in self._keys):
            lines.append("this identity is for development (DEV:)")
        return tuple(lines)

    def rollback_counter(self) -> DeviceCounter | None:
        """The counter that keeps this state from being set back, if a device has one."""
        for device in self._devices.values():
            if device.entry.counts and self._host is not None:
                return DeviceCounter(device.entry, self._host, device, self._deadlines)
        return None

    def attestation_key(self) -> AttestationKey | None:
        """The key that vouches for this witness's record: the first of its devices', else the key file's.

        None where there is none, or none yet.
        """
        for device in self._devices.values():
            if device.attestation is not None:
                return device.attestation
        soft = self._files.attestation
        registered = {key.vkey for key in self.ring.keys if key.purpose == ATTESTATION}
        return soft if soft is not None and soft.vkey in registered else None

    # --- unlocking ------------------------------------------------------------------------------------------

    @property
    def lockable(self) -> bool:
        """Whether there is anything that a secret could unlock later."""
        return bool(self._devices) or self._files.lockable

    def unlock(self, device: str, secret: str, attempt: str) -> None:
        """Tries a secret on a device or on the key file. What came of it shows in `states`.

        Args:
            device: the device's name, or `softkey`.
            secret: its PIN, passphrase or authorisation value.
            attempt: a text that the state's detail carries afterwards, so that the asker knows its answer.
        """
        kept = self._devices.get(device)
        if kept is not None:
            kept.unlock(secret, attempt)
            return
        if device == SOFT and self._files.lockable:
            self._files.unlock(secret, attempt)

    # --- inside ---------------------------------------------------------------------------------------------

    def _is_kept(self, key: KeyEntry) -> bool:
        return key.purpose != WITNESS or key in self._keys

    def _signer(self, key: KeyEntry) -> Signer:
        if key.how == "derive":
            return self._held[key.vkey]
        if key.how == "sign":
            devices = [self._devices[place.device] for place in key.places]
            return PooledSigner(key.vkey, devices, self._guard)
        return self._files.signer(key.vkey)

    def _state(self, key: KeyEntry) -> KeyInfo:
        vkey = key.vkey
        backend = self.ring.device(key.places[0].device).backend
        signer = self._by_vkey[vkey]
        detail, rate, attempt = "", 0.0, ""
        error: KeystoreError | None = None
        match signer:
            case PooledSigner():
                error, rate = signer.error, signer.rate
                there = sum(device.error is None for device in signer.devices)
                detail = f"{there} of {len(signer.devices)} devices"
                attempt = next((d.attempt for d in signer.devices if d.attempt), "")
            case HeldSigner():
                error = signer.error
                kept = self._devices.get(key.places[0].device)
                attempt = kept.attempt if kept is not None else self._files.attempt
                detail = f"derived by {key.scheme}" if key.how == "derive" else "sealed"
            case _:
                detail = "sealed" if self._files.is_sealed(key) else "not sealed"
        if error is not None:
            detail = error.reason
        if attempt:
            detail += f" [unlock {attempt}]"
        state = "ready" if error is None else error.state
        return KeyInfo(str(vkey), algorithm_of(vkey), backend, state, detail, round(rate, 1))

    def _host_lost(self) -> None:
        if self._on_lost is not None and any(device.signs for device in self._devices.values()):
            self._on_lost()


def _known(ring: Ring) -> list[tuple[str, Mapping[str, str]]]:
    return [(each.backend, each.settings) for each in ring.devices if each.backend != SOFT]


def secret_of(device: DeviceEntry, passphrase: str | None) -> str | None:
    """A device's secret from where it is kept; None if there is none.

    Raises:
        KeyLocked: the place that is named cannot be read.
    """
    if not device.secret:
        return passphrase if device.backend in _OWN_SECRET else None
    (kind, place), *_ = device.secret.items()
    if kind == "env":
        return os.environ.get(place)
    file = Path(place)
    if kind == "credential":
        file = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / place
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_SECRET + 1).decode("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise KeyLocked(f"cannot read the secret of {device.name} from {file}: {reason}") from error


def credential(name: str) -> str | None:
    """A systemd credential of this service (systemd.exec, LoadCredential=), or None."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    with suppress(FileNotFoundError):
        return (Path(folder) / name).read_text(encoding="utf-8").removesuffix("\n")
    return None
