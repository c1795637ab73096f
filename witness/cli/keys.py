"""`witness keys …`: the witness's own keys."""

from __future__ import annotations

import json
from typing import Any

import click

from witness.cli.errors import Failure
from witness.cli.generations import SIGNING, known, stage
from witness.cli.key_attest import attest
from witness.cli.key_counter import counter
from witness.cli.key_import import import_
from witness.cli.key_register import register
from witness.cli.key_retire import retire
from witness.cli.key_rotate import rotate, statement
from witness.cli.key_serve import serve
from witness.cli.key_trial import test
from witness.cli.key_unlock import unlock
from witness.cli.logs import json_option
from witness.cli.running import core_status
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring, softkey
from witness.core.keystore.base import KeyAbsent
from witness.core.keystore.keyring import WITNESS, KeyEntry, Ring
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.core.store.generations import Generations, Stage
from witness.core.wire import KeyInfo
from witness.tlog.note import SignatureType


@click.group()
def keys() -> None:
    """Show the witness's own keys, and see to the devices that hold them."""


for command in (unlock, register, test, attest, import_, rotate, statement, retire, serve, counter):
    keys.add_command(command)


@keys.command(name="list")
@json_option
@pass_layout
def list_(layout: StateLayout, *, as_json: bool) -> None:
    """Print the vkeys that sign, one a line; with --json, their states too.

    While the keys are rotated those of two generations sign. The state is the running core's word (ready,
    locked, absent, hung, refused or invalid), or "not running".
    """
    ring = keyring.read(existing(layout))
    found = known(layout)
    signing = [key for key in ring.witness_keys if stage(found, key) in SIGNING]
    if not as_json:
        for key in signing:
            click.echo(str(key.vkey))
        return
    states = _states(layout)
    facts = [_facts(layout, ring, key, states, found) for key in signing]
    click.echo(json.dumps(facts, ensure_ascii=False, indent=1))


@keys.command()
@click.argument("which", metavar="[KEY]", required=False)
@json_option
@pass_layout
def show(layout: StateLayout, *, which: str | None, as_json: bool) -> None:
    """Print all there is to know about a key, or about all: KEY is its key ID, algorithm or purpose."""
    ring = keyring.read(existing(layout))
    states, generations = _states(layout), known(layout)
    found = [
        _facts(layout, ring, key, states, generations)
        for key in ring.keys
        if which is None or which in {key.vkey.key_id.hex(), key.purpose, _algorithm(key), str(key.vkey)}
    ]
    if not found:
        raise Failure(f"no key {which!r} is registered", "witness keys show tells of all")
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for facts in found:
        for name, value in facts.items():
            if name == "devices":
                for device in value:
                    told = ", ".join(
                        f"{k}={v}" for k, v in {**device["settings"], **device["locator"]}.items()
                    )
                    click.echo(f"  device      {device['name']} ({device['backend']}) {told}")
                    if device["unique_id"]:
                        click.echo(f"              calls itself {device['unique_id']}")
            elif value not in ("", None):
                click.echo(f"{'' if name == 'vkey' else '  '}{name:11} {value}")


def _states(layout: StateLayout) -> dict[str, KeyInfo]:
    status = core_status(layout)
    return {key.vkey: key for key in status.keys} if status else {}


def _algorithm(key: KeyEntry) -> str:
    return "ed25519" if key.vkey.type == SignatureType.ED25519 else algorithm_of(key.vkey)


def _at_rest(key: KeyEntry, where: Stage) -> str:
    if key.purpose != WITNESS:
        return "at rest"
    return "not running" if where in SIGNING else where.value


def _sealed(layout: StateLayout, key: KeyEntry) -> bool | None:
    try:
        return softkey.read_public(keyring.key_file(layout, key)).sealed
    except KeyAbsent:  # of a retired generation: it was deleted
        return None


def _facts(
    layout: StateLayout, ring: Ring, key: KeyEntry, states: dict[str, KeyInfo], generations: Generations
) -> dict[str, Any]:
    vkey, state = key.vkey, states.get(str(key.vkey))
    where = stage(generations, key)
    facts: dict[str, Any] = {
        "vkey": str(vkey),
        "name": vkey.name,
        "key_id": vkey.key_id.hex(),
        "type": int(vkey.type),
        "algorithm": _algorithm(key),
        "purpose": key.purpose,
        "backend": ring.device(key.places[0].device).backend,
        "state": state.state if state else _at_rest(key, where),
        "detail": state.detail if state else "",
        "rate": state.rate if state else 0.0,
        "sealed": _sealed(layout, key) if key.how == "soft" else None,
    }
    if key.purpose == WITNESS:
        row = next((row for row in generations if str(vkey) in row.vkeys), None)
        facts |= {
            "generation": key.rotation,
            "stage": where.value,
            "until": row.until if row is not None else None,
        }
    if key.how == "derive":
        facts |= {"scheme": key.scheme, "device_generation": key.generation}
    facts["dev"] = key.dev
    facts["devices"] = [
        {
            "name": place.device,
            "backend": ring.device(place.device).backend,
            "settings": dict(ring.device(place.device).settings),
            "unique_id": ring.device(place.device).unique_id,
            "locator": dict(place.locator),
        }
        for place in key.places
    ]
    return facts
