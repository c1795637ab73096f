"""`witness keys rotate` and `witness keys statement`: new keys under the same name."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import click

from witness.cli.authority import authorised
from witness.cli.config import ALGORITHMS
from witness.cli.durations import seconds
from witness.cli.errors import Failure, TheAnswerIsNo, say_warning
from witness.cli.generations import known, signing
from witness.cli.key_access import own_passphrase
from witness.cli.key_generation import NewKeys, make_keys
from witness.cli.logs import json_option
from witness.cli.running import core_status
from witness.cli.state import existing, pass_layout
from witness.core.continuity import staging
from witness.core.continuity.rotating import DESTROYED, DESTROYING
from witness.core.keystore import keyring
from witness.core.keystore.attesting import attest, write_attestations
from witness.core.keystore.backend import BACKENDS
from witness.core.keystore.disposal import destroy_files
from witness.core.keystore.keychain import Keychain, secret_of
from witness.core.keystore.keyring import WITNESS, Ring
from witness.core.layout import StateLayout
from witness.core.store import alarms, generations
from witness.core.store.alarms import ONE_LOG
from witness.core.store.audit import Event, leave
from witness.core.store.desk import Desk
from witness.core.store.generations import Generation, Stage

PATIENCE: Final = 90.0
"""Seconds that a running core has to retire what was told to end."""
_POLL: Final = 0.1


@click.command()
@click.option(
    "--overlap", default="30d", show_default=True, metavar="DURATION",
    help="How long both generations sign, from when the new one begins: 90s, 15m, 24h, 7d; 0 for not at all.",
)  # fmt: skip
@click.option(
    "--algorithm", "algorithms", multiple=True, type=click.Choice(ALGORITHMS),
    help="A key to make, repeatable; without it those that there are.",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(("softkey", *BACKENDS)), help="Where the new keys are; else as now."
)
@click.option(
    "-o", "--option", "options", multiple=True, metavar="NAME=VALUE", help="As with `witness init`."
)
@click.option("--secret", metavar="env:NAME|file:PATH|credential:NAME", help="As with `witness init`.")
@click.option(
    "--soft", multiple=True, type=click.Choice(ALGORITHMS), help="A key to keep in a key file; repeatable."
)
@click.option("--finish", is_flag=True, help="End the overlap now: the old generation is retired.")
@json_option
@pass_layout
def rotate(layout: StateLayout, /, **options: Any) -> None:
    """Make a new generation of keys under the same name, to follow the present one.

    The new keys begin to sign at the next start of the witness, beside the old ones until the overlap is
    over; then the old ones are retired for good, and their secrets destroyed where that can be done. The old
    keys sign a statement that names the new: `witness keys statement` prints it. Name, logs, heads and
    records stay.
    """
    existing(layout)
    if options["finish"]:
        _finish(layout)
        return
    overlap = seconds("--overlap", options["overlap"])
    with _alone(layout), Desk(layout.database) as desk:
        ring = keyring.read(layout)
        _must_be_free(layout, desk)
        now = int(time.time())
        authorised(layout, desk, "rotate", {}, now)
        staged = _stage(layout, desk, ring, NewKeys.of(options), overlap=overlap, now=now)
    _tell(layout, staged, as_json=options["as_json"])


@click.command()
@pass_layout
def statement(layout: StateLayout) -> None:
    """Print the latest statement in which old keys name the new, for `witness verify --witness OLDVKEY`."""
    found = [row.statement for row in known(existing(layout)) if row.statement is not None]
    if not found:
        raise TheAnswerIsNo("the keys were never rotated", "witness keys list prints them")
    sys.stdout.buffer.write(found[-1])
    sys.stdout.flush()


@contextmanager
def _alone(layout: StateLayout) -> Iterator[None]:
    """One rotation is staged at a time."""
    folder = os.open(layout.keys, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Failure("another witness keys rotate is at work on this state") from error
    finally:
        os.close(folder)


def _must_be_free(layout: StateLayout, desk: Desk) -> None:
    for row in known(layout).retiring:
        raise TheAnswerIsNo(
            f"a rotation is under way: generation {row.number} is still retiring",
            "witness keys rotate --finish ends its time",
        )
    for alarm in alarms.standing(desk):
        if alarm.kind not in ONE_LOG:
            raise TheAnswerIsNo(f"an alarm stands: {alarm}", "witness recover leads out of it; rotate then")


def _stage(
    layout: StateLayout, desk: Desk, ring: Ring, wanted: NewKeys, *, overlap: int, now: int
) -> staging.Staged:  # fmt: skip
    found = known(layout)
    number = staging.next_number(layout, ring, found)
    present = signing(layout)
    hidden = {str(vkey) for vkey in ring.vkeys} - {str(vkey) for vkey in present.vkeys}
    passphrase = own_passphrase(layout)
    # Before the environment is cleared of them.
    secrets = {device.name: secret_of(device, passphrase) for device in ring.devices}
    with closing(
        Keychain.prepare(
            layout, passphrase=passphrase, retired=hidden, statements=True, secrets=secrets
        )
    ) as old:  # fmt: skip
        old.open()
        made = make_keys(layout, ring, present, wanted, number, passphrase=passphrase, device_secrets=secrets)
        try:
            grown = staging.with_generation(ring, made.devices, made.keys)
            others = {str(vkey) for vkey in ring.vkeys}
            with closing(
                Keychain.prepare(
                    layout, passphrase=passphrase, retired=others, ring=grown, statements=True,
                    secrets=made.secrets,
                )
            ) as new:  # fmt: skip
                new.open()
                staged = staging.prepare(
                    layout, grown, number, old.signers(), new.signers(), overlap=overlap, now=now
                )
        except BaseException:
            made.discard()
            raise
    # From here on the ring may name the new keys, whatever fails: nothing is taken back.
    staging.commit(layout, desk, staged, now)
    attested = attest(staged.ring.only(lambda key: key.rotation == number), made.attesting)
    write_attestations(layout.attestations, attested)
    return staged


def _tell(layout: StateLayout, staged: staging.Staged, *, as_json: bool) -> None:
    vkeys = [key.vkey for key in staged.ring.keys if key.purpose == WITNESS and key.rotation == staged.number]
    for line in staged.stated.unsigned:
        say_warning(f"the statement is not signed by {line}")
    running = core_status(layout) is not None
    if as_json:
        facts = {
            "generation": staged.number,
            "vkeys": [str(vkey) for vkey in vkeys],
            "overlap": staged.overlap,
            "running": running,
        }
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    for vkey in vkeys:
        click.echo(str(vkey))
    words = "restart the witness, and it begins to sign" if running else "it begins to sign at the next start"
    click.echo(f"staged generation {staged.number}: {words}", err=True)


def _finish(layout: StateLayout) -> None:
    now = int(time.time())
    with Desk(layout.database) as desk:
        found = known(layout)
        if not found.retiring:
            if found.staged is not None:
                raise TheAnswerIsNo(
                    f"generation {found.staged.number} is staged and signs nothing yet",
                    "restart the witness: then both sign, and the old one can be retired",
                )
            raise TheAnswerIsNo("no rotation is under way", "witness keys rotate begins one")
        authorised(layout, desk, "rotate", {}, now)
        with desk.transaction() as connection:
            ended = generations.finish(connection, now)
            leave(connection, Event("rotation-finish", {"generations": [row.number for row in ended]}), now)
        names = ", ".join(str(row.number) for row in ended)
        if core_status(layout) is None:
            click.echo(f"generation {names} is retired at the next start, before anything is signed")
            return
        _await_retired(layout, ended)
        _delete_files(layout, desk, ended)
    click.echo(f"generation {names} is retired: it never signs again")
    rotation = _rotation(layout)
    if rotation:
        say_warning(rotation)


def _delete_files(layout: StateLayout, desk: Desk, ended: tuple[Generation, ...]) -> None:
    """Deletes the retired key files, which a core that is a user of its own may not."""
    ring = keyring.read(layout)
    for row in ended:
        mine = [key for key in ring.witness_keys if key.rotation == row.number]
        gone = {str(key.vkey) for key in mine}
        if not destroy_files(layout, ring, gone) and all(key.how == "soft" for key in mine):
            desk.set_fact(f"{DESTROYED}{row.number}", "1")
            # Should it take too long, the core's own warning is what the operator is told.
            told = f"generation {row.number} is retired, and"
            _wait_while(functools.partial(_tells, layout, told))


def _tells(layout: StateLayout, words: str) -> bool:
    return words in _rotation(layout)


def _rotation(layout: StateLayout) -> str:
    status = core_status(layout)
    return status.rotation if status is not None else ""


def _is_under_way(layout: StateLayout, numbers: set[int]) -> bool:
    if any(row.number in numbers and row.stage is not Stage.RETIRED for row in known(layout)):
        return True
    return _tells(layout, DESTROYING)


def _await_retired(layout: StateLayout, ended: tuple[Generation, ...]) -> None:
    numbers = {row.number for row in ended}
    if not _wait_while(lambda: _is_under_way(layout, numbers)):
        raise Failure(
            f"the witness did not retire it within {PATIENCE:g} s", "witness status says what hinders it"
        )


def _wait_while(condition: Callable[[], bool]) -> bool:
    """Waits until a condition no longer holds; False where it still does after `PATIENCE`."""
    until = time.monotonic() + PATIENCE
    while condition():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True
