"""The core's door under arbitrary bytes: every request gets a value or a documented refusal.

A bug in the core would show as `InternalError`, as a traceback in its log, or as its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.processes import CoreProcess, SocketClient, short_folder
from tests.core.state import make_state, trust
from tests.crash.promise import Ledger
from tests.rules.test_rule_06_strict import mutations
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.keystore import softkey
from witness.core.refusals import CoreError, InternalError
from witness.core.wire import MAX_REQUEST, Verb, decode_changes, decode_logs, decode_status, encode_frame
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import SignatureType

KINDS = (
    SignatureType.ED25519, SignatureType.ECDSA, SignatureType.RFC6962, SignatureType.COSIGNATURE_MLDSA44
)  # fmt: skip
ORIGINS = [f"fuzz.example/{int(kind)}" for kind in KINDS]
LOGS = [SimulatedLog(o, size=9, keys=[SimulatedKey(o, kind)]) for o, kind in zip(ORIGINS, KINDS, strict=True)]
GOOD = [log.add_checkpoint(old) for log in LOGS for old in (0, 5, 9)]
SUBTREES = [log.sign_subtree(4, 8, log.checkpoint()) for log in LOGS]
READERS: dict[int, Callable[[bytes], object]] = {
    Verb.STATUS: decode_status, Verb.LOGS: decode_logs, Verb.CHANGES: decode_changes
}  # fmt: skip
WIDE = '{"epoch": "x", "sequence": 1}'.encode("utf-16-be")
DEEP = [WIDE, b"\x00l", b"[" * 50_000, b'{"epoch":' * 9000, b"9" * 5000, b'{"epoch": "x", "sequence": -1}']

bodies = st.one_of(
    st.sampled_from(GOOD + SUBTREES).flatmap(mutations),
    st.sampled_from(GOOD + SUBTREES),
    st.binary(max_size=300),
    st.sampled_from(DEEP),
    st.sampled_from([origin_hash(origin) for origin in ORIGINS]),
)
requests = st.tuples(st.sampled_from(list(Verb)) | st.integers(0, 255), bodies)


class Door:
    """A running core with its ledger."""

    def __init__(self, core: CoreProcess) -> None:
        self.core = core
        layout = core.layout
        vkeys = softkey.read_public(layout.softkey).vkeys
        self.ledger = Ledger(vkeys, {log.origin: [log] for log in LOGS})

    def connect(self) -> SocketClient:
        return SocketClient(self.core.layout.core_socket)

    def check(self, verb: int, body: bytes, answer: bytes | CoreError) -> None:
        assert not isinstance(answer, InternalError), (verb, body)
        if isinstance(answer, CoreError):
            return
        if verb == Verb.ADD_CHECKPOINT:
            self.ledger.answered(body, answer)
        elif verb == Verb.CHECKPOINT:
            self.ledger.served(answer)
        elif verb == Verb.SIGN_SUBTREE:
            assert answer.startswith("— ".encode())
        elif verb in READERS:
            READERS[verb](answer)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with short_folder() as folder:
        layout = make_state(folder)
        trust(layout, *LOGS)
        with CoreProcess(layout) as core:
            door = Door(core)
            yield door
            assert core.stop() == 0
        assert "Traceback" not in core.said()
        door.ledger.check_state(layout.database)


def _requests(door: Door, batch: list[tuple[int, bytes]]) -> None:
    """All of them in flight at once on one connection: each is answered once."""
    with door.connect() as client:
        sent = [(verb, body, client.send(verb, body)) for verb, body in batch]
        for verb, body, number in sent:
            door.check(verb, body, client.receive(number))
    assert door.core.alive


def _bytes(door: Door, chunks: list[bytes]) -> None:
    """Bytes that need not be frames: the connection may be closed, and others go on."""
    with door.connect() as client, door.connect() as other:
        try:
            for chunk in chunks:
                client.socket.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = other.ask(Verb.STATUS)
        assert isinstance(answer, bytes)
    assert door.core.alive


frames = st.builds(
    encode_frame, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=100) | bodies
)
headers = st.integers(0, 2**32 - 1).map(lambda length: length.to_bytes(4, "big") + bytes(5))
wild = st.lists(st.one_of(st.binary(max_size=40), frames, headers), min_size=1, max_size=8)
batches = st.lists(requests, min_size=1, max_size=12)


def short(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@short(150)
@given(batch=batches)
def test_any_request_is_answered(door: Door, batch: list[tuple[int, bytes]]) -> None:
    _requests(door, batch)


@short(150)
@given(chunks=wild)
def test_any_bytes_spoil_their_own_connection_at_most(door: Door, chunks: list[bytes]) -> None:
    _bytes(door, chunks)


def test_the_bodies_that_are_mutated_are_good_ones(door: Door) -> None:
    """Else the fuzzing would miss the door."""
    before = door.ledger.answers
    _requests(door, [(Verb.ADD_CHECKPOINT, log.add_checkpoint(old)) for log in LOGS for old in (0, 9)])
    assert door.ledger.answers >= before + len(LOGS)
    _requests(door, [(Verb.CHECKPOINT, origin_hash(log.origin)) for log in LOGS])
    assert door.ledger.answers >= before + 2 * len(LOGS)


def test_the_largest_bodies(door: Door) -> None:
    size = MAX_REQUEST - 5
    largest = [
        b"\n" * size,
        b"old 0\n\n" + b"x\n" * ((size - 7) // 2),
        (GOOD[0] * 200)[:size],
        b"\xff" * size,
    ]
    _requests(door, [(verb, body) for verb in Verb for body in largest])


@pytest.mark.campaign
@short(20_000)
@given(batch=batches)
def test_any_request_is_answered_for_long(door: Door, batch: list[tuple[int, bytes]]) -> None:
    _requests(door, batch)


@pytest.mark.campaign
@short(20_000)
@given(chunks=wild)
def test_any_bytes_for_long(door: Door, chunks: list[bytes]) -> None:
    _bytes(door, chunks)
