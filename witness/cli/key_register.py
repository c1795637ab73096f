"""`witness keys register`: another device, or one that moved; refused unless it has the registered keys."""

from __future__ import annotations

import dataclasses

import click

from witness.cli.errors import Failure, say_warning
from witness.cli.generations import known as known_generations
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.key_devices import OpenDevice, opened, parse_options, parse_secret, told
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring
from witness.core.keystore.backend import BACKENDS
from witness.core.keystore.base import Algorithm, KeyInvalid, KeystoreError
from witness.core.keystore.derivation import WITNESS_PURPOSES, Identity
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.tlog.note import VerifierKey


@click.command()
@click.argument("backend", type=click.Choice(tuple(BACKENDS)))
@click.option("--as", "name", metavar="DEVICE", help="The device's name here; else the backend's.")
@click.option(
    "-o", "--option", "options", multiple=True, metavar="NAME=VALUE", help="As with `witness init`."
)
@click.option("--secret", metavar="env:NAME|file:PATH|credential:NAME", help="As with `witness init`.")
@pass_layout
def register(
    layout: StateLayout, *, backend: str, name: str | None, options: tuple[str, ...], secret: str | None
) -> None:
    """Make known a device that holds a key of this witness: another one beside, or one that has moved.

    The device must sign with the registered key, or derive it; one that does not is refused. Takes effect at
    the next start.
    """
    name = name or backend
    settings, wanted = parse_options(backend, options)
    source = parse_secret(secret)
    with not_running(existing(layout)):
        ring = keyring.read(layout)
        entry = DeviceEntry(name, backend, settings, secret=source)
        with opened(entry, secret_of(entry, own_passphrase(layout))) as device:
            retired = known_generations(layout).retired
            found = _same_keys(device, ring.only(lambda key: str(key.vkey) not in retired), name, wanted)
            known = next((each for each in ring.devices if each.name == name), entry)
            entry = dataclasses.replace(entry, unique_id=device.unique_id, counter=known.counter)
            if device.note:
                say_warning(f"device {name}: {device.note}")
        here = ring.keys_on(name)
        past = {key.vkey: place.locator for key, place in here if str(key.vkey) in retired}
        missing = [str(key.vkey) for key, _ in here if key.vkey not in {**past, **found}]
        if missing:
            raise Failure(
                f"the device has not all keys that {name} is registered with", "give it another name"
            )
        keyring.write(layout, ring.with_device(entry, {**past, **found}))
    for vkey in found:
        click.echo(f"{name} holds {vkey.name}+{vkey.key_id.hex()}")


def _same_keys(
    device: OpenDevice, ring: Ring, name: str, options: dict[str, str]
) -> dict[VerifierKey, dict[str, str]]:
    found: dict[VerifierKey, dict[str, str]] = {}
    why: list[str] = []
    for key in ring.keys:
        here = [place for place in key.places if place.device == name]
        if key.how == "derive" and here:
            must_derive(device, key, here[0])
            found[key.vkey] = dict(here[0].locator)
        elif key.how == "sign":
            try:
                found[key.vkey] = _locate(device, key, {**options, "key": options.get("key", "existing")})
            except KeystoreError as error:
                why.append(told(error))
    if not found:
        raise Failure("the device holds no key of this witness", "; ".join(why))
    return found


def _locate(device: OpenDevice, key: KeyEntry, options: dict[str, str]) -> dict[str, str]:
    """How a device finds a key that it must already have."""
    if device.entry.backend == "ssh-agent" and options.get("key") == "existing":
        locator = {"public_key": key.vkey.public_key.hex()}
    else:
        algorithm = algorithm_of(key.vkey)
        answer = device.call("provide", algorithm=algorithm, name=key.vkey.name, options=options)
        locator = dict(answer["locator"])
    device.sign_trial(key.vkey, locator)
    return locator


def must_derive(device: OpenDevice, key: KeyEntry, place: Place) -> None:
    """Has a device derive a witness's key once more, at the place where it is registered.

    Raises:
        KeyInvalid: another key comes of it.
    """
    if key.purpose != keyring.WITNESS:
        return
    algorithm = Algorithm(algorithm_of(key.vkey))
    identity = Identity(device.unique_id, key.generation, key.dev, place.locator)
    signer = device.derived(WITNESS_PURPOSES[algorithm], algorithm, key.vkey.name, key.scheme, identity)
    if signer.vkey != key.vkey:
        raise KeyInvalid(f"the device derives another key than {key.vkey.name}+{key.vkey.key_id.hex()}")
