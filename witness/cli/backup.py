"""`witness backup` and `witness restore`: a copy that is whole, and one that cannot rewind the witness.

Rules of this file:

- A backup is made by SQLite's own online backup: one moment's state, while the witness runs.
- A restored state signs nothing before it was compared with the high-water record and, where that tells of
  more, brought forward. It says so of itself, in a fact that only `witness recover` takes away.
- The high-water record is never restored: it is what tells an old state from the latest.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import click

from witness.cli.errors import Failure, say_warning
from witness.cli.output import when
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring
from witness.core.layout import StateLayout
from witness.core.store import schema
from witness.core.store.audit import Event, leave


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_layout
def backup(layout: StateLayout, file: Path) -> None:
    """Copy the database to FILE, whole, while the witness runs.

    Keys and witness.yaml are not in it: keep a copy of the keys folder, once, where nobody else reads it. The
    high-water record is not in it either, and must not be.
    """
    existing(layout)
    schema.check(layout.database)
    if file.exists():
        raise Failure(f"{file} exists already", "a backup never overwrites another")
    building = file.with_name(f".{file.name}.part")
    descriptor = os.open(building, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    try:
        with (
            closing(sqlite3.connect(f"file:{layout.database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(building, isolation_level=None)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
            target.execute(
                "INSERT INTO facts VALUES ('backup', ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (str(int(time.time())),),
            )
        _sync(building)
        building.rename(file)
        _sync(file.absolute().parent)
    except BaseException:
        building.unlink(missing_ok=True)
        raise
    with closing(sqlite3.connect(layout.database, isolation_level=None, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        leave(connection, Event("backup", {"file": str(file.absolute())}), int(time.time()))
        connection.execute("COMMIT")
    click.echo(f"backed up to {file}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@pass_layout
def restore(layout: StateLayout, file: Path) -> None:
    """Put a backup in place of a lost or damaged database; it signs nothing until it was brought forward.

    The database that stands there, if any, is kept beside it. The witness must not run.
    """
    ring = keyring.read(existing(layout))
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as source:
        try:
            identity = source.execute("SELECT name, identity FROM identity").fetchone()
            made = source.execute("SELECT value FROM facts WHERE name = 'backup'").fetchone()
        except sqlite3.DatabaseError as error:
            raise Failure(f"{file} is no backup of a witness: {error}") from error
    if identity != (ring.name, ring.identity):
        raise Failure(f"{file} is a backup of {identity[0]}, and the keys are {ring.name}'s")
    if made is None:
        raise Failure(f"{file} was not made by witness backup", "a copied database file may be torn")
    now = int(time.time())
    descriptor = os.open(layout.core_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failure(
                "the witness runs", "stop it first: a running core must not lose its database"
            ) from error
        _replace(layout, file, int(made[0]), now)
    finally:
        os.close(descriptor)
    click.echo(f"restored the state of {when(int(made[0]))}")
    say_warning(
        "it signs nothing until it was compared and brought forward: witness run, then witness recover"
    )


def _replace(layout: StateLayout, file: Path, made: int, now: int) -> None:
    database = layout.database
    building = database.with_name(f".{database.name}.restore")
    building.unlink(missing_ok=True)
    os.close(os.open(building, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(building, isolation_level=None)) as target,
    ):
        source.backup(target)
        target.execute("BEGIN IMMEDIATE")
        target.execute(
            "INSERT INTO facts VALUES ('restored', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (str(made),),
        )
        target.execute("DELETE FROM facts WHERE name = 'backup'")
        leave(target, Event("restored", {"file": str(file.absolute()), "made": made}), now)
        target.execute("COMMIT")
        target.execute("PRAGMA journal_mode = WAL")
    _sync(building)
    for suffix in ("-wal", "-shm", ""):
        old = database.with_name(database.name + suffix)
        if old.exists():
            old.rename(database.with_name(f"{database.name}.replaced-{now}{suffix}"))
    for suffix in ("-wal", "-shm"):
        building.with_name(building.name + suffix).unlink(missing_ok=True)
    building.rename(database)
    _sync(layout.root)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
