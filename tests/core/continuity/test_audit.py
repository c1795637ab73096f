"""The record of events: every change of what is stored is found, whatever it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.state import make_state
from witness.core.continuity.secret import MacKey
from witness.core.store import audit
from witness.core.store.audit import Entry, Event
from witness.core.store.desk import Desk

KEY = MacKey(b"a" * 32)
OTHER = MacKey(b"b" * 32)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(make_state(tmp_path / "s").database) as desk:
        yield desk


@pytest.fixture
def entries(desk: Desk) -> list[Entry]:
    for number in range(5):
        audit.append(desk, KEY, [Event("start", {"n": number, "name": "ö"})], 1000 + number)
    return list(audit.entries(desk))


def faults(found: list[Entry], anchor: tuple[int, str] = (0, "")) -> tuple[str, ...]:
    return audit.verify(found, KEY, anchor).faults


def test_a_whole_record_is_whole(entries: list[Entry]) -> None:
    verdict = audit.verify(entries, KEY, (5, entries[-1].digest))
    assert (verdict.faults, verdict.entries, verdict.maced) == ((), 5, 5)
    assert audit.verify(entries, KEY, (3, entries[2].digest)).faults == ()
    assert audit.verify(entries, None).faults == ()


def test_every_single_byte_change_is_found(entries: list[Entry]) -> None:
    for place, entry in enumerate(entries):
        for at in range(len(entry.record)):
            for flip in (0x01, 0x20, 0x80):
                record = bytearray(entry.record)
                record[at] ^= flip
                changed = [*entries]
                changed[place] = Entry(entry.number, bytes(record), entry.mac)
                assert faults(changed), (place, at, flip)
        for at in range(len(entry.mac)):
            mac = bytearray(entry.mac)
            mac[at] ^= 1
            changed = [*entries]
            changed[place] = Entry(entry.number, entry.record, bytes(mac))
            assert faults(changed)
        changed = [*entries]
        changed[place] = Entry(entry.number + 1, entry.record, entry.mac)
        assert faults(changed)


def test_every_deletion_duplication_swap_and_insertion_is_found(entries: list[Entry]) -> None:
    anchor = (5, entries[-1].digest)
    for place in range(5):
        assert faults(entries[:place] + entries[place + 1 :], anchor)
        renumbered = [
            Entry(number, each.record, each.mac)
            for number, each in enumerate(entries[:place] + entries[place + 1 :], start=1)
        ]
        assert faults(renumbered, anchor)
        assert faults([*entries[:place], entries[place], *entries[place:]], anchor)
        for other in range(place):
            swapped = [*entries]
            swapped[place], swapped[other] = swapped[other], swapped[place]
            assert faults(swapped, anchor)
            assert faults([Entry(n, e.record, e.mac) for n, e in enumerate(swapped, start=1)], anchor)


def test_every_truncation_is_found_by_the_head_noted_elsewhere(entries: list[Entry]) -> None:
    for length in range(5):
        assert faults(entries[:length], (5, entries[-1].digest))


def test_a_record_written_anew_by_somebody_without_the_key_is_found(desk: Desk, entries: list[Entry]) -> None:
    forged = []
    previous = "00" * 32
    for entry in entries:
        import hashlib
        import json

        content = json.loads(entry.record)
        content["facts"] = {"n": "forged"}
        content["previous"] = previous
        for label in (KEY.label, OTHER.label):
            content["key"] = label
            record = audit._canonical(content)
            forged.append((label, Entry(entry.number, record, OTHER.mac(record))))
        previous = hashlib.sha256(forged[-1][1].record).hexdigest()
    assert faults([entry for label, entry in forged if label == OTHER.label])
    assert faults([entry for label, entry in forged if label == KEY.label])


def test_the_table_lets_nothing_be_changed(desk: Desk, entries: list[Entry]) -> None:
    for sql in ("DELETE FROM audit", "UPDATE audit SET mac = x'00'"):
        with pytest.raises(sqlite3.IntegrityError):
            desk.connection.execute(sql)


def test_what_the_command_line_did_is_taken_in_before(desk: Desk) -> None:
    with desk.transaction() as connection:
        audit.leave(connection, Event("log-disabled", {"origin": "o"}), 7)
    assert audit.waiting(desk)
    audit.append(desk, KEY, [Event("stop", {})], 9)
    kinds = [__import__("json").loads(each.record)["kind"] for each in audit.entries(desk)]
    assert kinds == ["log-disabled", "stop"]
    assert not audit.waiting(desk)
