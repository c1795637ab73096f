"""The core as a process: opened, tested, locked to its folder, serving until told to stop.

Order matters. Self-tests come first; then the lock, so that no second core ever reads or writes this
folder's state; then keys and state, which must belong together; then the process gives up all that it does
not need (`witness.core.lockdown`); and only then is the socket served.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import gc
import hashlib
import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from witness import __version__
from witness.core import selftest
from witness.core.continuity.guard import Guard
from witness.core.continuity.secret import sources_of
from witness.core.cosigner import Cosigner
from witness.core.keystore.base import KeyAbsent, KeyFileInvalid, KeystoreError, WrongSecret
from witness.core.keystore.devices import Deadlines
from witness.core.keystore.keychain import Keychain, credential
from witness.core.keystore.unlocking import UnlockPipe
from witness.core.layout import StateLayout
from witness.core.lockdown.sequence import CoreLockdown
from witness.core.lockdown.steps import RequirementUnmet
from witness.core.ownership import leave_to_folder
from witness.core.request import Limits
from witness.core.server import CoreServer, bind
from witness.core.settings import CoreSettings
from witness.core.status import StatusReporter
from witness.core.store import generations
from witness.core.store.base import StoreError
from witness.core.store.desk import Desk
from witness.core.store.sqlite import WAL_CHECKPOINT_PAGES, SQLiteStore
from witness.core.witness import Witness
from witness.tlog.note import VerifierKey

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.25
"""How often the core looks for what the command line changed."""
CREDENTIAL = "witness-passphrase"
"""The systemd credential with the passphrase, where neither a file nor the environment has it."""
WAL_SECONDS = 1.0
"""How often it considers copying the write-ahead log back."""


class AlreadyRunning(Exception):
    """Another core holds this state folder."""

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"another witness is running on {folder} (process {pid or 'unknown'})")
        self.hint = "one state folder has one witness: stop the other, or use another --state"


class StoreLost(Exception):
    """The store failed while running; what is on disk must be read anew by a fresh process."""


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Holds the one lock that lets a core use its state folder.

    The kernel drops it when the process ends, however it ends, so a lock never outlives its holder.

    Raises:
        AlreadyRunning: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        leave_to_folder(descriptor, path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise AlreadyRunning(path.parent, pid) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def read_passphrase(settings: CoreSettings) -> str | None:
    """The key file's passphrase from its file or environment variable, if either is there.

    A single final newline is not part of it. The variable is removed from our environment.

    Raises:
        OSError: the file named cannot be read.
        WrongSecret: it is not text in UTF-8.
    """
    file, variable = settings.passphrase_file, settings.passphrase_env
    if file is not None:
        try:
            return Path(file).read_text(encoding="utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise WrongSecret(f"the passphrase file {file} is not UTF-8 text") from error
    passphrase = os.environ.pop(variable, None)
    if passphrase is not None:
        try:
            passphrase.encode()
        except UnicodeEncodeError as error:  # the environment's undecodable bytes become lone surrogates
            raise WrongSecret(f"the passphrase in {variable} is not UTF-8 text") from error
    return passphrase if passphrase is not None else credential(CREDENTIAL)


async def serve(
    settings: CoreSettings,
    ready: Callable[[], None],
    stop: asyncio.Event,
    lockdown: CoreLockdown | None = None,
) -> None:
    """Runs the core until `stop` is set; `ready` is called once it answers.

    `lockdown`, of which `begin` has run, locks this process down for good; a test's process goes without.

    Raises:
        RequirementUnmet: a step of the lock-down that must be done cannot be.
        SelfTestFailed: an algorithm gave a wrong answer.
        AlreadyRunning: another core holds the folder.
        StoreError: the database is missing or not ours.
        KeystoreError: the keys cannot be opened.
        StoreLost: the store failed while running.
    """
    started = time.time()
    selftests = selftest.run()
    layout = StateLayout(Path(settings.state_dir))
    with folder_lock(layout.core_lock), ExitStack() as closing:
        record_all = settings.continuity.record_cosignatures == "all"
        store = SQLiteStore(layout.database, record_all=record_all)
        try:
            keystore = closing.enter_context(_keys(settings, layout))
            identity = store.identity()
            ring = keystore.ring
            if (identity.name, identity.identity) != (ring.name, ring.identity):
                raise KeyFileInvalid(
                    f"the database belongs to {identity.name} ({identity.identity}) and the keys to"
                    f" {ring.name} ({ring.identity})",
                    "restore the two from the same witness; a key is never used with another's state",
                )
            pipe = UnlockPipe(layout, keystore.unlock)
            if keystore.lockable:
                pipe.make()
            cosigner = Cosigner(keystore.signers())
            guard = Guard(
                database=layout.database,
                record=record_path(settings, layout),
                fallback_key=layout.records_key,
                settings=settings.continuity,
                identity=identity,
                signers=keystore.signers(),
                vkeys=ring.vkeys,
                counter=keystore.rollback_counter(),
                attestation=keystore.attestation_key,
                sources=sources_of(ring, keystore.signers(), layout.records_key),
                keys=KeysOfCore(keystore, cosigner),
            )
            listener = bind(layout.core_socket, others=bool(settings.front_uids))
            # Derive first, then lock: all that is needed of the world is open. No thread runs yet, and no
            # byte from outside has been read.
            steps = lockdown.finish() if lockdown is not None else ()
            front_uids = settings.front_uids or (lockdown.shows_root_as if lockdown is not None else ())
            lost = asyncio.Event()
            keystore.open(asyncio.get_running_loop(), lost)
            limits = Limits(settings.max_batch, settings.max_pending, settings.judge_threads)
            witness = Witness(store, cosigner, limits=limits)
            await witness.start()
            gc.freeze()  # what was loaded stays: the collector need not walk 100,000 logs again and again
            await guard.start(witness, start_facts(settings, selftests, cosigner.vkeys, witness))
            gc.freeze()
            reporter = StatusReporter(
                identity.name, witness, keystore, selftests=selftests, started=started, lockdown=steps,
                guard=guard, restarts=settings.restarts, hung=settings.hung,
            )  # fmt: skip
            server = CoreServer(witness, store, reporter, front_uids=front_uids, guard=guard)
            await server.start(listener)
            log.info(
                "core serves name=%s logs=%d heads=%d", identity.name, len(witness.book), witness.book.heads
            )
            if keystore.lockable:
                pipe.listen()
            ready()
            await _until_stopped(witness, store, guard, stop, lost)
            await pipe.close()
            await witness.stop()
            await guard.stop()
            await server.stop()
            layout.core_socket.unlink(missing_ok=True)
        finally:
            store.close()
        if witness.broken.is_set():
            raise StoreLost("; ".join(witness.unready()))
        if lost.is_set():
            raise KeyAbsent("the process that keeps the devices has ended")


def record_path(settings: CoreSettings, layout: StateLayout) -> Path:
    """Where the high-water record is, without its suffixes."""
    configured = settings.continuity.high_water
    return Path(configured) if configured is not None else layout.high_water


def start_facts(
    settings: CoreSettings, selftests: tuple[str, ...], vkeys: Sequence[VerifierKey], witness: Witness
) -> dict[str, Any]:
    """What the record says of a start."""
    chosen = dataclasses.replace(settings, restarts=0, hung=0)  # what the operator chose, and no more
    return {
        "version": __version__,
        "selftests": len(selftests),
        "settings": hashlib.sha256(chosen.to_json().encode()).hexdigest(),
        "vkeys": [f"{vkey.name}+{vkey.key_id.hex()}" for vkey in vkeys],
        "logs": len(witness.book),
        "heads": witness.book.heads,
        "issued": witness.last_issued,
    }


class KeysOfCore:
    """The keys as the guard sees them: generations that can be dropped and destroyed."""

    def __init__(self, keystore: Keychain, cosigner: Cosigner) -> None:
        self.generations = keystore.ring.generations
        self._keystore = keystore
        self._cosigner = cosigner

    def drop(self, vkeys: Collection[VerifierKey]) -> bool:
        """Signs with keys no more."""
        dropped = self._cosigner.drop(vkeys)
        self._keystore.forget(vkeys)
        return dropped

    def destroy(self, vkeys: Collection[VerifierKey]) -> tuple[str, ...]:
        """Destroys the secrets of keys; what could not be, a line each."""
        return self._keystore.destroy(vkeys)


@contextmanager
def _keys(settings: CoreSettings, layout: StateLayout) -> Iterator[Keychain]:
    """The keys that were not retired: all is read, and whatever must be is started, before the lock-down."""
    with Desk(layout.database) as desk:
        retired = generations.read(desk.connection).retired
    keychain = Keychain.prepare(
        layout,
        passphrase=read_passphrase(settings),
        wait=settings.wait_for_unlock,
        account=settings.lockdown.account,
        deadlines=Deadlines(open=settings.key_open_deadline, sign=settings.key_deadline),
        retired=retired,
    )
    try:
        keychain.delete_files(retired)  # what a core locked down may not have been able to
        yield keychain
    finally:
        keychain.close()


async def _until_stopped(
    witness: Witness, store: SQLiteStore, guard: Guard, stop: asyncio.Event, keys_lost: asyncio.Event
) -> None:
    """Runs the chores beside the requests; returns when told to stop, or when store or keys are lost."""
    tasks = [
        asyncio.create_task(stop.wait()),
        asyncio.create_task(witness.broken.wait()),
        asyncio.create_task(keys_lost.wait()),
        asyncio.create_task(_refresh(witness)),
        asyncio.create_task(_copy_wal(store)),
        asyncio.create_task(guard.run()),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a chore that failed ends the core, with its error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _refresh(witness: Witness) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        count = await witness.refresh()
        if count:
            log.info("configuration changed logs=%d", count)


async def _copy_wal(store: SQLiteStore) -> None:
    """Copies the write-ahead log back from a thread of its own, off every commit's path."""
    with ThreadPoolExecutor(1, "wal") as thread:
        while True:
            await asyncio.sleep(WAL_SECONDS)
            if store.wal_pages() > WAL_CHECKPOINT_PAGES:
                try:
                    await asyncio.get_running_loop().run_in_executor(thread, store.checkpoint_wal)
                except sqlite3.OperationalError as error:
                    log.warning("the write-ahead log was not copied back: %s", error)


def install_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT ask for a clean end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


FORESEEN = (
    selftest.SelfTestFailed, AlreadyRunning, StoreError, KeystoreError, RequirementUnmet, StoreLost, OSError,
    sqlite3.Error,
)  # fmt: skip
"""What may keep a core from serving, and is told in a line instead of a traceback."""
