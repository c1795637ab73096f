"""State folders and in-process cores for tests, over the real store and the real soft keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulated_log import SimulatedLog
from witness.core.cosigner import Cosigner
from witness.core.keystore import softkey
from witness.core.keystore.base import Signer
from witness.core.layout import StateLayout
from witness.core.request import Limits
from witness.core.store import schema
from witness.core.store.base import Store
from witness.core.store.logs import LogBook, LogSettings
from witness.core.store.sqlite import SQLiteStore
from witness.core.witness import Witness
from witness.tlog.note import VerifierKey

NAME = "witness.example/w1"
IDENTITY = "0123456789abcdef"
ATTESTATION_SEED = bytes(range(200, 232))
START = 1_800_000_000


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_state(
    root: Path,
    *,
    name: str = NAME,
    algorithms: tuple[str, ...] = ("ed25519", "ml-dsa-44"),
    ed25519_seed: bytes | None = None,
    passphrase: str | None = None,
    attestation_seed: bytes | None = ATTESTATION_SEED,
) -> StateLayout:
    """A state folder as `witness init` makes it, without its witness.yaml."""
    root.mkdir(parents=True, exist_ok=True)
    layout = StateLayout(root)
    schema.create(layout.database, name=name, identity=IDENTITY, now=START)
    softkey.create(
        layout.softkey, name=name, identity=IDENTITY, passphrase=passphrase, algorithms=algorithms,
        ed25519_seed=ed25519_seed, attestation_seed=attestation_seed, scrypt_n=2**12,
    )  # fmt: skip
    return layout


def add_logs(layout: StateLayout, logs: Iterable[tuple[str, tuple[VerifierKey, ...]]]) -> None:
    """Configures logs by the store's own door for operators."""
    with LogBook(layout.database) as book, book.transaction():
        for origin, keys in logs:
            book.add(origin, keys, LogSettings(), source="test", now=START)


def trust(layout: StateLayout, *logs: SimulatedLog) -> None:
    """Configures simulated logs."""
    add_logs(layout, [(log.origin, log.vkeys) for log in logs])


@dataclass
class Running:
    """A core in the test's own process."""

    layout: StateLayout
    witness: Witness
    store: Store
    clock: Clock
    vkeys: tuple[VerifierKey, ...] = field(default=())


@contextlib.asynccontextmanager
async def core(
    layout: StateLayout,
    *,
    clock: Clock | None = None,
    limits: Limits | None = None,
    wrap_store: Callable[[Store], Store] = lambda store: store,
    wrap_signer: Callable[[Signer], Signer] = lambda signer: signer,
) -> AsyncIterator[Running]:
    """Runs the real witness over the real store; the wraps let a test watch or break either."""
    clock = clock or Clock()
    sqlite = SQLiteStore(layout.database)
    store = wrap_store(sqlite)
    signers = tuple(wrap_signer(s) for s in softkey.open_keystore(layout.softkey, None).signers())
    witness = Witness(store, Cosigner(signers), now=clock, limits=limits)
    await witness.start()
    try:
        yield Running(layout, witness, store, clock, tuple(s.vkey for s in signers))
    finally:
        await asyncio.wait_for(witness.stop(), 20)
        sqlite.close()
