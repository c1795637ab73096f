"""The next generation of keys in the device that has the present one.

The present keys stay usable there until they are retired, so the new ones hang on nothing of theirs that
retiring takes away: another counter in a TPM, another key object in a token, another key in an agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from witness.cli.errors import Failure, WrongUsage, say_warning
from witness.cli.key_devices import OpenDevice, opened
from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.base import COSIGNATURE_TYPES, Algorithm, KeyInvalid, KeyRefused
from witness.core.keystore.derivation import WITNESS_PURPOSES, Identity
from witness.core.keystore.keyring import ATTESTATION, WITNESS, DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.talk import from_b64
from witness.tlog.note import make_vkey

_TRIES: Final = 32
"""NV indexes that are tried for a new counter."""


def follow(  # noqa: PLR0917 - all that a device's keys are made of
    ring: Ring,
    entry: DeviceEntry,
    secret: str | None,
    algorithms: Sequence[Algorithm],
    options: Mapping[str, str],
    number: int,
) -> tuple[list[KeyEntry], AttestationKey | None]:
    """Makes the keys, and opens the device's attestation key where it has one.

    Args:
        ring: all that is registered.
        entry: the device.
        secret: what opens it.
        algorithms: the keys to make.
        options: what the operator wants of them, by name.
        number: the new generation's.

    Raises:
        KeystoreError, Failure, WrongUsage: they cannot be made. Nothing is overwritten.
    """
    if entry.backend == "remote":
        raise Failure(
            "a key door signs no statement that names its keys' successors",
            "--backend names another place for the new keys; the old must sign where they are kept",
        )
    present = [key for key, _ in ring.keys_on(entry.name) if key.purpose == WITNESS]
    with opened(entry, secret) as device:
        if entry.unique_id and device.unique_id != entry.unique_id:
            raise KeyInvalid(f"another device answers as {entry.name}")
        if device.note:
            say_warning(f"device {entry.name}: {device.note}")
        derived = [key for key in present if key.how == "derive"]
        if derived:
            keys = _derived(device, ring, derived[-1], algorithms, options, number)
        else:
            keys = _signing(device, ring.name, algorithms, options, number)
        known = {key.vkey for key in ring.witness_keys}
        for key in keys:
            if key.vkey in known:
                raise Failure(
                    f"{key.vkey.name}+{key.vkey.key_id.hex()} in {entry.name} is registered already",
                    "a rotation needs another: -o key=… or -o label=… names it",
                )
        return keys, _attesting(device, ring)


def _derived(  # noqa: PLR0917
    device: OpenDevice,
    ring: Ring,
    model: KeyEntry,
    algorithms: Sequence[Algorithm],
    options: Mapping[str, str],
    number: int,
) -> list[KeyEntry]:
    entry, before = device.entry, model.places[0].locator
    counted = [key.generation for key, _ in ring.keys_on(entry.name)]
    generation = max(counted) + 1
    if entry.backend == "tpm2":
        locator, value = _next_counter(device, ring, before, options)
        generation = max(generation, value)
    elif options:
        raise WrongUsage(f"keys derived by {entry.backend} follow each other in the same secret: no options")
    else:
        locator = dict(before)
    if "applet" in before:
        locator["applet"] = before["applet"]
    identity = Identity(device.unique_id, generation, model.dev, locator)
    keys = []
    for algorithm in algorithms:
        signer = device.derived(WITNESS_PURPOSES[algorithm], algorithm, ring.name, model.scheme, identity)
        keys.append(
            KeyEntry(
                signer.vkey, WITNESS, "derive", (Place(entry.name, locator),), model.scheme, generation,
                model.dev, number,
            )
        )  # fmt: skip
    return keys


def _next_counter(
    device: OpenDevice, ring: Ring, before: Mapping[str, str], options: Mapping[str, str]
) -> tuple[dict[str, str], int]:
    """A counter of its own for the new identity, at the first index that is free; and its value."""
    unknown = sorted(set(options) - {"counter_index", "pcrs"})
    if unknown:
        raise WrongUsage(f"-o {unknown[0]} is for init: a rotation makes a fresh counter")
    kept = {"pcrs": before["pcrs"]} if "pcrs" in before else {}
    wanted = {**kept, **options, "counter": "fresh"}
    used = {place.locator.get("index") for key in ring.keys for place in key.places}
    used |= {entry.counter.get("index") for entry in ring.devices}
    first = int(before["index"], 0)
    indices = (f"{first + step:#010x}" for step in range(1, _TRIES + 1))
    free = [index for index in indices if index not in used]
    for index in [options["counter_index"]] if "counter_index" in options else free:
        try:
            answer = device.call("prepare", options={**wanted, "counter_index": index})
        except KeyRefused:
            if "counter_index" in options or index == free[-1]:
                raise
            continue  # somebody else's
        return dict(answer["locator"]), int(answer["generation"])
    raise Failure("the TPM has no free index for another counter", "-o counter_index=0x… names one")


def _signing(
    device: OpenDevice, name: str, algorithms: Sequence[Algorithm], options: Mapping[str, str], number: int
) -> list[KeyEntry]:
    wanted = dict(options)
    if device.entry.backend == "pkcs11":
        wanted.setdefault("label", f"{name}#{number}")
    keys = []
    for algorithm in algorithms:
        answer = device.call("provide", algorithm=algorithm.value, name=name, options=wanted)
        vkey = make_vkey(name, COSIGNATURE_TYPES[algorithm], from_b64(answer["public_key"]))
        place = Place(device.entry.name, dict(answer["locator"]))
        keys.append(KeyEntry(vkey, WITNESS, "sign", (place,), rotation=number))
    return keys


def _attesting(device: OpenDevice, ring: Ring) -> AttestationKey | None:
    for key, place in ring.keys_on(device.entry.name):
        if key.purpose == ATTESTATION:
            identity = Identity(device.unique_id, key.generation, key.dev, place.locator)
            return device.attestation_key(key.scheme, identity)
    return None
