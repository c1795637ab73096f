"""`witness keys retire`: an identity that no device derives again."""

from __future__ import annotations

import click

from witness.cli.errors import Failure
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.key_devices import opened
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring
from witness.core.keystore.keychain import secret_of
from witness.core.layout import StateLayout


@click.command()
@click.option(
    "--name", "confirmed", required=True, help="The witness's name once more: there is no way back."
)
@pass_layout
def retire(layout: StateLayout, *, confirmed: str) -> None:
    """Make this witness's derived identity impossible for ever, on the device itself."""
    ring = keyring.read(existing(layout))
    if confirmed != ring.name:
        raise Failure(f"this witness is {ring.name!r}, not {confirmed!r}", "nothing was changed")
    derived = [(key, place) for key in ring.witness_keys if key.how == "derive" for place in key.places]
    if not derived:
        raise Failure("this witness's keys are not derived by a device", "there is nothing to retire here")
    with not_running(layout):
        passphrase = own_passphrase(layout)
        for name in dict.fromkeys(place.device for _, place in derived):
            entry = ring.device(name)
            with opened(entry, secret_of(entry, passphrase)) as device:
                place = next(place for _, place in derived if place.device == name)
                device.call("retire", locator=dict(place.locator))
    click.echo(f"the identity of {ring.name} is retired: no device derives its keys again")
