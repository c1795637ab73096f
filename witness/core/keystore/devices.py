"""Registered devices, kept: opened, held to what is registered, and opened again whenever they come back.

Each device has a thread here that waits for the device and for nothing else; the device itself is driven in
another process. Nobody who wants a signature ever waits for a device to come back: while it is away, its
error is the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from witness.core.keystore.attestation import AttestationKey, serial_of
from witness.core.keystore.authorise import is_signed, trial_message
from witness.core.keystore.base import (
    Algorithm,
    KeyAbsent,
    KeyInvalid,
    KeyLocked,
    KeyRefused,
    KeystoreError,
    WrongSecret,
)
from witness.core.keystore.derivation import WITNESS_PURPOSES, Identity, Purpose, scheme
from witness.core.keystore.held import HeldSigner
from witness.core.keystore.hostclient import HostClient
from witness.core.keystore.keyring import ATTESTATION, WITNESS, DeviceEntry, KeyEntry, Place
from witness.core.keystore.softkey import algorithm_of, soft_signer
from witness.core.keystore.talk import from_b64, to_b64
from witness.tlog.note import VerifierKey

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_SETTLED_PAUSE: Final = 30.0
"""Seconds between two looks at a device that refuses by its policy, or is another than the registered one."""
_ATTESTATION_PAUSES: Final = (0.5, 2.0)
"""Seconds between tries to derive the attestation key."""
_WEIGHT: Final = 0.2
"""Of the latest signature's time in the measured time."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a device has.

    Attributes:
        open: to be opened, and to derive: a real TPM takes its time, once.
        sign: to make one signature.
        counter: to read or move a counter: a TPM writes its memory slowly.
    """

    open: float = 20.0
    sign: float = 2.0
    counter: float = 10.0


class KeptDevice:
    """One registered device and its thread.

    `guard` is shared by all devices of a witness: whoever waits for any of them waits on it. Its holder may
    read and set `error`, `busy` and `seconds`.
    """

    def __init__(
        self,
        entry: DeviceEntry,
        keys: Sequence[tuple[KeyEntry, Place]],
        host: HostClient,
        *,
        secret: str | None,
        guard: threading.Condition,
        deadlines: Deadlines,
        held: Mapping[VerifierKey, HeldSigner],
    ) -> None:
        self.entry = entry
        self.note = ""
        self.error: KeystoreError | None = KeyAbsent("the device is being opened")
        self.busy = False
        self.seconds: dict[VerifierKey, float] = {}
        self.attempt = ""
        self.driver = ""
        """The user that drives it, where that was chosen; why nobody lesser does, after it."""
        self._asked = ""
        self._keys = [(key, place) for key, place in keys if key.purpose == WITNESS]
        self._attestation_keys = [(key, place) for key, place in keys if key.purpose == ATTESTATION]
        self.attestation: AttestationKey | None = None
        """The attestation key, once the device has derived it."""
        self.attestation_error = ""
        self._host = host
        self._secret = secret
        self._rejected: WrongSecret | None = None
        self._guard = guard
        self._deadlines = deadlines
        self._held = held
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"device {entry.name}", daemon=True)

    @property
    def secret(self) -> str | None:
        """The device's secret, if one is at hand that the device has not rejected."""
        with self._guard:
            return self._secret

    @property
    def signs(self) -> bool:
        """Whether it is asked for signatures; a device that derives is let go once it has."""
        return any(key.how == "sign" for key, _ in self._keys)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wait_tried(self, seconds: float) -> bool:
        """Waits until the device was tried once; whether that came to pass within so many seconds."""
        return self._settled.wait(seconds)

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._wake.set()

    def join(self) -> None:
        """Waits for the thread's end."""
        if self._thread.is_alive():
            self._thread.join()

    def unlock(self, secret: str, attempt: str) -> None:
        """Tries a secret; `attempt` names the try in the device's state."""
        with self._guard:
            self._secret, self._rejected, self._asked = secret, None, attempt
        self._wake.set()

    def fail(self, error: KeystoreError) -> None:
        """Takes the device out of use (with the guard held); its thread brings it back when it can."""
        if self.error is None:
            self.error = error
            self._wake.set()

    def sign(self, vkey: VerifierKey, message: bytes) -> bytes:
        """A signature by the registered key, verified; measures what it took.

        Raises:
            KeystoreError: the device does not sign, or not with the key that is registered.
        """
        place = next(place for key, place in self._keys if key.vkey == vkey)
        began = time.perf_counter()
        answer = self._call(
            "sign",
            self._deadlines.sign,
            vkey=str(vkey),
            algorithm=algorithm_of(vkey),
            message=to_b64(message),
            locator=dict(place.locator),
        )
        took = time.perf_counter() - began
        signature = from_b64(answer["signature"])
        # No other key is ever used instead, and a signature that a fault made wrong is not let out.
        if not is_signed(vkey, message, signature):
            raise KeyInvalid(f"the device {self.entry.name} signs with a key that is not the registered one")
        with self._guard:
            known = self.seconds.get(vkey)
            self.seconds[vkey] = took if known is None else known + _WEIGHT * (took - known)
        return signature

    # --- on the device's own thread -------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            self._wake.clear()
            with self._guard:
                secret, asked = self._secret, self._asked
            try:
                self._bring_up(secret)
            except KeystoreError as error:
                self._note_failure(error, secret, asked)
                self._let_go()
                if self._stopping.is_set():
                    return
                lasting = isinstance(self.error, KeyRefused | KeyInvalid)
                self._wake.wait(_SETTLED_PAUSE if lasting else pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            with self._guard:
                self.error, self.attempt = None, asked
                self._guard.notify_all()
            self._settled.set()
            self._derive_attestation()
            if not self.signs:
                self._let_go()
                return
            self._wait_for_failure()
            self._let_go()

    def _wait_for_failure(self) -> None:
        while True:
            with self._guard:
                if self.error is not None or self._stopping.is_set():
                    return
            self._wake.wait()
            self._wake.clear()

    def _bring_up(self, secret: str | None) -> None:
        entry = self.entry
        answer = self._call(
            "open", self._deadlines.open, backend=entry.backend, settings=dict(entry.settings), secret=secret
        )
        self.note = str(answer["note"])
        self.driver = "; ".join([str(answer["driver"]), *map(str, answer["refusals"])])
        if entry.unique_id and answer["unique_id"] != entry.unique_id:
            raise KeyInvalid(
                f"another device answers as {entry.name}: it calls itself {answer['unique_id'] or 'nothing'}",
                "witness keys register makes a device known",
            )
        for key, place in self._keys:
            if key.how == "derive":
                self._held[key.vkey].give(self._derived(key, place))
            else:
                self.sign(key.vkey, trial_message(key.vkey, max(1, int(time.time()))))

    def _derive_attestation(self) -> None:
        """The attestation key, after the witness's keys: a fault here is told and stops nothing."""
        if not self._attestation_keys:
            return
        for pause in (*_ATTESTATION_PAUSES, 0.0):
            try:
                self.attestation = self._derived_attestation(*self._attestation_keys[0])
            except KeystoreError as error:
                self.attestation_error = error.reason
                # Else once more: a simulated TPM is everybody's, and the counter is opened at this time, too.
                if isinstance(error, KeyRefused | KeyInvalid) or self._stopping.wait(pause):
                    return
            else:
                self.attestation_error = ""
                return

    def _secret_for(self, purpose: Purpose, key: KeyEntry, place: Place) -> tuple[Identity, bytes]:
        identity = Identity(self.entry.unique_id, key.generation, key.dev, place.locator)
        answer = self._call(
            "derive",
            self._deadlines.open,
            diversifier=to_b64(scheme(key.scheme).diversifier(purpose, identity)),
            locator=dict(place.locator),
        )
        return identity, from_b64(answer["secret"])

    def _derived_attestation(self, key: KeyEntry, place: Place) -> AttestationKey:
        identity, secret = self._secret_for(Purpose.ATTESTATION, key, place)
        seed = scheme(key.scheme).seed(Purpose.ATTESTATION, identity, secret)
        found = AttestationKey(seed, serial_of(identity.unique_id, key.scheme), dev=key.dev)
        if found.vkey.public_key != key.vkey.public_key:
            raise KeyInvalid(f"the device {self.entry.name} derives another attestation key")
        return found

    def _derived(self, key: KeyEntry, place: Place) -> Any:
        algorithm = Algorithm(algorithm_of(key.vkey))
        purpose = WITNESS_PURPOSES[algorithm]
        identity, secret = self._secret_for(purpose, key, place)
        signer = soft_signer(algorithm, key.vkey.name, scheme(key.scheme).seed(purpose, identity, secret))
        if signer.vkey != key.vkey:
            raise KeyInvalid(
                f"the device {self.entry.name} derives another key than the registered"
                f" {key.vkey.name}+{key.vkey.key_id.hex()}"
            )
        return signer

    def _note_failure(self, error: KeystoreError, secret: str | None, asked: str) -> None:
        with self._guard:
            if isinstance(error, WrongSecret):
                self._rejected = error
                if self._secret == secret:  # it is not tried again: some devices count
                    self._secret = None
            elif isinstance(error, KeyLocked) and self._rejected is not None:
                error = self._rejected
            self.error, self.attempt = error, asked
            for key, _ in self._keys:
                if key.how == "derive":
                    self._held[key.vkey].fail(error)
            self._guard.notify_all()
        self._settled.set()

    def _let_go(self) -> None:
        if not self._stopping.is_set():
            try:
                self._call("close", self._deadlines.sign)
            except KeystoreError:
                return  # the host itself is gone, which the core learns from the host client

    def _call(self, op: str, deadline: float, **fields: Any) -> dict[str, Any]:
        return self._host.call(self.entry.name, op, deadline, **fields)
