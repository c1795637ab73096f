"""Rule 9: the core has no verb that exports a key and none that signs bytes of the caller's choosing.

The guard: `Verb` (witness/core/wire.py), which lists all that can be asked, and `Cosigner`
(witness/core/cosigner.py), the only holder of signers, which builds every message from a parsed and judged
checkpoint or subtree. The attestation key (witness/core/keystore/attestation.py) signs no checkpoints, and
what it signs it builds of checked values likewise: tests/core/keystore/test_attestation.py.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.core.processes import CoreProcess, SocketClient, short_folder
from tests.core.state import ATTESTATION_SEED, NAME, START, core, make_state, trust
from tests.rules.support import RecordingSigner, answer, state, subtree_answer
from tests.rules.test_rule_06_strict import mutations
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core.refusals import CoreError, MalformedRequest
from witness.core.wire import Verb
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint, parse_checkpoint
from witness.tlog.note import SignatureType, VerifierKey

ORIGIN = "rule.example/9"
SEED = bytes(range(100, 132))


def test_these_are_all_the_verbs() -> None:
    """A further verb must be argued here: what does a front in an attacker's hands gain by it?"""
    assert [verb.name for verb in Verb] == [
        "ADD_CHECKPOINT", "SIGN_SUBTREE", "CHECKPOINT", "STATUS", "LOGS", "CHANGES",
        # SEEN takes a checkpoint with our own cosignature, which nobody else can make; all it ever does is
        # stop signing. COMPARED ends a wait at the start that ends by itself in any case.
        "SEEN", "COMPARED",
    ]  # fmt: skip


def test_only_the_cosigner_calls_a_signer() -> None:
    """`.sign(` in the core: in cosigner.py, in the backends themselves, and in the self-tests' own keys."""
    callers = set()
    for file in (ROOT / "witness" / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "sign"
            ):
                callers.add(file.relative_to(ROOT / "witness" / "core").as_posix())
    outside = {name for name in callers if not name.startswith("keystore/")}
    assert outside == {"cosigner.py", "selftest.py"}


@dataclass(frozen=True)
class Signed:
    """What a message says, read independently of the code that wrote it."""

    timestamp: int
    origin: str
    start: int
    end: int
    root: bytes
    extensions: tuple[str, ...] = ()


def read_ed25519(message: bytes) -> Signed:
    header, time, text = message.split(b"\n", 2)
    assert header == b"cosignature/v1"
    word, number = time.split(b" ")
    assert word == b"time"
    assert str(int(number)).encode() == number
    checkpoint = parse_checkpoint(text)
    assert checkpoint.text() == text
    c = checkpoint
    return Signed(int(number), c.origin, 0, c.size, c.root, c.extensions)


def read_mldsa44(message: bytes) -> Signed:
    label, rest = message[:12], message[12:]
    assert label == b"subtree/v1\n\0"
    name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    assert name.decode() == NAME, "always under our own name"
    timestamp, rest = int.from_bytes(rest[:8], "big"), rest[8:]
    origin, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    start, end = struct.unpack(">QQ", rest[:16])
    assert len(rest) == 16 + 32
    return Signed(timestamp, origin.decode(), start, end, rest[16:])


def read(key: VerifierKey, message: bytes) -> Signed:
    return read_ed25519(message) if key.type == SignatureType.COSIGNATURE_ED25519 else read_mldsa44(message)


LOG = SimulatedLog(ORIGIN, size=9)
FORK = LOG.fork(4)
FORK.append(5)
STRANGER = SimulatedKey("stranger.example")
LONGER = LOG.fork(9)  # it extends the log, and the log's operator has not signed it
LONGER.append(3)
FORGED = LONGER.fork(12)
FORGED.sign_wrongly = True


def _checkpoint_bodies() -> st.SearchStrategy[bytes]:
    sizes = st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([LOG, FORK]))
    honest = sizes.map(lambda t: t[2].add_checkpoint(t[0], t[1], proof=t[2].proof(min(t[0], t[1]), t[1])))
    chosen = st.binary(max_size=40).map(
        lambda data: LOG.add_checkpoint(0).replace(b"\n9\n", b"\n9\n" + base64.b64encode(data) + b"\n", 1)
    )
    unsigned = st.sampled_from([LONGER.add_checkpoint(9, keys=[STRANGER]), FORGED.add_checkpoint(9)])
    return st.one_of(honest, chosen, unsigned, mutations(LOG.add_checkpoint(0)), st.binary(max_size=100))


def _subtree_bodies(note: bytes) -> st.SearchStrategy[bytes]:
    ranges = st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda r: r[0] < r[1])
    good = ranges.filter(lambda r: merkle.is_valid_subtree(*r)).map(lambda r: LOG.sign_subtree(*r, note))
    forged = ranges.filter(lambda r: merkle.is_valid_subtree(*r)).map(lambda r: FORK.sign_subtree(*r, note))
    unsigned = st.sampled_from([LONGER, FORK]).map(lambda tale: tale.sign_subtree(0, 8, tale.checkpoint()))
    return st.one_of(good, forged, unsigned, mutations(LOG.sign_subtree(0, 8, note)), st.binary(max_size=100))


def _true(signed: Signed) -> bool:
    """Whether the log itself, in the history first seen, could have stated this."""
    if signed.origin != ORIGIN or signed.extensions or not 0 <= signed.start <= signed.end <= 9:
        return False
    if signed.start == 0 and signed.root == LOG.root(signed.end):
        return True
    if not merkle.is_valid_subtree(signed.start, signed.end):
        return False
    return signed.root == merkle.subtree_root(signed.start, signed.end, LOG.node)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_is_sent_only_judged_checkpoints_and_subtrees_reach_a_key(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    async def run() -> None:
        layout = state(tmp_path_factory.mktemp("nine"), LOG, algorithms=("ed25519", "ml-dsa-44"))
        reached: list[tuple[VerifierKey, bytes]] = []
        async with core(layout, wrap_signer=lambda s: RecordingSigner(s, reached)) as running:
            lines = await answer(running, LOG.add_checkpoint(0))  # the history that we know
            assert isinstance(lines, bytes)
            note = LOG.value().text() + b"\n" + lines
            assert [read(*seen) for seen in reached] == [Signed(START, ORIGIN, 0, 9, LOG.root())] * 2
            for _ in range(data.draw(st.integers(1, 6))):
                seen_before = len(reached)
                body = data.draw(_checkpoint_bodies())
                got = await answer(running, body)
                for seen in reached[seen_before:]:
                    signed = read(*seen)
                    assert _true(signed), (body, signed)
                    assert signed.timestamp == START
                    assert signed.end == 9, "our head stands at 9, and only its like is signed again"
                    assert isinstance(got, bytes)
                seen_before = len(reached)
                body = data.draw(_subtree_bodies(note))
                got = await subtree_answer(running, body)
                for seen in reached[seen_before:]:
                    signed = read(*seen)
                    assert _true(signed), (body, signed)
                    assert signed.timestamp == 0, "a subtree's cosignature says nothing about the latest"
                    assert isinstance(got, bytes)

    asyncio.run(run())


def test_the_readers_above_can_tell() -> None:
    """The measure itself: a message of another form, or about another tree, is noticed."""
    with pytest.raises(ValueError, match="not enough values"):
        read_ed25519(b"bytes of the caller's choosing")
    with pytest.raises(AssertionError):
        read_mldsa44(b"bytes of the caller's choosing, and quite long enough to look like something" * 2)
    assert not _true(Signed(START, ORIGIN, 0, 9, FORK.root()))
    assert not _true(Signed(START, "other", 0, 9, LOG.root()))
    assert _true(Signed(0, ORIGIN, 8, 9, merkle.subtree_root(8, 9, LOG.node)))


async def test_extension_lines_are_signed_only_if_the_log_signed_them(tmp_path: Path) -> None:
    """An ML-DSA log's signature covers no extension lines: whoever relays it could choose them."""
    key = SimulatedKey(ORIGIN, SignatureType.COSIGNATURE_MLDSA44)
    log = SimulatedLog(ORIGIN, size=5, keys=[key])
    layout = state(tmp_path, log)
    chosen = Checkpoint(ORIGIN, 5, log.root(), ("the caller's own words",))
    reached: list[tuple[VerifierKey, bytes]] = []
    async with core(layout, wrap_signer=lambda s: RecordingSigner(s, reached)) as running:
        body = b"old 0\n\n" + log.sign(chosen)
        assert isinstance(await answer(running, body), CoreError)
        assert reached == []
        assert isinstance(await answer(running, log.add_checkpoint(0)), bytes)


def _forms(seed: bytes) -> Iterator[bytes]:
    yield seed
    yield seed.hex().encode()
    yield base64.b64encode(seed)[:-2]
    yield base64.urlsafe_b64encode(seed)[:-2]


def test_no_answer_to_any_verb_holds_a_secret() -> None:
    log = SimulatedLog(ORIGIN, size=9)
    with short_folder() as folder:
        layout = make_state(folder, ed25519_seed=SEED)
        trust(layout, log)
        for seed in (SEED, ATTESTATION_SEED):
            assert any(form in layout.softkey.read_bytes() for form in _forms(seed)), "the measure works"
        heard = []
        with CoreProcess(layout) as process, SocketClient(layout.core_socket) as client:
            for payload in (b"", b"softkey", b"keys/softkey.json", bytes(32), log.add_checkpoint(0)):
                for verb in range(256):
                    got = client.ask(verb, payload)
                    if verb not in list(Verb):
                        assert isinstance(got, MalformedRequest)
                    heard.append(got if isinstance(got, bytes) else str(got.facts()).encode())
            heard.append(process.said().encode())
    everything = b"\n".join(heard)
    for seed in (SEED, ATTESTATION_SEED):
        assert not [form for form in _forms(seed) if form in everything]
