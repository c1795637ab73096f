"""The high-water record: what was written is read, what was changed is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from witness.core.continuity import highwater
from witness.core.continuity.highwater import HighWater, Mark, RecordHeld, RecordInvalid, fresh, slots
from witness.core.continuity.secret import MacKey

KEY = MacKey(b"k" * 32)


def mark(number: int, size: int) -> Mark:
    return Mark(f"log {number}", size, bytes([number]) * 32, 1000 + size, "0" * 16)


def written(path: Path, moves: int = 4) -> None:
    water = HighWater(path, create=True)
    assert water.empty
    marks = fresh("identity", 7)
    marks.heads = {m.origin: m for m in (mark(0, 1), mark(1, 1))}
    water.begin(KEY, marks)
    for size in range(2, moves + 2):
        water.append(KEY, [mark(1, size)], issued=1000 + size, audit=[size, "ab"])
    water.close()


def read(path: Path) -> highwater.Marks:
    water = HighWater(path, create=False)
    try:
        return water.read(KEY)
    finally:
        water.close()


def test_it_reads_what_was_written(tmp_path: Path) -> None:
    written(tmp_path / "hw")
    marks = read(tmp_path / "hw")
    assert marks.heads == {"log 0": mark(0, 1), "log 1": mark(1, 5)}
    assert (marks.identity, marks.issued, marks.audit) == ("identity", 1005, (5, "ab"))


def test_it_goes_on_where_it_ended_and_moves_to_the_other_file(tmp_path: Path) -> None:
    path = tmp_path / "hw"
    written(path)
    water = HighWater(path, create=False)
    marks = water.read(KEY)
    marks.heads["log 2"] = mark(2, 9)
    water.begin(KEY, marks)
    water.append(KEY, [mark(2, 10)])
    water.close()
    assert read(path).heads["log 2"] == mark(2, 10)
    assert read(path).heads["log 1"] == mark(1, 5)
    assert all(file.stat().st_size for file in slots(path))


def test_a_second_process_does_not_get_it(tmp_path: Path) -> None:
    first = HighWater(tmp_path / "hw", create=True)
    with pytest.raises(RecordHeld):
        HighWater(tmp_path / "hw", create=True)
    first.close()
    HighWater(tmp_path / "hw", create=True).close()


def test_every_changed_byte_is_noticed_or_cuts_off_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "hw"
    written(path)
    file = next(file for file in slots(path) if file.stat().st_size)
    data = file.read_bytes()
    last = data.rfind(b"\n", 0, -1) + 1
    for at in range(0, len(data), 3):
        changed = bytearray(data)
        changed[at] ^= 1
        file.write_bytes(changed)
        if at == last - 1:  # the newline before it: both lines are as good as torn
            assert read(path).heads["log 1"].size == 3
        elif at < last:
            with pytest.raises(RecordInvalid):
                read(path)
        else:
            assert read(path).heads["log 1"].size == 4


def test_every_torn_end_leaves_the_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "hw"
    written(path)
    file = next(file for file in slots(path) if file.stat().st_size)
    data = file.read_bytes()
    first = data.find(b"\n") + 1
    for end in range(first, len(data), 7):
        file.write_bytes(data[:end])
        assert 1 <= read(path).heads["log 1"].size <= 5


def test_lines_taken_out_or_swapped_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "hw"
    written(path)
    file = next(file for file in slots(path) if file.stat().st_size)
    lines = file.read_bytes().splitlines(keepends=True)
    for odd in (
        [lines[0], *lines[2:]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [*lines[:2], lines[1], *lines[2:]],
        lines[1:],
    ):
        file.write_bytes(b"".join(odd))
        with pytest.raises(RecordInvalid):
            read(path)


def test_another_key_s_record_is_not_believed(tmp_path: Path) -> None:
    written(tmp_path / "hw")
    water = HighWater(tmp_path / "hw", create=False)
    with pytest.raises(RecordInvalid):
        water.read(MacKey(b"x" * 32))
    water.close()


def test_a_torn_snapshot_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "hw"
    written(path)
    old, new = sorted(slots(path), key=lambda file: file.stat().st_size, reverse=True)
    new.write_bytes(old.read_bytes()[:100])
    assert read(path).heads["log 1"].size == 5
