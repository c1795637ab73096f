"""A further generation of keys for a witness that stands: where the present ones are, or elsewhere."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from witness.cli.errors import WrongUsage
from witness.cli.key_devices import Wishes, parse_options, parse_secret, provide, warn_of
from witness.cli.key_following import follow
from witness.core.continuity.staging import new_file
from witness.core.keystore import softkey
from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.base import Algorithm
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import (
    ATTESTATION,
    FILE,
    SOFT,
    WITNESS,
    DeviceEntry,
    KeyEntry,
    Place,
    Ring,
    key_file,
)
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout


@dataclass(frozen=True, slots=True)
class NewKeys:
    """What the operator wants of the new generation.

    Attributes:
        algorithms: the keys to make; none for those that there are.
        backend: where; None for where they are now.
        options: settings and options of a device, as given.
        secret: where a device's secret comes from, as given.
        soft: algorithms to keep in a key file, whatever the backend.
    """

    algorithms: tuple[str, ...]
    backend: str | None
    options: tuple[str, ...]
    secret: str | None
    soft: tuple[str, ...]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> NewKeys:
        """Out of a command's options."""
        return cls(
            tuple(dict.fromkeys(options["algorithms"])),
            options["backend"],
            options["options"],
            options["secret"],
            options["soft"],
        )


@dataclass(slots=True)
class Made:
    """The new generation's keys, not yet registered.

    Attributes:
        devices: those that the keys are in; some are registered already.
        keys: the keys, and attestation keys that came with a device.
        secrets: of devices, by name.
        attesting: the attestation keys that vouch for the keys, by device.
        file: the key file that was made.
    """

    secrets: dict[str, str | None]
    devices: list[DeviceEntry] = field(default_factory=list)
    keys: list[KeyEntry] = field(default_factory=list)
    attesting: dict[str, AttestationKey] = field(default_factory=dict)
    file: Path | None = None

    def discard(self) -> None:
        """Takes back what nobody knows of yet. What was made in a device stays there, unused."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink()


def make_keys(
    layout: StateLayout, ring: Ring, present: Ring, wanted: NewKeys, number: int, *,
    passphrase: str | None, device_secrets: Mapping[str, str | None],
) -> Made:  # fmt: skip
    """Makes the keys of a new generation.

    Args:
        layout: the state folder.
        ring: all that is registered.
        present: the ring with the keys that sign now.
        wanted: what the operator wants.
        number: the new generation's.
        passphrase: what seals a key file; None leaves it unsealed.
        device_secrets: of the registered devices, by name.

    Raises:
        KeystoreError, Failure, WrongUsage: they cannot be made.
    """
    newest = max(key.rotation for key in present.witness_keys)
    model = {algorithm_of(key.vkey): key for key in present.witness_keys if key.rotation == newest}
    algorithms = wanted.algorithms or tuple(model)
    made = Made(dict(device_secrets))
    soft = [each for each in algorithms if _is_soft(each, wanted, model)]
    others = [each for each in algorithms if each not in soft]
    if not others and (wanted.options or wanted.secret):
        raise WrongUsage("--option and --secret are for a device: name its --backend")
    target = _registered(wanted, ring)
    if others and wanted.backend is not None and target is None:
        _make_elsewhere(made, ring, wanted, others, number=number, passphrase=passphrase)
    else:
        places = {each: target or _device_of(each, model) for each in others}
        _make_in_devices(made, ring, wanted, places, number=number)
    if soft:
        _make_soft(layout, made, ring, soft, number=number, passphrase=passphrase)
    order = list(algorithms)
    made.keys.sort(
        key=lambda key: order.index(algorithm_of(key.vkey)) if key.purpose == WITNESS else len(order)
    )
    return made


def _is_soft(algorithm: str, wanted: NewKeys, model: Mapping[str, KeyEntry]) -> bool:
    if algorithm in wanted.soft or wanted.backend == SOFT:
        return True
    if wanted.backend is not None:
        return False
    before = model.get(algorithm)
    if before is None:  # where a deriving device is, it derives this one too
        return all(key.how != "derive" for key in model.values())
    return before.how == "soft"


def _registered(wanted: NewKeys, ring: Ring) -> str | None:
    """The device that the operator means, if it is registered already; else None."""
    if wanted.backend in (None, SOFT):
        return None
    assert wanted.backend is not None
    settings, _ = parse_options(wanted.backend, wanted.options)
    for entry in ring.devices:
        fits = all(entry.settings.get(name) == value for name, value in settings.items())
        if entry.backend == wanted.backend and fits:
            return entry.name
    return None


def _make_elsewhere(
    made: Made,
    ring: Ring,
    wanted: NewKeys,
    algorithms: Sequence[str],
    *,
    number: int,
    passphrase: str | None,
) -> None:
    assert wanted.backend is not None
    settings, options = parse_options(wanted.backend, wanted.options)
    source = parse_secret(wanted.secret)
    secret = secret_of(DeviceEntry(wanted.backend, wanted.backend, settings, secret=source), passphrase)
    wishes = Wishes(
        backend=wanted.backend,
        settings=settings,
        options=options,
        secret=source,
        algorithms=tuple(map(Algorithm, algorithms)),
        name=ring.name,
        dev=any(key.dev for key in ring.witness_keys),
        counter=not any(device.counts for device in ring.devices),
    )
    held = provide(wishes, secret)
    warn_of(held)
    taken = {device.name for device in ring.devices}
    name = held.device.name if held.device.name not in taken else f"{held.device.name}-{number}"
    made.devices.append(dataclasses.replace(held.device, name=name))
    made.secrets[name] = secret
    for key in held.keys:
        places = tuple(Place(name, place.locator) for place in key.places)
        made.keys.append(dataclasses.replace(key, places=places, rotation=number))
    if held.attestation is not None:
        made.attesting[name] = held.attestation


def _device_of(algorithm: str, model: Mapping[str, KeyEntry]) -> str:
    """Where the present key of an algorithm is, or that of another where there is none in a device."""
    before = model.get(algorithm)
    if before is None or before.how == "soft":
        before = next(key for key in model.values() if key.how != "soft")
    return before.places[0].device


def _make_in_devices(
    made: Made, ring: Ring, wanted: NewKeys, places: Mapping[str, str], *, number: int
) -> None:  # fmt: skip
    """In devices that are registered; `places` are device names by algorithm."""
    for name in dict.fromkeys(places.values()):
        entry = ring.device(name)
        _, options = parse_options(entry.backend, wanted.options)
        mine = [Algorithm(algorithm) for algorithm, device in places.items() if device == name]
        keys, attesting = follow(ring, entry, made.secrets.get(name), mine, options, number)
        made.keys += keys
        if attesting is not None:
            made.attesting[name] = attesting


def _make_soft(
    layout: StateLayout,
    made: Made,
    ring: Ring,
    algorithms: Sequence[str],
    *,
    number: int,
    passphrase: str | None,
) -> None:
    path = new_file(layout, number)
    seed = _attestation_seed(layout, ring, passphrase) or secrets.token_bytes(softkey.SEED_SIZE)
    vkeys = softkey.create(
        path,
        name=ring.name,
        identity=ring.identity,
        passphrase=passphrase,
        algorithms=tuple(algorithms),
        attestation_seed=seed,
    )
    made.file = path
    made.devices.append(DeviceEntry(SOFT, SOFT))
    place = Place(SOFT, {FILE: path.name})
    made.keys += [
        KeyEntry(vkey, WITNESS, "soft", (place,), generation=number, rotation=number) for vkey in vkeys
    ]
    attesting = softkey.attestation_key(ring.name, ring.identity, seed)
    made.attesting[SOFT] = attesting
    made.keys.append(KeyEntry(attesting.vkey, ATTESTATION, "soft", (place,)))


def _attestation_seed(layout: StateLayout, ring: Ring, passphrase: str | None) -> bytes | None:
    """The attestation key of the key files, which outlives every one of them."""
    for key in ring.keys:
        if key.purpose == ATTESTATION and key.how == "soft":
            return softkey.KeyFile(key_file(layout, key)).secrets(passphrase).attestation_seed
    return None
