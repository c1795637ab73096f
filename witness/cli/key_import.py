"""`witness keys import`: an Ed25519 key that exists, into a witness that has none."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from witness.cli.errors import Failure
from witness.cli.generations import open_record_keys, signing
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.state import existing, pass_layout
from witness.core.continuity.secret import seal, source
from witness.core.continuity.staging import new_file
from witness.core.keystore import keyring, softkey
from witness.core.keystore.base import Algorithm
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import FILE, SOFT, DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.tlog.note import MalformedSignerKey, VerifierKey, parse_signer_key


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@pass_layout
def import_(layout: StateLayout, *, file: Path) -> None:
    """Take an Ed25519 key from FILE (a Go note signer key or an OpenSSH one) into a witness that has none.

    A witness that has an Ed25519 key keeps it: another key is another identity. (`witness init --import-key`
    makes a witness with a key that exists.)
    """
    ring = signing(existing(layout))
    name, seed = read_ed25519(file)
    if name is not None and name != ring.name:
        raise Failure(f"the key in {file} has the name {name!r}, and this witness is {ring.name!r}")
    vkey = softkey.soft_signer(Algorithm.ED25519, ring.name, seed).vkey
    if vkey in ring.vkeys:
        click.echo(f"{vkey.name}+{vkey.key_id.hex()} is there already", err=True)
        return
    held = [key for key in ring.vkeys if algorithm_of(key) == Algorithm.ED25519]
    if held:
        raise Failure(
            f"this witness has the Ed25519 key {held[0].name}+{held[0].key_id.hex()}, which its users know",
            "witness --state ANOTHER init --import-key FILE makes a witness of the key",
        )
    with not_running(layout):
        passphrase = own_passphrase(layout)
        newest = max(key.rotation for key in ring.witness_keys)
        path = layout.softkey if newest == 0 else new_file(layout, newest)
        kept = keyring.read(layout)  # with the keys of retired generations
        secrets = {device.name: secret_of(device, passphrase) for device in kept.devices}
        records = _for_the_first_key(layout, kept, vkey, seed, passphrase, secrets)
        softkey.add_seed(path, passphrase, Algorithm.ED25519, seed, identity=ring.identity, name=ring.name)
        devices = kept.devices
        if not any(device.name == SOFT for device in devices):
            devices = (*devices, DeviceEntry(SOFT, SOFT))
        place = Place(SOFT, {FILE: path.name} if newest else {})
        entry = KeyEntry(vkey, keyring.WITNESS, "soft", (place,), rotation=newest)
        keyring.write(
            layout,
            dataclasses.replace(
                kept, devices=devices, keys=(entry, *kept.keys), records={**kept.records, **records}
            ),
        )
    click.echo(str(vkey))


def _for_the_first_key(  # noqa: PLR0917 - what the records' keys come from, and what they go to
    layout: StateLayout,
    ring: Ring,
    vkey: VerifierKey,
    seed: bytes,
    passphrase: str | None,
    secrets: Mapping[str, str | None],
) -> dict[str, str]:
    """The records' keys, for the imported key to open: it is the first, and they are made of its secret."""
    newest = max(key.rotation for key in ring.witness_keys)
    try:
        keys = open_record_keys(layout, passphrase, secrets)
    except FileNotFoundError:  # nothing was ever recorded
        return {}
    signer = softkey.soft_signer(Algorithm.ED25519, vkey.name, seed)
    sealed = seal(keys, source([signer], layout.records_key).secret, ring.identity.encode())
    return {str(newest): base64.b64encode(sealed).decode()}


def read_ed25519(file: Path) -> tuple[str | None, bytes]:
    """The name, if it has one, and the seed of an Ed25519 key in a file.

    Raises:
        Failure: there is none in it, or it is sealed.
    """
    data = file.read_bytes()
    if data.lstrip().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----"):
        try:
            key = load_ssh_private_key(data, None)
        except (ValueError, TypeError) as error:
            raise Failure(
                f"cannot read the OpenSSH key in {file}: {error}",
                "ssh-keygen -p takes a passphrase off a copy",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Failure(f"the OpenSSH key in {file} is no Ed25519 key")
        return None, key.private_bytes_raw()
    try:
        signer = parse_signer_key(data.decode("utf-8").strip())
    except (MalformedSignerKey, UnicodeDecodeError) as error:
        raise Failure(f"{file} holds neither a Go note signer key nor an OpenSSH key: {error}") from error
    return signer.name, signer.seed
