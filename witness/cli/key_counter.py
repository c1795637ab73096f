"""`witness keys counter`: a rollback counter for a witness that was made without one."""

from __future__ import annotations

import dataclasses
import time

import click

from witness.cli.errors import Failure
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.key_devices import opened, parse_options, with_counter
from witness.cli.state import existing, pass_layout
from witness.core.continuity.counter import COUNTER
from witness.core.keystore import keyring
from witness.core.keystore.backend import BACKENDS
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import DeviceEntry, Ring
from witness.core.layout import StateLayout
from witness.core.store.audit import Event, leave
from witness.core.store.desk import Desk


@click.command()
@click.argument("device", required=False)
@click.option("-o", "--option", "given", multiple=True, metavar="NAME=VALUE", help="As with `witness init`.")
@pass_layout
def counter(layout: StateLayout, *, device: str | None, given: tuple[str, ...]) -> None:
    """Have DEVICE count against this state being set back, where it was made without a rollback counter.

    A counter is made in the device; the state names its value from now on. -o rollback=off has the witness do
    without, and say no more of it. Takes effect at the next start. A counter that is there stays.
    """
    with not_running(existing(layout)), Desk(layout.database) as desk:
        ring = keyring.read(layout)
        entry = _device(ring, device)
        _, wanted = parse_options(entry.backend, given)
        with opened(entry, secret_of(entry, own_passphrase(layout))) as open_device:
            if open_device.unique_id != entry.unique_id:
                raise Failure(f"another device answers as {entry.name}", "nothing was changed")
            # An identity is there already, and it is this one.
            options = {**_identity(ring, entry), **wanted, "counter": "beside"}
            entry, value = with_counter(open_device, entry, options)
        now = int(time.time())
        with desk.transaction() as connection:
            # Before the ring: a counter that is registered and that no state names would be an alarm.
            if value is not None:
                desk.set_fact(COUNTER, str(value))
            leave(connection, Event("counter", {"device": entry.name, **entry.counter}), now)
        devices = tuple(entry if each.name == entry.name else each for each in ring.devices)
        keyring.write(layout, dataclasses.replace(ring, devices=devices))
    where = f"its counter is {entry.counter['index']}" if value is not None else "it does without a counter"
    click.echo(f"{entry.name}: {where}")


def _identity(ring: Ring, entry: DeviceEntry) -> dict[str, str]:
    """The option that names the counter which the identity hangs on: the new one goes beside it."""
    indices = [place.locator["index"] for _, place in ring.keys_on(entry.name) if "index" in place.locator]
    return {"counter_index": indices[0]} if indices else {}


def _device(ring: Ring, name: str | None) -> DeviceEntry:
    able = [each for each in ring.devices if each.backend in BACKENDS and BACKENDS[each.backend].counts]
    if not able:
        raise Failure("no device of this witness has counters", "a TPM has them (docs/custody.md)")
    entry = ring.device(name) if name is not None else able[0]
    if entry not in able:
        raise Failure(f"{entry.name} has no counters", f"these have: {', '.join(each.name for each in able)}")
    counting = [each.name for each in ring.devices if each.counts]
    if counting:
        raise Failure(f"{counting[0]} counts already", "nothing was changed")
    return entry
