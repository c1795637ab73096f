"""The record of events: every change of what is stored is found, whatever it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
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


def stored(desk: Desk) -> list[Entry]:
    """The entries as they are read back."""
    return list(audit.entries(desk))


def test_every_value_of_every_stored_byte_is_found(entries: list[Entry]) -> None:
    """Each byte of entry and MAC takes all 255 other values, as far as its own bytes are concerned.

    The entries after the changed one are the same whatever its value; it is judged with the first of them.
    """
    for place, entry in enumerate(entries[:3]):
        before, after = entries[:place], entries[place + 1 : place + 2]
        for at in range(len(entry.record)):
            for value in set(range(256)) - {entry.record[at]}:
                changed = entry.record[:at] + bytes([value]) + entry.record[at + 1 :]
                assert faults([*before, Entry(entry.number, changed, entry.mac), *after]), (place, at, value)
        for at in range(len(entry.mac)):
            for value in set(range(256)) - {entry.mac[at]}:
                changed = entry.mac[:at] + bytes([value]) + entry.mac[at + 1 :]
                assert faults([*before, Entry(entry.number, entry.record, changed), *after])


def test_every_byte_taken_out_doubled_or_cut_off_is_found(entries: list[Entry]) -> None:
    for place, entry in enumerate(entries):
        for record, mac in _mangled(entry):
            changed = [*entries]
            changed[place] = Entry(entry.number, record, mac)
            assert faults(changed), (place, record, mac)


def _mangled(entry: Entry) -> Iterator[tuple[bytes, bytes]]:
    for at in range(len(entry.record)):
        yield entry.record[:at] + entry.record[at + 1 :], entry.mac
        yield entry.record[: at + 1] + entry.record[at:], entry.mac
        yield entry.record[:at], entry.mac
        yield entry.record[at + 1 :], entry.mac
        if at and entry.record[at - 1] != entry.record[at]:
            swapped = entry.record[: at - 1] + entry.record[at : at + 1] + entry.record[at - 1 : at]
            yield swapped + entry.record[at + 1 :], entry.mac
    for at in range(len(entry.mac)):
        yield entry.record, entry.mac[:at] + entry.mac[at + 1 :]
        yield entry.record, entry.mac[:at]
        yield entry.record, entry.mac + entry.mac[at : at + 1]


def test_every_number_of_an_entry_is_found(entries: list[Entry]) -> None:
    for place, entry in enumerate(entries):
        for number in (-1, 0, *(set(range(1, 12)) - {entry.number}), 2**63 - 1):
            changed = sorted(
                (*entries[:place], Entry(number, entry.record, entry.mac), *entries[place + 1 :]),
                key=lambda each: each.number,
            )
            assert faults(changed, (5, entries[-1].digest)), (place, number)


def test_every_deletion_duplication_swap_and_insertion_is_found(entries: list[Entry]) -> None:
    """With the numbers as they were, and with numbers that fit: a table has no two rows of one number."""
    anchor = (5, entries[-1].digest)

    def found(changed: list[Entry]) -> None:
        assert faults(changed, anchor)
        assert faults([Entry(n, each.record, each.mac) for n, each in enumerate(changed, start=1)], anchor)

    for place in range(5):
        for end in range(place + 1, 6):  # every run of entries, and so the last and all of them
            found(entries[:place] + entries[end:])
        for other in range(6):  # a copy of one, anywhere
            found([*entries[:other], entries[place], *entries[other:]])
        for other in range(5):
            if other != place:
                swapped = [*entries]
                swapped[place], swapped[other] = swapped[other], swapped[place]
                found(swapped)
                replaced = [*entries]
                replaced[place] = entries[other]
                found(replaced)
                for fields in ("record", "mac"):  # half of another one's
                    halves = [*entries]
                    halves[place] = replace(entries[place], **{fields: getattr(entries[other], fields)})
                    found(halves)


CHANGES = {
    "a byte of an entry": "UPDATE audit SET record = CAST(replace(record, '1', '2') AS BLOB)"
    " WHERE number = 3",
    "a byte of a MAC": "UPDATE audit SET mac = CAST(substr(mac, 1, 31) || x'00' AS BLOB) WHERE number = 3",
    "an empty entry": "UPDATE audit SET record = x'' WHERE number = 2",
    "an empty MAC": "UPDATE audit SET mac = x'' WHERE number = 2",
    "no entry": "DELETE FROM audit WHERE number = 2",
    "not the first": "DELETE FROM audit WHERE number = 1",
    "not the last": "DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)",
    "none at all": "DELETE FROM audit",
    "one twice": "INSERT INTO audit SELECT (SELECT max(number) + 1 FROM audit), record, mac FROM audit"
    " WHERE number = 5",
    "one before the first": "INSERT INTO audit SELECT 0, record, mac FROM audit WHERE number = 1",
    "one with another number": "UPDATE audit SET number = 9 WHERE number = 5",
    "two swapped": "UPDATE audit SET record = (SELECT record FROM audit AS other WHERE other.number = 5 -"
    " audit.number), mac = (SELECT mac FROM audit AS other WHERE other.number = 5 - audit.number)"
    " WHERE number IN (2, 3)",
    "a second row in the place of the first": "REPLACE INTO audit SELECT 2, record, mac FROM audit"
    " WHERE number = 3",
}


def tamper(desk: Desk, change: str) -> None:
    for trigger in ("audit_stays", "audit_stands"):
        desk.connection.execute(f"DROP TRIGGER {trigger}")
    desk.connection.execute(CHANGES[change])


@pytest.mark.parametrize("change", list(CHANGES))
def test_every_kind_of_change_of_the_table_itself_is_found(
    desk: Desk, entries: list[Entry], change: str
) -> None:
    """By somebody who takes the triggers away first."""
    anchor = (5, entries[-1].digest)
    assert faults(stored(desk), anchor) == ()
    tamper(desk, change)
    assert stored(desk) != entries
    assert faults(stored(desk), anchor)


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
