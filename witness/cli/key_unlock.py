"""`witness keys unlock`: a device's PIN or passphrase, into a running witness."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import Final

import click

from witness.cli.errors import Failure, TheAnswerIsNo, WrongUsage
from witness.cli.running import core_status
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring
from witness.core.keystore.unlocking import send
from witness.core.layout import StateLayout

UNLOCK_PATIENCE: Final = 60.0
"""Seconds in which a core must say what became of a secret."""
_POLL: Final = 0.05


@click.command()
@click.argument("device", required=False)
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the secret from FILE."
)
@pass_layout
def unlock(layout: StateLayout, *, device: str | None, passphrase_file: Path | None) -> None:
    """Give the running witness the PIN or passphrase of DEVICE, which is locked.

    The secret is read from FILE, else from standard input, and asked for at a terminal. It is kept nowhere.
    """
    ring = keyring.read(existing(layout))
    status = core_status(layout)
    if status is None:
        raise Failure("the witness is not running", "a secret is given to a running witness")
    locked = {key.vkey for key in status.keys if key.state == "locked"}
    names = sorted({place.device for key in ring.keys if str(key.vkey) in locked for place in key.places})
    if device is None:
        if len(names) != 1:
            raise WrongUsage("name the device", f"locked: {', '.join(names) or 'none'}")
        device = names[0]
    if device not in names:
        ring.device(device)
        raise Failure(f"{device} is not locked", f"locked: {', '.join(names) or 'none'}")
    attempt = secrets.token_hex(4)
    if not send(layout, device, _secret_from(passphrase_file), attempt):
        raise Failure(
            "the running witness waits for no secret", "keys.wait_for_unlock lets a sealed key file wait"
        )
    mine = {str(key.vkey) for key in ring.keys for place in key.places if place.device == device}
    until = time.monotonic() + UNLOCK_PATIENCE
    while time.monotonic() < until:
        status = core_status(layout)
        # The answer is told by its attempt. While the device is being opened the old error may still stand.
        keys = [key for key in status.keys if key.vkey in mine] if status else []
        told = [key for key in keys if f"[unlock {attempt}]" in key.detail]
        for key in told:
            if key.state != "ready":
                raise TheAnswerIsNo(key.detail.partition(" [unlock")[0])
        # A device's keys come one after the other; it is of use when all are there.
        if told and all(key.state == "ready" for key in keys):
            click.echo(f"{device} is unlocked")
            return
        time.sleep(_POLL)
    raise Failure(f"the witness did not say within {UNLOCK_PATIENCE:g} s what became of it")


def _secret_from(file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8").removesuffix("\n")
    if not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    return str(click.prompt("Secret", hide_input=True, err=True))
