"""A machine that plays honest and lying logs, operators, restarts and kills against the real core process.

Single requests are held against a model that knows the specification's answer; bursts, kills and restarts
against the ledger, which knows only the promise.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.core.processes import CoreProcess, SocketClient, poll
from tests.core.state import make_state, trust
from tests.crash.promise import Ledger
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.keystore import softkey
from witness.core.refusals import (
    CoreError,
    DisabledLog,
    InvalidProof,
    InvalidSignature,
    MalformedRequest,
    NoTrustedSignature,
    OldSizeTooLarge,
    RootMismatch,
    StaleOldSize,
)
from witness.core.store.logs import LogBook
from witness.core.wire import Verb
from witness.tlog import merkle
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import SignatureType

SIZE = 24
LOGS = 3
STRANGER = SimulatedKey("stranger.example")
KEY_TYPES = (SignatureType.ED25519, SignatureType.ECDSA, SignatureType.RFC6962)

logs = st.integers(0, LOGS - 1)
sizes = st.integers(0, SIZE)
steps = st.integers(0, 5)
histories = st.integers(0, 2)


@dataclass
class Actor:
    """A log with all the histories it may tell, and the model of what the witness knows of it."""

    tales: list[SimulatedLog]
    head: tuple[int, bytes] | None = None
    disabled: bool = False

    @property
    def origin(self) -> str:
        return self.tales[0].origin

    @property
    def known(self) -> int:
        return self.head[0] if self.head else 0

    def expected(self, tale: SimulatedLog, old: int, new: int, proof: tuple[bytes, ...]) -> CoreError | None:
        """What the specification has a witness answer; None for a cosignature."""
        root = tale.root(new)
        if self.disabled:
            return DisabledLog(self.origin)
        if old > new:
            return OldSizeTooLarge(old, new)
        if old != self.known:
            return StaleOldSize(self.known)
        if self.head is not None and new == self.head[0] and root != self.head[1]:
            return RootMismatch(self.origin, new)
        old_root = self.head[1] if self.head else merkle.EMPTY_ROOT
        try:
            merkle.verify_consistency(old, new, old_root, root, proof)
        except merkle.InvalidProof as error:
            return InvalidProof(old, new, error.reason)
        return None


class WitnessMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="wit", dir="/tmp"))
        self.actors = [self._actor(number) for number in range(LOGS)]
        self.layout = make_state(self.folder, algorithms=("ed25519",))
        trust(self.layout, *(actor.tales[0] for actor in self.actors))
        self.ledger = Ledger(
            softkey.read_public(self.layout.softkey).vkeys,
            {actor.origin: actor.tales for actor in self.actors},
        )
        self.core: CoreProcess | None = None
        self.client: SocketClient | None = None

    @staticmethod
    def _actor(number: int) -> Actor:
        origin = f"machine.example/{number}"
        truth = SimulatedLog(origin, size=SIZE, keys=[SimulatedKey(origin, KEY_TYPES[number])])
        tales = [truth]
        for at in (SIZE // 4, SIZE // 2):
            tale = truth.fork(at)
            tale.append(SIZE - at)
            tales.append(tale)
        return Actor(tales)

    def teardown(self) -> None:
        try:
            self._end()
            self.ledger.check_state(self.layout.database)
        finally:
            if self.core is not None:
                self.core.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    @initialize()
    def start(self) -> None:
        self.core = CoreProcess(self.layout)
        self.core.__enter__()
        self.client = SocketClient(self.layout.core_socket)

    def _ask(self, body: bytes) -> bytes | CoreError:
        assert self.client is not None
        answer = self.client.add_checkpoint(body)
        if isinstance(answer, bytes):
            self.ledger.answered(body, answer)
        return answer

    def _send(self, actor: Actor, tale: SimulatedLog, old: int, new: int, proof: tuple[bytes, ...]) -> None:
        """One request, whose answer the model knows."""
        want = actor.expected(tale, old, new, proof)
        answer = self._ask(tale.add_checkpoint(old, new, proof=proof))
        if want is None:
            assert isinstance(answer, bytes), answer
            actor.head = (new, tale.root(new))
        else:
            assert answer == want

    # --- what logs do -----------------------------------------------------------------------------------

    @rule(log=logs, tale=histories, more=steps)
    def grow(self, log: int, tale: int, more: int) -> None:
        """Honest if it is the history first told, else a fork with the fork's own proof."""
        actor = self.actors[log]
        told, new = actor.tales[tale], min(SIZE, actor.known + more)
        self._send(actor, told, actor.known, new, told.proof(actor.known, new))

    @rule(log=logs, tale=histories, other=histories, more=steps)
    def prove_with_another_history(self, log: int, tale: int, other: int, more: int) -> None:
        actor = self.actors[log]
        new = min(SIZE, actor.known + more)
        self._send(actor, actor.tales[tale], actor.known, new, actor.tales[other].proof(actor.known, new))

    @rule(log=logs, tale=histories, old=sizes, new=sizes)
    def claim_any_sizes(self, log: int, tale: int, old: int, new: int) -> None:
        """Stale, future, rolled back, the same again."""
        actor = self.actors[log]
        told = actor.tales[tale]
        self._send(actor, told, old, new, told.proof(min(old, new), new))

    @rule(log=logs, more=steps, spoil=st.integers(0, 9), cut=st.booleans())
    def spoil_the_proof(self, log: int, more: int, spoil: int, *, cut: bool) -> None:
        actor = self.actors[log]
        told, new = actor.tales[0], min(SIZE, actor.known + more)
        proof = list(told.proof(actor.known, new))
        if cut and proof:
            proof.pop(spoil % len(proof))
        else:
            proof.insert(spoil % (len(proof) + 1), bytes(32))
        self._send(actor, told, actor.known, new, tuple(proof))

    @rule(log=logs, more=steps, kind=st.sampled_from(["wrongly", "stranger", "both", "garbage"]))
    def sign_wrongly(self, log: int, more: int, kind: str) -> None:
        actor = self.actors[log]
        told, new = actor.tales[0], min(SIZE, actor.known + more)
        told.sign_wrongly = kind in ("wrongly", "both")
        keys = {"stranger": [STRANGER], "both": [STRANGER, *told.keys]}.get(kind)
        body = told.add_checkpoint(actor.known, new, keys=keys)
        told.sign_wrongly = False
        want: type[CoreError] = NoTrustedSignature if kind == "stranger" else InvalidSignature
        if kind == "garbage":
            body, want = body[:-3], MalformedRequest
        if actor.disabled and want is not MalformedRequest:
            want = DisabledLog
        assert type(self._ask(body)) is want

    # --- what clients do --------------------------------------------------------------------------------

    def _burst(self, moves: list[tuple[int, int, int]]) -> list[tuple[bytes, int]]:
        assert self.client is not None
        sent = []
        for log, tale, more in moves:
            actor = self.actors[log]
            told, new = actor.tales[tale], min(SIZE, actor.known + more)
            body = told.add_checkpoint(actor.known, new)
            sent.append((body, self.client.send(Verb.ADD_CHECKPOINT, body)))
        return sent

    def _learn(self) -> None:
        """Takes the heads from the disk, once the ledger has approved of them."""
        self.ledger.check_state(self.layout.database)
        for actor in self.actors:
            head = self.ledger.disk.get(actor.origin)
            actor.head = (head.size, head.root) if head else None

    @rule(moves=st.lists(st.tuples(logs, histories, steps), min_size=2, max_size=12))
    def many_at_once(self, moves: list[tuple[int, int, int]]) -> None:
        assert self.client is not None
        for body, number in self._burst(moves):
            answer = self.client.receive(number)
            if isinstance(answer, bytes):
                self.ledger.answered(body, answer)
        self._learn()

    @rule(log=logs)
    def read(self, log: int) -> None:
        assert self.client is not None
        actor = self.actors[log]
        served = self.client.ask(Verb.CHECKPOINT, origin_hash(actor.origin))
        if actor.head is None:
            assert isinstance(served, CoreError)
        else:
            assert isinstance(served, bytes)
            found = self.ledger.served(served)
            assert (found.size, found.root) == actor.head

    # --- what operators do ------------------------------------------------------------------------------

    @rule(log=logs)
    def switch(self, log: int) -> None:
        actor = self.actors[log]
        actor.disabled = not actor.disabled
        with LogBook(self.layout.database) as book, book.transaction():
            book.set_disabled(actor.origin, disabled=actor.disabled)
        # A question that moves nothing: an old size beyond the checkpoint's.
        body = actor.tales[0].add_checkpoint(1, 0, proof=())
        poll(
            "the change is noticed", lambda: (type(self._ask(body)) is DisabledLog) == actor.disabled or None
        )

    # --- what befalls the process -----------------------------------------------------------------------

    def _restart(self) -> None:
        self._end()
        self._learn()
        self.start()

    @rule()
    def restart(self) -> None:
        assert self.core is not None
        assert self.core.stop() == 0, self.core.said()
        self._restart()

    @rule(moves=st.lists(st.tuples(logs, histories, steps), max_size=12), wait_for=st.integers(0, 12))
    def kill(self, moves: list[tuple[int, int, int]], wait_for: int) -> None:
        """SIGKILL with requests in flight, after some of their answers have come."""
        assert self.core is not None
        assert self.client is not None
        for body, number in self._burst(moves)[:wait_for]:
            answer = self.client.receive(number)
            if isinstance(answer, bytes):
                self.ledger.answered(body, answer)
        self.core.signal(signal.SIGKILL)
        assert self.core.wait() == -signal.SIGKILL
        self._restart()


def bounded(examples: int, count: int, *, shrink: bool) -> settings:
    """Shrinking starts processes for minutes: it is for whoever has the time."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate] + [Phase.shrink] * shrink
    return settings(
        max_examples=examples,
        stateful_step_count=count,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
def test_machine() -> None:
    run_state_machine_as_test(WitnessMachine, settings=bounded(8, 22, shrink=False))


@pytest.mark.campaign
def test_machine_for_long() -> None:
    run_state_machine_as_test(WitnessMachine, settings=bounded(300, 60, shrink=True))
