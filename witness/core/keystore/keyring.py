"""The ring: which keys this witness has, and where. No secrets stand in it.

It is kept as `keys/keyring.json`, so that a witness knows its keys while their devices are away, and so that
whatever a device brings is held against what is registered: another key is never used in its place.

A state without the file has all its keys in `keys/softkey.json`, whose header then serves as the ring.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from witness.core.keystore import softkey
from witness.core.keystore.base import KeyFileInvalid
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.tlog.note import MalformedVKey, VerifierKey, parse_vkey

FORMAT: Final = "tlog-witness keyring v1"
SOFT: Final = "softkey"
"""The backend, and the device, that is the key file."""
MAX_FILE: Final = 256 * 1024

WITNESS: Final = "witness"
ATTESTATION: Final = "attestation"
HOW: Final = ("soft", "derive", "sign")
SECRET_SOURCES: Final = ("env", "file", "credential")
FILE: Final = "file"
"""In the locator of a soft key: the name of its key file in the keys folder, where it is not the first."""
_KEY_FILE: Final = re.compile(r"softkey(-[1-9][0-9]{0,8})?\.json")


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A registered device.

    Attributes:
        name: what the operator calls it; unique in the ring.
        backend: tpm2, pkcs11, ssh-agent, remote or softkey.
        settings: how the backend finds it (a TCTI, a module and token, a socket).
        unique_id: what the device calls itself; another device is refused. Empty where it has none.
        secret: where its PIN, passphrase or authorisation value comes from, as {"env": NAME},
            {"file": PATH} or {"credential": NAME}; empty for the witness's own passphrase.
        counter: how the device finds the witness's rollback counter; {"off": "yes"} where the operator does
            without; empty where it has none.
    """

    name: str
    backend: str
    settings: Mapping[str, str] = field(default_factory=dict)
    unique_id: str = ""
    secret: Mapping[str, str] = field(default_factory=dict)
    counter: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it has a rollback counter."""
        return bool(self.counter) and "off" not in self.counter


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is: the device, and what the backend finds it by there."""

    device: str
    locator: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A registered key.

    Attributes:
        vkey: the key as verifiers know it. What a device brings must be this.
        purpose: `witness` (it cosigns) or `attestation`.
        how: `soft`, `derive` (the device answers a diversifier) or `sign` (the device signs).
        places: the devices that have it; several only for `sign`.
        scheme: how it is derived, by name; empty unless `how` is `derive`.
        generation: which of the device's identities it belongs to.
        dev: whether it is for development.
        rotation: which of the witness's own generations it belongs to: how many rotations came before it.
    """

    vkey: VerifierKey
    purpose: str
    how: str
    places: tuple[Place, ...]
    scheme: str = ""
    generation: int = 0
    dev: bool = False
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Ring:
    """All of one witness's keys and devices.

    Attributes:
        name: the witness's name.
        identity: the random identifier that the database carries too.
        devices: the devices.
        keys: the keys, witness keys in the order of their cosignatures. Those of retired generations stay
            registered: what they have signed still counts against a state that is behind it.
        records: the keys of our own records, by the number of a generation and sealed for it, in base64
            (`witness.core.continuity.secret`): they outlive the generation that they were first made of.
    """

    name: str
    identity: str
    devices: tuple[DeviceEntry, ...]
    keys: tuple[KeyEntry, ...]
    records: Mapping[str, str] = field(default_factory=dict)

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        """The vkeys of the witness keys, in the order of their cosignatures."""
        return tuple(key.vkey for key in self.witness_keys)

    @property
    def witness_keys(self) -> tuple[KeyEntry, ...]:
        """The keys that cosign."""
        return tuple(key for key in self.keys if key.purpose == WITNESS)

    @property
    def generations(self) -> tuple[tuple[int, tuple[VerifierKey, ...]], ...]:
        """The witness keys by the number of their generation, in order."""
        numbers = sorted({key.rotation for key in self.witness_keys})
        return tuple((n, tuple(key.vkey for key in self.witness_keys if key.rotation == n)) for n in numbers)

    def only(self, wanted: Callable[[KeyEntry], bool]) -> Ring:
        """The ring with those witness keys alone; other keys and all devices stay in it."""
        return replace(self, keys=tuple(key for key in self.keys if key.purpose != WITNESS or wanted(key)))

    def device(self, name: str) -> DeviceEntry:
        """A device by its name.

        Raises:
            KeyFileInvalid: there is none.
        """
        for device in self.devices:
            if device.name == name:
                return device
        raise KeyFileInvalid(f"no device {name!r} is registered")

    def is_needed(self, device: DeviceEntry) -> bool:
        """Whether a process has to drive the device: it has keys, or counts for this witness."""
        return device.backend != SOFT and (bool(self.keys_on(device.name)) or device.counts)

    def keys_on(self, device: str) -> tuple[tuple[KeyEntry, Place], ...]:
        """The keys on a device, with their places there."""
        return tuple((key, place) for key in self.keys for place in key.places if place.device == device)

    def with_device(self, device: DeviceEntry, places: Mapping[VerifierKey, Mapping[str, str]]) -> Ring:
        """The ring with a device added, or replaced under its name; `places` are locators by vkey."""
        devices = (*(d for d in self.devices if d.name != device.name), device)
        keys = []
        for key in self.keys:
            kept = tuple(place for place in key.places if place.device != device.name)
            new = (Place(device.name, places[key.vkey]),) if key.vkey in places else ()
            keys.append(replace(key, places=kept + new))
        return replace(self, devices=devices, keys=tuple(keys))


def exists(layout: StateLayout) -> bool:
    """Whether the state has a ring of its own, or only a key file."""
    return layout.keyring.exists()


def read(layout: StateLayout) -> Ring:
    """The ring of a state.

    Raises:
        KeyAbsent: there is neither ring nor key file.
        KeyFileInvalid: what is there is not of a form this program knows.
    """
    try:
        with layout.keyring.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return of_key_file(softkey.read_public(layout.softkey))
    except OSError as error:
        raise KeyFileInvalid(f"cannot read {layout.keyring}: {error.strerror}") from error
    return parse(data, layout.keyring)


def sealed(layout: StateLayout, ring: Ring) -> bool | None:
    """Whether every key file is sealed; None where no key is in one.

    Raises:
        KeyAbsent, KeyFileInvalid: a key is registered in one that is not there or not what it must be.
    """
    files = {key_file(layout, key) for key in ring.keys if key.how == "soft"}
    return all(softkey.read_public(file).sealed for file in sorted(files)) if files else None


def key_file(layout: StateLayout, key: KeyEntry) -> Path:
    """The file that a soft key is in: one for each generation."""
    return layout.keys / key.places[0].locator.get(FILE, layout.softkey.name)


def of_key_file(public: softkey.PublicKeys) -> Ring:
    """The ring that a key file alone makes."""
    keys = [KeyEntry(vkey, WITNESS, "soft", (Place(SOFT),)) for vkey in public.vkeys]
    if public.attestation is not None:
        keys.append(KeyEntry(public.attestation, ATTESTATION, "soft", (Place(SOFT),)))
    return Ring(public.name, public.identity, (DeviceEntry(SOFT, SOFT),), tuple(keys))


def parse(data: bytes, file: Path) -> Ring:
    """A ring out of its JSON.

    Raises:
        KeyFileInvalid: it is none, or contradicts itself.
    """
    try:
        if len(data) > MAX_FILE:
            raise ValueError(f"longer than {MAX_FILE} bytes")  # noqa: TRY301 - one place words all faults
        content = json.loads(data)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("not a ring of a form this program knows")  # noqa: TRY301
        ring = Ring(
            _text(content, "name"),
            _text(content, "identity"),
            tuple(_device(entry) for entry in content["devices"]),
            tuple(_key(entry) for entry in content["keys"]),
            _texts(content, "records") if "records" in content else {},
        )
        _check(ring)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MalformedVKey) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise KeyFileInvalid(f"{file}: {fault}", "restore it from its backup") from error
    return ring


def write(layout: StateLayout, ring: Ring) -> None:
    """Replaces the state's ring, durably and whole: there is never half a ring.

    Raises:
        OSError: it cannot be written; then the old one stands.
        ValueError: the ring contradicts itself.
    """
    _check(ring)
    layout.keys.mkdir(mode=0o700, exist_ok=True)
    building = layout.keyring.with_name(f".keyring-{secrets.token_hex(4)}")
    try:
        descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(_content(ring), file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        building.rename(layout.keyring)
    except BaseException:
        with suppress(FileNotFoundError):
            building.unlink()
        raise
    folder = os.open(layout.keys, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(ring: Ring) -> None:
    names = [device.name for device in ring.devices]
    if len(set(names)) != len(names):
        raise ValueError("two devices have one name")
    if not ring.witness_keys:
        raise ValueError("no witness key is registered")
    if len(set(ring.vkeys)) != len(ring.vkeys):
        raise ValueError("a key is registered twice")
    for key in ring.witness_keys:
        algorithm_of(key.vkey)
        if key.vkey.name != ring.name:
            raise ValueError(f"{key.vkey.name}+{key.vkey.key_id.hex()} is another witness's key")
    for key in ring.keys:
        _check_places(ring, key)


def _check_places(ring: Ring, key: KeyEntry) -> None:
    if not key.places or (len(key.places) > 1 and key.how != "sign"):
        raise ValueError(f"{key.vkey.name}+{key.vkey.key_id.hex()} is on {len(key.places)} devices")
    for place in key.places:
        backend = next((d.backend for d in ring.devices if d.name == place.device), None)
        if backend is None:
            raise ValueError(f"no device {place.device!r} is registered")
        if (backend == SOFT) != (key.how == "soft"):
            raise ValueError(f"a device of the backend {backend} does not hold a key as {key.how!r}")
        if key.how == "soft" and not _KEY_FILE.fullmatch(place.locator.get(FILE, "softkey.json")):
            raise ValueError(f"{place.locator[FILE]!r} is not the name of a key file")


def _content(ring: Ring) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": ring.name,
        "identity": ring.identity,
        "devices": [
            {
                "name": device.name,
                "backend": device.backend,
                "settings": dict(device.settings),
                "unique_id": device.unique_id,
                "secret": dict(device.secret),
                "counter": dict(device.counter),
            }
            for device in ring.devices
        ],
        "keys": [
            {
                "vkey": str(key.vkey),
                "purpose": key.purpose,
                "how": key.how,
                "places": [{"device": p.device, "locator": dict(p.locator)} for p in key.places],
                "scheme": key.scheme,
                "generation": key.generation,
                "dev": key.dev,
                "rotation": key.rotation,
            }
            for key in ring.keys
        ],
        "records": dict(ring.records),
    }


def _device(entry: Mapping[str, Any]) -> DeviceEntry:
    secret = _texts(entry, "secret")
    if len(secret) > 1 or not set(secret) <= set(SECRET_SOURCES):
        raise ValueError(f"a secret comes from one of {', '.join(SECRET_SOURCES)}")
    return DeviceEntry(
        _text(entry, "name"),
        _text(entry, "backend"),
        _texts(entry, "settings"),
        _text(entry, "unique_id"),
        secret,
        _texts(entry, "counter") if "counter" in entry else {},
    )


def _key(entry: Mapping[str, Any]) -> KeyEntry:
    how, purpose, generation, dev = entry["how"], entry["purpose"], entry["generation"], entry["dev"]
    rotation = entry.get("rotation", 0)
    if how not in HOW or purpose not in {WITNESS, ATTESTATION}:
        raise ValueError(f"a key is {how!r} for {purpose!r}, which this program does not know")
    if not isinstance(generation, int) or not isinstance(dev, bool):
        raise TypeError("generation and dev are a number and a switch")
    if not isinstance(rotation, int) or isinstance(rotation, bool) or rotation < 0:
        raise TypeError("rotation is a number")
    return KeyEntry(
        parse_vkey(_text(entry, "vkey")),
        purpose,
        how,
        tuple(Place(_text(place, "device"), _texts(place, "locator")) for place in entry["places"]),
        _text(entry, "scheme"),
        generation,
        dev,
        rotation,
    )


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value


def _texts(entry: Mapping[str, Any], name: str) -> dict[str, str]:
    value = entry[name]
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise TypeError(f"{name} is not a table of texts")
    return value
