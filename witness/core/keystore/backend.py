"""What a device backend offers to the process that drives it, and which backends there are.

A backend's own library is native code that may block for ever, so a device is driven in a process of its own
(`witness.core.keystore.worker`) that can be killed; nothing here is called from the core itself.

A *locator* is what a backend finds a key by on a device: a few short texts, kept in the ring of registered
keys. It holds no secret, and only the backend that made it understands it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from witness.core.keystore.base import Algorithm, BackendMissing, KeyInvalid

Settings = Mapping[str, str]
Locator = dict[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A signing key on a device: its public key, 32 or 1312 bytes, and how it is found there."""

    algorithm: Algorithm
    public_key: bytes
    locator: Locator


class Device(Protocol):
    """An opened device. Every method raises `KeystoreError`s, and nothing else for a fault of the world."""

    unique_id: str
    """What the device calls itself, for life; empty where it has no such thing."""
    note: str
    """What an operator should know about it, or empty: that it is only a simulation, say."""

    def prepare(self, options: Settings) -> tuple[Locator, int]:
        """Makes ready what deriving an identity needs (a counter, a secret key), once, at `init`.

        Args:
            options: the operator's wishes, by name.

        Returns:
            The locator for the identity's keys, and the identity's generation.

        Raises:
            KeyRefused: it would take the place of an identity that the device has.
            KeyInvalid: the device does not derive.
        """
        ...

    def derive(self, diversifier: bytes, locator: Mapping[str, str]) -> bytes:
        """The 32 bytes that only this device makes of a 32-byte diversifier."""
        ...

    def provide(self, algorithm: Algorithm, name: str, options: Settings) -> Found:
        """A signing key on the device: made anew, or the one that the operator's options name.

        Raises:
            KeyRefused: one would have to be overwritten.
            KeyInvalid: the device does not sign, or not with this algorithm.
        """
        ...

    def sign(self, algorithm: Algorithm, message: bytes, locator: Mapping[str, str]) -> bytes:
        """The signature of a message: 64 or 2420 bytes."""
        ...

    def retire(self, locator: Mapping[str, str]) -> None:
        """Makes a derived identity impossible for ever, or destroys the key that signs.

        Raises:
            KeyInvalid: the device cannot.
        """
        ...

    def close(self) -> None:
        """Lets the device go. Never raises."""
        ...


@runtime_checkable
class CountingDevice(Device, Protocol):
    """A device with counters that only go up, of which a witness has one against being set back.

    Its locator is kept with the registered device. It is no identity's: retiring one does not move it.
    """

    def make_counter(self, options: Settings) -> tuple[Locator, int]:
        """Makes a counter, at `init` or later.

        Args:
            options: the operator's wishes, by name.

        Returns:
            The counter's locator, and its value.

        Raises:
            KeyRefused: what the options name is in use.
        """
        ...

    def read_counter(self, locator: Mapping[str, str]) -> int:
        """Its value.

        Raises:
            DeviceLost: it is gone.
        """
        ...

    def increment_counter(self, locator: Mapping[str, str]) -> int:
        """Moves it by one, for ever; its new value.

        Raises:
            DeviceLost: it is gone.
        """
        ...


Opener = Callable[[Settings, str | None], Device]
"""Opens a device: from its settings and its secret, if one is at hand."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of device.

    Attributes:
        module: the module of ours that drives it, with a function `open_device`.
        library: the package it imports, or empty.
        extra: the extra of this project that brings the library.
        derives: whether it answers diversifiers.
        signs: the algorithms that it may sign with.
        settings: the names of its settings, each with its meaning.
        options: what `init` can be told about the key, by name.
        binding: the parts of a locator that bind a secret to one identity; the device's own, lifelong
            attestation key is derived without them.
        counts: whether it has counters that only go up (`CountingDevice`).
    """

    module: str
    library: str
    extra: str
    derives: bool
    signs: tuple[Algorithm, ...]
    settings: Mapping[str, str]
    options: Mapping[str, str]
    binding: frozenset[str] = frozenset()
    counts: bool = False


BACKENDS: Final[Mapping[str, Backend]] = {
    "tpm2": Backend(
        module="witness.core.keystore.tpm2",
        library="tpm2_pytss",
        extra="tpm2",
        derives=True,
        signs=(),
        settings={
            "tcti": "how the TPM is reached: device:/dev/tpmrm0",
            "hierarchy": "owner (a wiped TPM has other keys) or endorsement",
        },
        options={
            "counter_index": "the NV index of the identity's counter",
            "counter": "fresh (there must be none), next (retires the present identity) or keep",
            "pcrs": "PCR numbers of the SHA-256 bank that must stay as they are now, as 0,7",
            "rollback": "off to do without a counter against a state folder that is set back",
            "rollback_index": "the NV index of that counter",
        },
        binding=frozenset({"index", "counter", "policy", "pcrs"}),
        counts=True,
    ),
    "pkcs11": Backend(
        module="witness.core.keystore.pkcs11",
        library="pkcs11",
        extra="pkcs11",
        derives=True,
        signs=(Algorithm.ED25519, Algorithm.MLDSA44),
        settings={
            "module": "path of the token's PKCS#11 library",
            "token": "the token's label",
            "environment": "a variable for the library, as NAME=VALUE",
        },
        options={
            "label": "the key's label on the token",
            "key": "fresh (there must be none of the label) or existing",
            "derive": "how a deriving token derives: hmac or aes-cbc",
            "attestation": "how a signing token derives its attestation key, if it is to have one: the same",
        },
    ),
    "ssh-agent": Backend(
        module="witness.core.keystore.sshagent",
        library="",
        extra="",
        derives=False,
        signs=(Algorithm.ED25519,),
        settings={"socket": "path of the agent's socket"},
        options={"key": "the key's comment or SHA256: fingerprint, where the agent has several"},
    ),
    "remote": Backend(
        module="witness.core.keystore.remote",
        library="",
        extra="",
        derives=False,
        signs=(Algorithm.ED25519, Algorithm.MLDSA44),
        settings={"socket": "path of the socket that `witness keys serve` listens at"},
        options={},
    ),
}
"""The kinds of devices there are. The soft key backend is not among them: its file needs no process."""


def backend(name: str) -> Backend:
    """A backend by its name.

    Raises:
        KeyInvalid: there is none of this name.
    """
    if name not in BACKENDS:
        raise KeyInvalid(f"unknown key backend {name!r}", f"known: softkey, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def opener(name: str, settings: Settings) -> Opener:
    """What opens a device; its library is imported only now, and nothing else later.

    Raises:
        BackendMissing: the library is not installed.
        KeyInvalid: there is no such backend, or no such setting.
    """
    kind = backend(name)
    unknown = sorted(set(settings) - set(kind.settings))
    if unknown:
        raise KeyInvalid(
            f"the backend {name} has no setting {unknown[0]!r}", f"it has {', '.join(kind.settings)}"
        )
    try:
        module: Any = importlib.import_module(kind.module)
    except ImportError as error:
        if not kind.library or (error.name or "").partition(".")[0] != kind.library:
            raise
        raise BackendMissing(
            f"the backend {name} needs {kind.library}, which is not installed",
            f"pip install 'tlog-witness[{kind.extra}]'",
        ) from error
    found: Opener = module.open_device
    return found
