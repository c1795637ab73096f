"""`witness keys serve`: this state's keys, for a witness elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

import click

from witness.cli.errors import Failure
from witness.cli.generations import known
from witness.cli.key_access import not_running, own_passphrase
from witness.cli.state import existing, pass_layout, read_config
from witness.core.keystore.door import KeyDoor
from witness.core.keystore.keychain import Keychain
from witness.core.layout import StateLayout


@click.command()
@click.option("--socket", "path", type=click.Path(path_type=Path), required=True, help="Where to listen.")
@click.option("--allow-uid", "uids", type=int, multiple=True, help="A user that may connect besides our own.")
@pass_layout
def serve(layout: StateLayout, *, path: Path, uids: tuple[int, ...]) -> None:
    """Cosign for a witness elsewhere (backend `remote`), with the keys of this state, until SIGTERM.

    Only well-formed cosignature messages under this witness's name are signed. Whether a checkpoint may be
    cosigned is judged by whoever connects: let nobody else.
    """
    config = read_config(existing(layout))
    with not_running(layout):
        keychain = Keychain.prepare(layout, passphrase=own_passphrase(layout), retired=known(layout).retired)
        try:
            logging.basicConfig(
                level=config.log.level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
            )
            asyncio.run(_serve(keychain, path, uids))
        finally:
            keychain.close()


async def _serve(keychain: Keychain, path: Path, uids: tuple[int, ...]) -> None:
    stop, lost = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keychain.open(asyncio.get_running_loop(), lost)
    door = KeyDoor(keychain.signers(), uids=uids)
    await door.start(path)
    ending = [asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())]
    try:
        for vkey in keychain.ring.vkeys:
            click.echo(f"vkey    {vkey}")
        click.echo(f"socket  {path}")
        sys.stdout.flush()
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ending:
            task.cancel()
        await door.stop()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # noqa: ASYNC240 - a socket file, at the very end
    if lost.is_set():
        raise Failure("the process that keeps the devices has ended")
