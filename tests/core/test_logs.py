"""The operator's hand on the logs: what it may add, what it may set, and that it takes nothing away."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from nacl.bindings import crypto_sign_seed_keypair

from tests.core.state import START, make_state
from tests.core.test_store_contract import cosigned
from tests.simulated_log import SimulatedKey
from witness.core.layout import StateLayout
from witness.core.store.base import Advance, StoreError
from witness.core.store.logs import LogBook, LogKeyRefused, LogSettings, UnknownLog
from witness.core.store.sqlite import SQLiteStore
from witness.tlog.note import SignatureType, VerifierKey, make_vkey

ORIGIN = "logs.example/one"
NOTHING = LogSettings()


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    return make_state(tmp_path)


def key(number: int = 0, kind: SignatureType = SignatureType.ED25519, name: str = ORIGIN) -> VerifierKey:
    return SimulatedKey(name, kind, number).vkey


def add(layout: StateLayout, *keys: VerifierKey, settings: LogSettings = NOTHING, origin: str = ORIGIN):
    with LogBook(layout.database) as book, book.transaction():
        return book.add(origin, keys, settings, source="test", now=START)


def get(layout: StateLayout, origin: str = ORIGIN):
    with LogBook(layout.database) as book:
        return book.get(origin)


def test_a_new_log(layout: StateLayout) -> None:
    added = add(layout, key(), settings=LogSettings("tiles", "https://l.example/", 30.5, 9, "mail@l.example"))
    assert (added.origin, added.new, added.new_keys) == (ORIGIN, True, (key(),))
    record, head = get(layout)
    assert head is None
    assert record.vkeys == (str(key()),)
    assert (record.feeder, record.url, record.interval) == ("tiles", "https://l.example/", 30.5)
    assert (record.qpd, record.contact, record.source, record.added) == (9, "mail@l.example", "test", START)
    assert not record.disabled
    with LogBook(layout.database) as book:
        assert book.count() == 1
        assert [found.origin for found, _ in book.all()] == [ORIGIN]


def test_a_new_log_needs_a_key(layout: StateLayout) -> None:
    with pytest.raises(LogKeyRefused, match="no key"):
        add(layout)
    with LogBook(layout.database) as book:
        assert book.count() == 0, "the refusal left nothing behind"


def test_a_further_key_joins_the_others_in_order(layout: StateLayout) -> None:
    add(layout, key(1))
    before = get(layout)[0]
    added = add(layout, key(0), key(1), key(0))
    assert (added.new, added.new_keys, added.changed) == (False, (key(0),), False)
    record, _ = get(layout)
    assert record.vkeys == (str(key(1)), str(key(0)))
    assert record.change > before.change, "a running core notices"


def test_adding_what_is_there_changes_nothing(layout: StateLayout) -> None:
    add(layout, key(), settings=LogSettings(feeder="tiles", url="https://l.example/"))
    before = get(layout)
    added = add(layout, key(), settings=LogSettings(feeder="tiles"))
    assert (added.new, added.new_keys, added.changed) == (False, (), False)
    assert get(layout) == before


def test_settings_that_are_not_given_stay(layout: StateLayout) -> None:
    add(
        layout, key(), settings=LogSettings("tiles", "https://l.example/", 30.0, 9, "somebody", disabled=True)
    )
    added = add(layout, settings=LogSettings(interval=60.0))
    assert (added.new, added.new_keys, added.changed) == (False, (), True)
    record, _ = get(layout)
    assert (record.feeder, record.url, record.interval) == ("tiles", "https://l.example/", 60.0)
    assert (record.qpd, record.contact, record.disabled) == (9, "somebody", True)


@pytest.mark.parametrize("kind", [SignatureType.ED25519, SignatureType.ECDSA, SignatureType.RFC6962,
                                  SignatureType.COSIGNATURE_MLDSA44])  # fmt: skip
def test_key_types_that_logs_sign_with(layout: StateLayout, kind: SignatureType) -> None:
    assert add(layout, key(kind=kind)).new_keys == (key(kind=kind),)


def test_a_witnesss_key_is_not_a_logs(layout: StateLayout) -> None:
    with pytest.raises(LogKeyRefused, match="0x04") as caught:
        add(layout, key(), key(kind=SignatureType.COSIGNATURE_ED25519))
    assert caught.value.hint
    with pytest.raises(UnknownLog):
        get(layout)


def test_a_key_that_could_never_verify_is_refused(layout: StateLayout) -> None:
    not_a_point = make_vkey(ORIGIN, SignatureType.ED25519, b"\xff" * 32)
    with pytest.raises(LogKeyRefused, match="could ever verify"):
        add(layout, not_a_point)


def _seeded(number: int) -> VerifierKey:
    public, _ = crypto_sign_seed_keypair(number.to_bytes(32, "big"))
    return make_vkey(ORIGIN, SignatureType.ED25519, public)


# Pairs of seeds whose keys have one key ID under ORIGIN: found by trying, as anybody can.
COLLISIONS = {
    "plain": (105911, 203055),
    "base64 with plus signs": (9711, 127217),
}


@pytest.mark.parametrize("pair", COLLISIONS.values(), ids=COLLISIONS.keys())
def test_keys_of_one_name_and_key_id_are_refused(layout: StateLayout, pair: tuple[int, int]) -> None:
    """Nobody could tell their signature lines apart."""
    first, second = (_seeded(number) for number in pair)
    assert (first.name, first.key_id) == (second.name, second.key_id)
    assert first != second
    with pytest.raises(LogKeyRefused, match="trusted"):
        add(layout, first, second)
    with pytest.raises(UnknownLog):
        get(layout)
    add(layout, first)
    with pytest.raises(LogKeyRefused, match="trusted"):
        add(layout, second)
    assert get(layout)[0].vkeys == (str(first),)


def test_the_same_key_may_belong_to_two_origins(layout: StateLayout) -> None:
    add(layout, key())
    assert add(layout, key(), origin="logs.example/two").new
    assert get(layout, "logs.example/two")[0].vkeys == get(layout)[0].vkeys


def test_a_log_is_switched_off_and_on(layout: StateLayout) -> None:
    add(layout, key())
    changes = [get(layout)[0].change]
    for disabled, changed in ((False, False), (True, True), (True, False), (False, True)):
        with LogBook(layout.database) as book, book.transaction():
            assert book.set_disabled(ORIGIN, disabled=disabled) is changed
        record, _ = get(layout)
        assert record.disabled is disabled
        assert (record.change > changes[-1]) is changed
        changes.append(record.change)


def test_an_unknown_log_is_told(layout: StateLayout) -> None:
    with LogBook(layout.database) as book:
        for ask in (book.get, book.cosigned, lambda origin: book.set_disabled(origin, disabled=True)):
            with pytest.raises(UnknownLog, match="nobody"):
                ask("nobody")


def test_a_transaction_is_made_whole_or_not_at_all(layout: StateLayout) -> None:
    add(layout, key())
    before = get(layout)

    class Slip(Exception):
        pass

    def slip(book: LogBook) -> None:
        with book.transaction():
            book.add("logs.example/two", (key(2),), NOTHING, source="test", now=START)
            book.add(ORIGIN, (key(3),), LogSettings(url="https://elsewhere.example/"), source="t", now=START)
            book.set_disabled(ORIGIN, disabled=True)
            raise Slip

    with LogBook(layout.database) as book:
        with pytest.raises(Slip):
            slip(book)
        assert book.count() == 1
        assert book.get(ORIGIN) == before
        with book.transaction():
            book.add("logs.example/two", (key(2),), NOTHING, source="test", now=START)
        assert book.count() == 2


def test_two_operators_at_once_lose_nothing(layout: StateLayout) -> None:
    with LogBook(layout.database) as one, LogBook(layout.database) as two:
        with one.transaction():
            one.add("a.example", (key(name="a.example"),), NOTHING, source="one", now=START)
            two._connection.execute("PRAGMA busy_timeout = 10")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                two._connection.execute("BEGIN IMMEDIATE")
        with two.transaction():
            two.add("b.example", (key(name="b.example"),), NOTHING, source="two", now=START)
        records = [record for record, _ in one.all()]
    assert [record.origin for record in records] == ["a.example", "b.example"]
    assert len({record.change for record in records}) == 2


def test_changes_are_numbered_over_the_whole_store(layout: StateLayout) -> None:
    for number in range(4):
        add(layout, key(), origin=f"logs.example/{number}")
    add(layout, key(7), origin="logs.example/1")
    with LogBook(layout.database) as book:
        changes = {record.origin[-1]: record.change for record, _ in book.all()}
    assert changes == {"0": 1, "2": 3, "3": 4, "1": 5}


def test_cosigned_as_the_core_stored_it(layout: StateLayout) -> None:
    add(layout, key())
    with LogBook(layout.database) as book:
        assert book.cosigned(ORIGIN) is None
        store = SQLiteStore(layout.database)
        store.advance([Advance(book.get(ORIGIN)[0].log_id, None, cosigned(5))])
        store.close()
        assert book.cosigned(ORIGIN) == cosigned(5)
        assert book.get(ORIGIN)[1] == cosigned(5).head


def test_the_origin_hash_is_that_of_the_origins_bytes(layout: StateLayout) -> None:
    origin = "Wörter aus dem Norden"
    add(layout, key(), origin=origin)
    connection = sqlite3.connect(layout.database)
    assert connection.execute("SELECT origin_hash FROM logs").fetchone() == (
        hashlib.sha256(origin.encode()).digest(),
    )
    connection.close()


def test_a_refusal_is_a_store_error_with_its_reason() -> None:
    assert issubclass(LogKeyRefused, StoreError)
    assert issubclass(UnknownLog, StoreError)
