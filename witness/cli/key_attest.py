"""`witness keys attest`: the notes by which a device vouches for its keys, made anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import click

from witness.cli.errors import TheAnswerIsNo, say_warning
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.key_devices import opened
from witness.cli.logs import json_option
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring, softkey
from witness.core.keystore.attestation import AttestationKey
from witness.core.keystore.attesting import (
    Attested,
    attestation_entries,
    write_attestations,
)
from witness.core.keystore.attesting import (
    attest as attest_keys,
)
from witness.core.keystore.base import KeyInvalid
from witness.core.keystore.derivation import Identity
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import ATTESTATION, SOFT, KeyEntry, Place, Ring
from witness.core.layout import StateLayout


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write them to DIR as well, for handing out.",
)
@json_option
@pass_layout
def attest(layout: StateLayout, *, out: Path | None, as_json: bool) -> None:
    """Attest each key as this device's, of its generation, in the Armored Witness's format.

    The notes are made at `witness init` already, in keys/attestations of the state folder; here they are made
    anew, the same byte for byte, and their files named. SERIAL.pub is the key that verifies them:

    witness verify FILE --manifest-key @SERIAL.pub

    A key file of a witness made before there were attestations gets its attestation key here, which wants the
    witness stopped. Exit code 1: no key can be attested.
    """
    ring = keyring.read(existing(layout))
    passphrase = own_passphrase(layout)
    ring = _with_attestation_keys(layout, ring, passphrase)
    made = attest_keys(ring, open_attestation_keys(layout, ring, passphrase))
    paths = write_attestations(layout.attestations, made) if made else ()
    if out is not None and made:
        paths = write_attestations(out, made, for_others=True)
    if as_json:
        told = [_facts(each, path) for each, path in zip(made, paths, strict=True)]
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        for path in paths:
            click.echo(str(path))
    _tell_others(ring, made)


def open_attestation_keys(
    layout: StateLayout, ring: Ring, passphrase: str | None
) -> dict[str, AttestationKey]:
    """Opens every attestation key of a ring, by the name of its device.

    Args:
        layout: the state folder.
        ring: its ring.
        passphrase: what opens the key file, and devices without a secret of their own.

    Raises:
        KeystoreError: one cannot be opened, or is not the registered one.
    """
    found: dict[str, AttestationKey] = {}
    for key in attestation_entries(ring):
        place = key.places[0]
        if place.device in found:
            continue
        if key.how == "soft":
            opened_key = softkey.open_keystore(keyring.key_file(layout, key), passphrase).attestation
        else:
            opened_key = _derived(ring, key, place, passphrase)
        # By its public key: rings made before attestations were have it under another name.
        if opened_key is None or opened_key.vkey.public_key != key.vkey.public_key:
            raise KeyInvalid(
                f"{place.device} has another attestation key than {key.vkey.name}+{key.vkey.key_id.hex()}"
            )
        found[place.device] = opened_key
    return found


def _derived(ring: Ring, key: KeyEntry, place: Place, passphrase: str | None) -> AttestationKey:
    entry = ring.device(place.device)
    with opened(entry, secret_of(entry, passphrase)) as device:
        if entry.unique_id and device.unique_id != entry.unique_id:
            raise KeyInvalid(f"another device answers as {entry.name}")
        identity = Identity(device.unique_id, key.generation, key.dev, place.locator)
        return device.attestation_key(key.scheme, identity)


def _with_attestation_keys(layout: StateLayout, ring: Ring, passphrase: str | None) -> Ring:
    """The ring, after its key file, if any, was given an attestation key that it had not."""
    soft = [key for key in ring.keys if key.how == "soft"]
    if not soft or any(key.purpose == ATTESTATION for key in soft):
        return ring
    with not_running(layout):
        made = softkey.add_attestation(layout.softkey, passphrase)
        if not keyring.exists(layout):
            return keyring.read(layout)
        entry = KeyEntry(made.vkey, ATTESTATION, "soft", (Place(SOFT),))
        ring = dataclasses.replace(ring, keys=(*ring.keys, entry))
        keyring.write(layout, ring)
        return ring


def _tell_others(ring: Ring, made: Sequence[Attested]) -> None:
    attested = {each.key for each in made}
    others = [vkey for vkey in ring.vkeys if vkey not in attested]
    for vkey in others:
        say_warning(
            f"{vkey.name}+{vkey.key_id.hex()} is not attested: its device has no secret"
            " beside the key that would outlive it"
        )
    if not made:
        raise TheAnswerIsNo(
            "no key of this witness can be attested", "docs/custody.md tells which devices can"
        )


def _facts(each: Attested, path: Path) -> dict[str, object]:
    return {
        "file": str(path),
        "serial": each.serial,
        "generation": each.generation,
        "vkey": str(each.key),
        "attestation_key": str(each.by),
        "note": each.note.decode(),
    }
