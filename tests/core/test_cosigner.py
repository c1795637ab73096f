"""The program that authorises signatures: what it has signed, and what it gives out when a key fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulated_log import SimulatedLog
from witness.core.cosigner import Cosigner
from witness.core.keystore.base import KeyAbsent, KeystoreError, Signer
from witness.core.keystore.softkey import Ed25519Signer, MLDSA44Signer
from witness.core.refusals import KeyUnavailable, SubtreesUnsupported
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message
from witness.tlog.merkle import subtree_root
from witness.tlog.note import VerifierKey, format_note, parse_note, parse_signature_lines
from witness.tlog.signature import (
    InvalidNoteSignature,
    cosignature_timestamp,
    verify_note,
    verify_subtree_signature,
)

NAME = "cosigner.example/w"
NOW = 1_800_000_000


class Recording:
    """A signer that notes what it was given."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.messages: list[bytes] = []

    @property
    def vkey(self) -> VerifierKey:
        return self._signer.vkey

    def sign(self, message: bytes) -> bytes:
        self.messages.append(message)
        return self._signer.sign(message)


class Broken:
    def __init__(self, vkey: VerifierKey) -> None:
        self.vkey = vkey

    def sign(self, message: bytes) -> bytes:
        raise KeyAbsent("the device was pulled out", "plug it in")


def signers() -> tuple[Recording, Recording]:
    return Recording(Ed25519Signer(NAME, b"\x01" * 32)), Recording(MLDSA44Signer(NAME, b"\x02" * 32))


def log(extensions: tuple[str, ...] = ()) -> SimulatedLog:
    made = SimulatedLog("cosigner.example/log", size=13)
    made.extensions = extensions
    return made


@pytest.mark.parametrize("extensions", [(), ("one", "two three")])
def test_both_lines_verify_over_the_checkpoint(extensions: tuple[str, ...]) -> None:
    cosigner = Cosigner(signers())
    checkpoint = log(extensions).value()
    lines = cosigner.cosign(checkpoint, checkpoint.text(), NOW)
    note = parse_note(checkpoint.text() + b"\n" + lines)
    verified = verify_note(note, cosigner.vkeys)
    assert [v.key for v in verified] == list(cosigner.vkeys)
    assert [cosignature_timestamp(v.key, v.signature.value) for v in verified] == [NOW, NOW]
    for other in (Checkpoint(checkpoint.origin, 12, checkpoint.root), Checkpoint("x", 13, checkpoint.root)):
        for key in cosigner.vkeys:
            with pytest.raises(InvalidNoteSignature):
                verify_note(parse_note(other.text() + b"\n" + lines), [key])


def test_the_messages_are_those_of_the_specification() -> None:
    ed25519, mldsa44 = signers()
    checkpoint = log(("covered",)).value()
    Cosigner((ed25519, mldsa44)).cosign(checkpoint, checkpoint.text(), NOW)
    assert ed25519.messages == [cosignature_v1_message(NOW, checkpoint.text())]
    assert ed25519.messages[0].endswith(b"\ncovered\n")
    assert mldsa44.messages == [
        cosigned_message(NAME, NOW, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
    ]


def test_extension_lines_are_covered_by_the_ed25519_cosignature() -> None:
    ed25519, _ = signers()
    cosigner = Cosigner((ed25519,))
    checkpoint = log(("covered",)).value()
    lines = cosigner.cosign(checkpoint, checkpoint.text(), NOW)
    assert verify_note(parse_note(checkpoint.text() + b"\n" + lines), cosigner.vkeys)
    for stripped in (log().value(), log(("covered", "and more")).value()):
        with pytest.raises(InvalidNoteSignature):
            verify_note(parse_note(stripped.text() + b"\n" + lines), cosigner.vkeys)


def test_a_subtree_is_signed_without_a_time_and_by_ml_dsa_alone() -> None:
    ed25519, mldsa44 = signers()
    source = log()
    root = subtree_root(8, 13, source.node)
    lines = Cosigner((ed25519, mldsa44)).cosign_subtree(source.origin, 8, 13, root)
    (signature,) = parse_signature_lines(lines)
    assert signature.key_id == mldsa44.vkey.key_id
    assert cosignature_timestamp(mldsa44.vkey, signature.value) == 0
    assert ed25519.messages == []
    assert mldsa44.messages == [cosigned_message(NAME, 0, source.origin, 8, 13, root)]
    facts = {"origin": source.origin, "start": 8, "end": 13, "root": root}
    assert verify_subtree_signature(mldsa44.vkey, signature.value, **facts)
    assert not verify_subtree_signature(mldsa44.vkey, signature.value, **{**facts, "end": 12})


def test_without_an_ml_dsa_key_no_subtree_is_signed() -> None:
    ed25519, _ = signers()
    cosigner = Cosigner((ed25519,))
    assert not cosigner.signs_subtrees
    with pytest.raises(SubtreesUnsupported):
        cosigner.cosign_subtree("cosigner.example/log", 0, 1, bytes(32))
    assert ed25519.messages == []


@pytest.mark.parametrize("broken", [0, 1])
def test_one_key_that_fails_gives_none(broken: int) -> None:
    both: list[Signer] = list(signers())
    label = f"{NAME}+{both[broken].vkey.key_id.hex()}"
    both[broken] = Broken(both[broken].vkey)
    checkpoint = log().value()
    with pytest.raises(KeyUnavailable) as caught:
        Cosigner(both).cosign(checkpoint, checkpoint.text(), NOW)
    assert caught.value == KeyUnavailable(label, "the device was pulled out")
    assert isinstance(caught.value.__cause__, KeystoreError)
    if broken == 1:
        with pytest.raises(KeyUnavailable):
            Cosigner(both).cosign_subtree("cosigner.example/log", 0, 1, bytes(32))


@pytest.mark.parametrize("timestamp", [0, -1])
def test_a_checkpoint_is_never_cosigned_without_a_time(timestamp: int) -> None:
    ed25519, mldsa44 = signers()
    checkpoint = log().value()
    with pytest.raises(ValueError, match="timestamp"):
        Cosigner((ed25519, mldsa44)).cosign(checkpoint, checkpoint.text(), timestamp)
    assert ed25519.messages == mldsa44.messages == []


def test_the_keys_of_a_witness_share_one_name() -> None:
    with pytest.raises(ValueError, match="one name"):
        Cosigner([Ed25519Signer(NAME, bytes(32)), MLDSA44Signer("other.example", bytes(32))])
    with pytest.raises(ValueError, match="one name"):
        Cosigner([])


def test_lines_follow_the_keys_order_and_form_a_note() -> None:
    ed25519, mldsa44 = signers()
    checkpoint = log().value()
    for order in ((ed25519, mldsa44), (mldsa44, ed25519)):
        cosigner = Cosigner(order)
        signatures = parse_signature_lines(cosigner.cosign(checkpoint, checkpoint.text(), NOW))
        assert [s.key_id for s in signatures] == [signer.vkey.key_id for signer in order]
        assert [len(s.value) for s in signatures] == [72 if s is ed25519 else 2428 for s in order]
        parse_note(format_note(checkpoint.text(), signatures))


class Slow(Recording):
    """Signs only when it is let."""

    def __init__(self, signer: Signer) -> None:
        super().__init__(signer)
        self.entered, self.let = threading.Event(), threading.Event()

    def sign(self, message: bytes) -> bytes:
        self.entered.set()
        assert self.let.wait(20)
        return super().sign(message)


def test_a_dropped_key_is_let_end_and_signs_no_more() -> None:
    """What was begun ends with all keys, and `drop` waits for it; what begins later is without."""
    old, new = Slow(Ed25519Signer(NAME, b"\x01" * 32)), Recording(Ed25519Signer(NAME, b"\x03" * 32))
    cosigner = Cosigner([old, new])
    checkpoint = log().value()
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(cosigner.cosign, checkpoint, checkpoint.text(), NOW)
        assert old.entered.wait(20)
        assert not cosigner.drop([old.vkey], patience=0), "it is being used"
        dropping = pool.submit(cosigner.drop, [old.vkey])
        later = cosigner.cosign(checkpoint, checkpoint.text(), NOW)
        assert [line.key_id for line in parse_signature_lines(later)] == [new.vkey.key_id]
        assert not dropping.done()
        old.let.set()
        assert [line.key_id for line in parse_signature_lines(begun.result(20))] == [
            old.vkey.key_id, new.vkey.key_id,
        ]  # fmt: skip
        assert dropping.result(20)
    assert len(old.messages) == 1
    assert cosigner.vkeys == (new.vkey,)


def test_without_any_key_nothing_is_signed() -> None:
    made = signers()
    cosigner = Cosigner(made)
    assert cosigner.drop([each.vkey for each in made])
    checkpoint = log().value()
    with pytest.raises(KeyUnavailable, match="retired"):
        cosigner.cosign(checkpoint, checkpoint.text(), NOW)
    with pytest.raises(SubtreesUnsupported):
        cosigner.cosign_subtree("o", 0, 1, bytes(32))
