"""`witness keys retire`: an identity that no device derives again."""

from __future__ import annotations

import time
from collections.abc import Mapping

import click

from witness.cli.continuity import record_path
from witness.cli.errors import Failure, say_warning
from witness.cli.generations import record_keys
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.key_devices import opened
from witness.cli.state import existing, pass_layout, read_config
from witness.core.continuity import recover
from witness.core.continuity.highwater import HighWater
from witness.core.keystore import keyring
from witness.core.keystore.base import KeystoreError
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import Ring
from witness.core.layout import StateLayout
from witness.core.store.base import StoreError
from witness.core.store.desk import Desk


@click.command()
@click.option(
    "--name", "confirmed", required=True, help="The witness's name once more: there is no way back."
)
@pass_layout
def retire(layout: StateLayout, *, confirmed: str) -> None:
    """End this witness's derived identity for ever, on the device itself, and in its records.

    (`witness keys rotate` ends one generation of keys and goes on with the next.)
    """
    ring = keyring.read(existing(layout))
    if confirmed != ring.name:
        raise Failure(f"this witness is {ring.name!r}, not {confirmed!r}", "nothing was changed")
    derived = [(key, place) for key in ring.witness_keys if key.how == "derive" for place in key.places]
    if not derived:
        raise Failure("this witness's keys are not derived by a device", "there is nothing to retire here")
    with not_running(layout):
        passphrase = own_passphrase(layout)
        secrets = {device.name: secret_of(device, passphrase) for device in ring.devices}
        _write_down(layout, ring, passphrase, secrets)  # while the records' keys can still be derived
        for name in dict.fromkeys(place.device for _, place in derived):
            places = [place for _, place in derived if place.device == name]
            with opened(ring.device(name), secrets[name]) as device:
                for at, place in enumerate(places):
                    if place not in places[:at]:
                        device.call("retire", locator=dict(place.locator))
    click.echo(f"the identity of {ring.name} is retired: no device derives its keys again")


def _write_down(
    layout: StateLayout, ring: Ring, passphrase: str | None, secrets: Mapping[str, str | None]
) -> None:
    """Has database and high-water record say that none of the keys ever signs again."""
    vkeys = [str(vkey) for vkey in ring.vkeys]
    try:
        with Desk(layout.database) as desk:
            recover.retire(desk, int(time.time()))
        key, _ = record_keys(layout, passphrase, secrets)
        water = HighWater(record_path(layout, read_config(layout)), create=False)
        try:
            marks = water.read(key)
            water.append(key, retired=sorted({*marks.retired, *vkeys}))
        finally:
            water.close()
    except (KeystoreError, StoreError, OSError) as error:
        reason = getattr(error, "reason", "") or str(error)
        say_warning(f"the records do not say that the keys are retired: {reason}")
