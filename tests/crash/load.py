"""Clients that keep a core busy with logs that grow, fork and lie, and report to a ledger what they see."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.core.processes import SocketClient
from tests.crash.promise import Ledger
from tests.simulated_log import SimulatedLog
from witness.core.refusals import CoreError, RootMismatch, StaleOldSize
from witness.core.wire import Verb
from witness.tlog.checkpoint import origin_hash


class Failed(Protocol):
    """A client that may have met what must never be."""

    failure: BaseException | None


def enough(ledger: Ledger, wanted: int, clients: Sequence[Failed]) -> bool | None:
    """For polling: whether so many answers have been seen. What a client met is raised at once."""
    for client in clients:
        if client.failure is not None:
            raise client.failure
    return ledger.answers >= wanted or None


class Story:
    """One log with two histories, and what its operator believes of the witness."""

    def __init__(self, origin: str, size: int = 400) -> None:
        self.truth = SimulatedLog(origin, size=size)
        self.lie = self.truth.fork(size // 4)
        self.lie.append(size - size // 4)
        self.known = 0

    @property
    def origin(self) -> str:
        return self.truth.origin

    def body(self, choose: random.Random) -> bytes:
        """Mostly the truth, now and then a lie."""
        old = self.known
        new = min(self.truth.size, old + choose.randint(0, 3))
        kind = choose.random()
        if kind < 0.75:
            return self.truth.add_checkpoint(old, new)
        if kind < 0.85:
            return self.lie.add_checkpoint(old, new)
        if kind < 0.95:
            return self.lie.add_checkpoint(old, new, proof=self.truth.proof(old, new))
        return self.truth.add_checkpoint(max(0, old - 1), new)

    def learn(self, body: bytes, answer: bytes | CoreError) -> None:
        if isinstance(answer, bytes):
            self.known = int(body.partition(b"\n\n")[2].split(b"\n")[1])
        elif isinstance(answer, StaleOldSize):
            self.known = answer.known
        elif isinstance(answer, RootMismatch):
            self.known = answer.size


class Loader(threading.Thread):
    """One client on a connection of its own, with several requests in flight, until the core is gone."""

    def __init__(self, path: Path, stories: list[Story], ledger: Ledger, seed: int) -> None:
        super().__init__(daemon=True)
        self._path, self._stories, self._ledger = path, stories, ledger
        self._choose = random.Random(seed)
        self.failure: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            with SocketClient(self._path) as client:
                while not self.stop.is_set():
                    self._round(client)
        except (ConnectionError, FileNotFoundError, BrokenPipeError):
            pass  # killed: what was in flight is unknown to its clients, which is what the test is about
        except BaseException as error:
            self.failure = error

    def _round(self, client: SocketClient) -> None:
        sent = []
        for story in self._stories:
            body = story.body(self._choose)
            sent.append((story, body, client.send(Verb.ADD_CHECKPOINT, body)))
        for story, body, number in sent:
            answer = client.receive(number)
            if isinstance(answer, bytes):
                self._ledger.answered(body, answer)
            story.learn(body, answer)
        served = client.ask(Verb.CHECKPOINT, origin_hash(self._stories[0].origin))
        if isinstance(served, bytes):
            self._ledger.served(served)
