"""`witness keys …`: the witness's own keys."""

from __future__ import annotations

import json

import click

from witness.cli.logs import json_option
from witness.cli.running import core_status
from witness.cli.state import existing, pass_layout
from witness.core.keystore import softkey
from witness.core.layout import StateLayout


@click.group()
def keys() -> None:
    """Show the witness's own keys."""


@keys.command(name="list")
@json_option
@pass_layout
def list_(layout: StateLayout, *, as_json: bool) -> None:
    """Print the vkeys, one a line; with --json, their states too.

    The state is the running core's word (ready, locked, absent, hung or refused), or "not running".
    """
    public = softkey.read_public(existing(layout).softkey)
    if not as_json:
        for vkey in public.vkeys:
            click.echo(str(vkey))
        return
    status = core_status(layout)
    states = {key.vkey: key for key in status.keys} if status else {}
    facts = []
    for vkey in public.vkeys:
        state = states.get(str(vkey))
        facts.append(
            {
                "vkey": str(vkey),
                "name": vkey.name,
                "key_id": vkey.key_id.hex(),
                "type": int(vkey.type),
                "algorithm": softkey.algorithm_of(vkey),
                "backend": state.backend if state else "softkey",
                "state": state.state if state else "not running",
                "detail": state.detail if state else "",
                "sealed": public.sealed,
            }
        )
    click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
