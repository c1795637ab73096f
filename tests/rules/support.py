"""What the tests of the rules share: stores and signers that watch, wait or fail around the real ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.core.state import Running, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.keystore.base import KeystoreError, Signer
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError
from witness.core.store.base import Advance, Contradiction, Store
from witness.tlog.note import VerifierKey

DEADLINE = 20

_T = TypeVar("_T")


def state(folder: Path, *logs: SimulatedLog, algorithms: tuple[str, ...] = ("ed25519",)) -> StateLayout:
    """A state folder that trusts the logs; with one key, which is quicker."""
    layout = make_state(folder, algorithms=algorithms)
    trust(layout, *logs)
    return layout


async def answer(running: Running, body: bytes) -> bytes | CoreError:
    """What an add-checkpoint body is answered, errors as values."""
    try:
        return await asyncio.wait_for(running.witness.add_checkpoint(body), DEADLINE)
    except CoreError as error:
        return error


async def subtree_answer(running: Running, body: bytes) -> bytes | CoreError:
    try:
        return await asyncio.wait_for(running.witness.sign_subtree(body), DEADLINE)
    except CoreError as error:
        return error


async def until(condition: Callable[[], Any]) -> None:
    """Waits for a condition, and fails at the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


async def turns(count: int = 200) -> None:
    """Lets the loop run, so that whatever is ready to happen happens."""
    for _ in range(count):
        await asyncio.sleep(0)


async def all_of(*awaitables: Awaitable[_T]) -> list[_T]:
    return list(await asyncio.wait_for(asyncio.gather(*awaitables), DEADLINE))


class StoreAround:
    """The real store; a subclass overrides what it watches or breaks."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        return self.store.advance(moves)

    def keep_contradiction(self, contradiction: Contradiction) -> bool:
        return self.store.keep_contradiction(contradiction)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Gate:
    """Holds whoever passes until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def __call__(self) -> None:
        self.reached.set()
        assert self._open.wait(DEADLINE), "nobody opened the gate"


class RecordingSigner:
    """Notes every message that reaches the key; fails when told to."""

    def __init__(self, signer: Signer, into: list[tuple[VerifierKey, bytes]]) -> None:
        self._signer = signer
        self._into = into
        self.fault: KeystoreError | None = None

    @property
    def vkey(self) -> VerifierKey:
        return self._signer.vkey

    def sign(self, message: bytes) -> bytes:
        self._into.append((self.vkey, message))
        if self.fault is not None:
            raise self.fault
        return self._signer.sign(message)
