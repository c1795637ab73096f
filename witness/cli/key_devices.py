"""What `init` and `witness keys` do with key devices, before and beside a running core."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from witness.cli.errors import WrongUsage, say_warning
from witness.core.keystore.attestation import AttestationKey, serial_of
from witness.core.keystore.authorise import is_signed, trial_message
from witness.core.keystore.backend import BACKENDS, Backend, backend
from witness.core.keystore.base import (
    COSIGNATURE_TYPES,
    Algorithm,
    KeyInvalid,
    KeystoreError,
    Signer,
)
from witness.core.keystore.derivation import (
    DEV,
    OUR_SCHEME,
    WITNESS_PURPOSES,
    Identity,
    Purpose,
    WitnessV1,
    scheme,
)
from witness.core.keystore.hostclient import HostClient
from witness.core.keystore.keyring import ATTESTATION, WITNESS, DeviceEntry, KeyEntry, Place
from witness.core.keystore.softkey import algorithm_of, soft_signer
from witness.core.keystore.talk import from_b64, to_b64
from witness.tlog.note import VerifierKey, make_vkey

OPEN_DEADLINE: Final = 60.0
"""Seconds that a device has to open, derive, or make a key: a human is waiting, and a TPM is slow."""
SIGN_DEADLINE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator wants of a new witness's device.

    Attributes:
        backend: tpm2, pkcs11, ssh-agent or remote.
        settings: how the backend finds the device, by name.
        options: what it is to know about the key, by name.
        secret: where the device's secret will come from; see `DeviceEntry`.
        algorithms: the keys to have in it.
        name: the witness's name, or None for one that is derived.
        dev: an identity for development.
        scheme: how keys are derived.
        counter: whether a state is made with them, which then counts with the device, if that has counters.
    """

    backend: str
    settings: Mapping[str, str]
    options: Mapping[str, str]
    secret: Mapping[str, str]
    algorithms: tuple[Algorithm, ...]
    name: str | None
    dev: bool = False
    scheme: str = OUR_SCHEME
    counter: bool = False


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """A device and the keys in it, ready to be registered; `attestation` is its attestation key, opened."""

    name: str
    device: DeviceEntry
    keys: tuple[KeyEntry, ...]
    note: str = ""
    attestation: AttestationKey | None = field(default=None, repr=False)
    counter: int | None = None
    """What the device's rollback counter shows, where one was made: the new state names it."""


@dataclass(slots=True)
class OpenDevice:
    """A device opened in a process of its own."""

    host: HostClient
    entry: DeviceEntry
    unique_id: str = ""
    note: str = ""
    _name: str = field(default="device", repr=False)

    def call(self, op: str, deadline: float = OPEN_DEADLINE, **fields: Any) -> dict[str, Any]:
        """Asks it.

        Raises:
            KeystoreError: what it answered, or that it did not.
        """
        return self.host.call(self._name, op, deadline, **fields)

    def derived(
        self, purpose: Purpose, algorithm: Algorithm, name: str, way: str, identity: Identity
    ) -> Signer:
        """The key it derives for a purpose.

        Raises:
            KeystoreError: it does not.
        """
        rule = scheme(way)
        secret = self._derive(rule.diversifier(purpose, identity), identity.parameters)
        return soft_signer(algorithm, name, rule.seed(purpose, identity, secret))

    def attestation_key(self, way: str, identity: Identity) -> AttestationKey:
        """The attestation key it derives; `identity` has the parameters of an attestation key's locator.

        Raises:
            KeystoreError: it does not.
        """
        rule = scheme(way)
        secret = self._derive(rule.diversifier(Purpose.ATTESTATION, identity), identity.parameters)
        seed = rule.seed(Purpose.ATTESTATION, identity, secret)
        return AttestationKey(seed, serial_of(identity.unique_id, way), dev=identity.dev)

    def derived_name(self, identity: Identity) -> str:
        """A readable name that belongs to the identity."""
        rule = WitnessV1()
        secret = self._derive(rule.diversifier(Purpose.NAME, identity), identity.parameters)
        return rule.name(identity, secret)

    def _derive(self, diversifier: bytes, locator: Mapping[str, str]) -> bytes:
        answer = self.call("derive", diversifier=to_b64(diversifier), locator=dict(locator))
        return from_b64(answer["secret"])

    def sign(self, vkey: VerifierKey, locator: Mapping[str, str], message: bytes) -> bytes:
        """A signature by a key in it.

        Raises:
            KeystoreError: it does not sign, or not with this key.
        """
        answer = self.call(
            "sign", SIGN_DEADLINE, vkey=str(vkey), algorithm=algorithm_of(vkey), message=to_b64(message),
            locator=dict(locator),
        )  # fmt: skip
        signature = from_b64(answer["signature"])
        if not is_signed(vkey, message, signature):
            raise KeyInvalid(f"it signs with another key than {vkey.name}+{vkey.key_id.hex()}")
        return signature

    def sign_trial(self, vkey: VerifierKey, locator: Mapping[str, str]) -> None:
        """Signs a harmless message and verifies the signature.

        Raises:
            KeystoreError: it does not sign, or not with this key.
        """
        self.sign(vkey, locator, trial_message(vkey, int(time.time())))


@contextmanager
def opened(entry: DeviceEntry, secret: str | None) -> Iterator[OpenDevice]:
    """Opens a device, in a process of its own.

    Raises:
        KeystoreError: it cannot be opened.
    """
    host = HostClient.spawn()
    host.start()
    try:
        device = OpenDevice(host, entry)
        answer = device.call("open", backend=entry.backend, settings=dict(entry.settings), secret=secret)
        device.unique_id, device.note = str(answer["unique_id"]), str(answer["note"])
        yield device
    finally:
        host.close()


def parse_options(kind: str, given: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings and the options in `KEY=VALUE` texts.

    Raises:
        WrongUsage: one is not of that form, or the backend knows none of that name.
    """
    known = _backend(kind)
    settings: dict[str, str] = {}
    options: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise WrongUsage(f"-o {text!r} is not of the form NAME=VALUE")
        if name in known.settings:
            settings[name] = value
        elif name in known.options or name == "applet":
            options[name] = value
        else:
            names = {**known.settings, **known.options}
            raise WrongUsage(f"the backend {kind} knows no {name!r}", f"it knows {', '.join(names)}")
    return settings, options


def parse_secret(text: str | None) -> dict[str, str]:
    """Where a device's secret comes from, out of `env:NAME`, `file:PATH` or `credential:NAME`.

    Raises:
        WrongUsage: it is none of these.
    """
    if text is None:
        return {}
    kind, colon, place = text.partition(":")
    if not (colon and place and kind in {"env", "file", "credential"}):
        raise WrongUsage(f"--secret {text!r} is not env:NAME, file:PATH or credential:NAME")
    return {kind: place}


def _backend(kind: str) -> Backend:
    if kind not in BACKENDS:
        raise WrongUsage(f"unknown key backend {kind!r}", f"known: softkey, {', '.join(BACKENDS)}")
    return backend(kind)


def provide(wishes: Wishes, secret: str | None) -> DeviceKeys:
    """Opens the device and has the keys made, or found, that a new witness wants there.

    Raises:
        KeystoreError: it cannot be opened, or the keys not be had; nothing is overwritten.
        WrongUsage: it cannot do what is asked.
    """
    kind = _backend(wishes.backend)
    settings, options = wishes.settings, wishes.options
    derives = kind.derives and ("derive" in options or not kind.signs)
    if derives and "attestation" in options:
        raise WrongUsage("a device that derives has an attestation key in any case", "leave attestation= out")
    if not derives:
        for algorithm in wishes.algorithms:
            if algorithm not in kind.signs:
                raise WrongUsage(
                    f"the backend {wishes.backend} has no {algorithm} keys",
                    f"--soft {algorithm} keeps that one in the key file; --algorithm leaves it out",
                )
        if wishes.name is None:
            raise WrongUsage("only a device that derives its keys derives a name", "give it with --name")
    entry = DeviceEntry(wishes.backend, wishes.backend, settings, secret=wishes.secret)
    with opened(entry, secret) as device:
        entry = DeviceEntry(entry.name, entry.backend, settings, device.unique_id, wishes.secret)
        if derives:
            return _derived(device, entry, options, wishes)
        return _signing(device, entry, options, wishes)


def _derived(
    device: OpenDevice, entry: DeviceEntry, options: Mapping[str, str], wishes: Wishes
) -> DeviceKeys:
    counter: int | None = None
    if wishes.counter and backend(entry.backend).counts:
        entry, counter = with_counter(device, entry, options)
    answer = device.call("prepare", options=dict(options))
    locator = dict(answer["locator"])
    if "applet" in options:
        locator["applet"] = options["applet"]
    generation = int(answer["generation"])
    identity = Identity(device.unique_id, generation, wishes.dev, locator)
    name = wishes.name or device.derived_name(identity)
    keys = []
    for algorithm in wishes.algorithms:
        signer = device.derived(WITNESS_PURPOSES[algorithm], algorithm, name, wishes.scheme, identity)
        keys.append(_derived_entry(signer.vkey, WITNESS, entry, locator, wishes, generation))
    bound = backend(entry.backend).binding
    life = {part: value for part, value in locator.items() if part not in bound}
    lifelong = Identity(device.unique_id, generation, wishes.dev, life)
    attestation = device.attestation_key(wishes.scheme, lifelong)
    keys.append(_derived_entry(attestation.vkey, ATTESTATION, entry, life, wishes, generation))
    return DeviceKeys(name, entry, tuple(keys), device.note, attestation, counter)


def with_counter(
    device: OpenDevice, entry: DeviceEntry, options: Mapping[str, str]
) -> tuple[DeviceEntry, int | None]:
    """The device with a rollback counter made in it, and the counter's value; None where none is wanted.

    Raises:
        KeystoreError: it cannot be made.
        WrongUsage: the options contradict each other.
    """
    choice = options.get("rollback", "on")
    if choice not in {"on", "off"}:
        raise WrongUsage(f"unknown choice rollback={choice}", "on or off")
    if choice == "off":
        return dataclasses.replace(entry, counter={"off": "yes"}), None
    answer = device.call("counter-make", options=dict(options))
    return dataclasses.replace(entry, counter=dict(answer["locator"])), int(answer["value"])


def _derived_entry(  # noqa: PLR0917 - the entry's own fields
    vkey: VerifierKey,
    purpose: str,
    entry: DeviceEntry,
    locator: Mapping[str, str],
    wishes: Wishes,
    generation: int,
) -> KeyEntry:
    place = Place(entry.name, locator)
    return KeyEntry(vkey, purpose, "derive", (place,), wishes.scheme, generation, wishes.dev)


def _signing(
    device: OpenDevice, entry: DeviceEntry, options: Mapping[str, str], wishes: Wishes
) -> DeviceKeys:
    name = wishes.name
    assert name is not None
    keys = []
    for algorithm in wishes.algorithms:
        answer = device.call("provide", algorithm=algorithm.value, name=name, options=dict(options))
        vkey = make_vkey(name, COSIGNATURE_TYPES[algorithm], from_b64(answer["public_key"]))
        device.sign_trial(vkey, answer["locator"])
        keys.append(KeyEntry(vkey, WITNESS, "sign", (Place(entry.name, answer["locator"]),), dev=wishes.dev))
    if "attestation" not in options:
        return DeviceKeys(name, entry, tuple(keys), device.note)
    # A secret key of its own beside the keys that sign: it outlives them.
    label = options.get("label", name)
    wanted = {**options, "label": f"{label}/attestation", "derive": options["attestation"]}
    locator = dict(device.call("prepare", options=wanted)["locator"])
    identity = Identity(device.unique_id, 0, wishes.dev, locator)
    attestation = device.attestation_key(OUR_SCHEME, identity)
    place = Place(entry.name, locator)
    keys.append(KeyEntry(attestation.vkey, ATTESTATION, "derive", (place,), OUR_SCHEME, dev=wishes.dev))
    return DeviceKeys(name, entry, tuple(keys), device.note, attestation)


def marked(name: str, *, dev: bool) -> str:
    """A witness's name, marked where its identity is for development."""
    return DEV + name if dev and not name.startswith(DEV) else name


def warn_of(keys: DeviceKeys) -> None:
    """Tells what an operator should know about the device."""
    if keys.note:
        say_warning(f"device {keys.device.name}: {keys.note}")


def told(error: KeystoreError) -> str:
    """An error as one phrase, its kind before it."""
    return f"{error.state}: {error.reason}"
