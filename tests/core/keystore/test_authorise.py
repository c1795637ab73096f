"""The second look at what is signed: cosignature messages, byte for byte, and nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.core.keystore.authorise import Cosigned, is_signed, parse_message, trial_message
from witness.core.keystore.base import Algorithm, KeyRefused
from witness.core.keystore.softkey import soft_signer
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message
from witness.tlog.merkle import EMPTY_ROOT
from witness.tlog.note import SignatureType, make_vkey

NAME = "witness.example/w1"
ED25519 = soft_signer(Algorithm.ED25519, NAME, bytes(32))
MLDSA44 = soft_signer(Algorithm.MLDSA44, NAME, bytes(32))
ROOT = bytes(range(32))

origins = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\n+"), min_size=1, max_size=40
)
sizes = st.integers(0, 2**63 - 1)
times = st.integers(1, 2**63 - 1)


@given(origins, sizes, st.binary(min_size=32, max_size=32), times)
def test_every_cosignature_message_is_understood(origin: str, size: int, root: bytes, time: int) -> None:
    said = Cosigned(time, origin, 0, size, root)
    text = Checkpoint(origin, size, root).text()
    assert parse_message(ED25519.vkey, cosignature_v1_message(time, text)) == said
    assert parse_message(MLDSA44.vkey, cosigned_message(NAME, time, origin, 0, size, root)) == said


@given(origins, sizes, sizes, st.binary(min_size=32, max_size=32))
def test_every_subtree_message_is_understood(origin: str, one: int, other: int, root: bytes) -> None:
    start, end = sorted((one, other))
    message = cosigned_message(NAME, 0, origin, start, end, root)
    assert parse_message(MLDSA44.vkey, message) == Cosigned(0, origin, start, end, root)


@given(st.data())
def test_a_changed_message_is_refused_or_says_something_else(data: st.DataObject) -> None:
    """No two messages mean the same, so that nothing can be smuggled into one."""
    for signer in (ED25519, MLDSA44):
        message = (
            cosignature_v1_message(1_800_000_000, Checkpoint("log.example/l", 5, ROOT).text())
            if signer is ED25519
            else cosigned_message(NAME, 1_800_000_000, "log.example/l", 0, 5, ROOT)
        )
        at = data.draw(st.integers(0, len(message)))
        replaced = data.draw(st.binary(max_size=3))
        cut = data.draw(st.integers(0, 3))
        changed = message[:at] + replaced + message[at + cut :]
        try:
            said = parse_message(signer.vkey, changed)
        except KeyRefused:
            continue
        assert (said == parse_message(signer.vkey, message)) == (changed == message)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(message: bytes) -> None:
    for vkey in (ED25519.vkey, MLDSA44.vkey):
        with pytest.raises(KeyRefused):
            parse_message(vkey, message)


V1 = b"cosignature/v1\ntime 5\n"
B64 = base64.b64encode(ROOT)


@pytest.mark.parametrize(
    "message",
    [
        V1 + b"log.example/l\n05\n" + B64 + b"\n",
        V1 + b"log.example/l\n5\n" + B64,
        V1 + b"log.example/l\n5\n" + B64 + b"\n\n",
        b"cosignature/v1\ntime 05\nlog.example/l\n5\n" + B64 + b"\n",
        b"cosignature/v1\ntime 0\nlog.example/l\n5\n" + B64 + b"\n",
        b"cosignature/v1\ntime \xd9\xa5\nlog.example/l\n5\n" + B64 + b"\n",  # an Arabic-Indic five
        b"cosignature/v1\ntime 99999999999999999999\nlog.example/l\n5\n" + B64 + b"\n",
        b"log.example/l\n5\n" + B64 + b"\n",  # a checkpoint, as a log signs it
        b"ssh-connection",
    ],
)
def test_near_misses_of_ed25519_are_refused(message: bytes) -> None:
    with pytest.raises(KeyRefused):
        parse_message(ED25519.vkey, message)


GOOD = cosigned_message(NAME, 0, "log.example/l", 4, 8, ROOT)


@pytest.mark.parametrize(
    "message",
    [
        GOOD + b"\0",
        GOOD[:-1],
        cosigned_message("witness.example/w2", 0, "log.example/l", 4, 8, ROOT),
        GOOD.replace((8).to_bytes(8, "big"), (3).to_bytes(8, "big")),  # end before start
        GOOD.replace(bytes(8) + b"\x0d", (1).to_bytes(8, "big") + b"\x0d"),  # a time beside a start
        GOOD.replace(b"log.example/l", b"log.example/\xff"),
    ],
)
def test_near_misses_of_mldsa44_are_refused(message: bytes) -> None:
    assert message != GOOD
    with pytest.raises(KeyRefused):
        parse_message(MLDSA44.vkey, message)


def test_a_note_key_makes_no_cosignatures() -> None:
    vkey = make_vkey(NAME, SignatureType.ED25519, ED25519.vkey.public_key)
    with pytest.raises(KeyRefused, match="makes no cosignatures"):
        parse_message(vkey, trial_message(ED25519.vkey, 5))


@pytest.mark.parametrize("name", [NAME, "w" * 250, "é" * 120])
def test_the_trial_message_is_a_cosignature_over_an_empty_tree_of_our_own(name: str) -> None:
    for algorithm in Algorithm:
        vkey = soft_signer(algorithm, name, bytes(32)).vkey
        said = parse_message(vkey, trial_message(vkey, 5))
        assert (said.timestamp, said.start, said.end, said.root) == (5, 0, 0, EMPTY_ROOT)
        assert said.origin.endswith("/key-test")


def test_signatures_are_looked_at() -> None:
    for signer, other in ((ED25519, bytes(31) + b"\1"), (MLDSA44, bytes(31) + b"\1")):
        message = trial_message(signer.vkey, 5)
        signature = signer.sign(message)
        assert is_signed(signer.vkey, message, signature)
        assert not is_signed(signer.vkey, message + b"x", signature)
        assert not is_signed(signer.vkey, message, signature[:-1])
        assert not is_signed(signer.vkey, message, b"")
        algorithm = Algorithm.ED25519 if signer is ED25519 else Algorithm.MLDSA44
        assert not is_signed(soft_signer(algorithm, NAME, other).vkey, message, signature)
