"""What the core remembers: configuration taken over, heads that only grow, and the sequence of moves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.core.state import START, core, make_state, trust
from tests.core.test_store_contract import root
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core import book as book_module
from witness.core import request as request_module
from witness.core.book import CHANGES_PAGE, LogBook
from witness.core.store.base import Head, LogRecord
from witness.core.wire import Changes, Cursor
from witness.tlog.note import VerifierKey, parse_vkey


def record(number: int, *, change: int | None = None, disabled: bool = False, keys: int = 1) -> LogRecord:
    origin = f"log-{number}"
    vkeys = tuple(str(SimulatedKey("log", number=n).vkey) for n in range(keys))
    change = number + 1 if change is None else change
    return LogRecord(
        number, origin, vkeys, disabled, "none", None, None, None, None, "test", START, change
    )  # fmt: skip


def head(size: int, at: int = START) -> Head:
    return Head(size, root(size), at)


def book(count: int, *, heads: bool = True) -> LogBook:
    made = LogBook()
    made.apply((record(n), head(n) if heads else None) for n in range(count))
    return made


def test_configuration_is_taken_over() -> None:
    known = LogBook()
    assert known.get("log-0") is None
    assert known.apply([(record(0), None), (record(1, disabled=True, keys=2), head(7))]) == 2
    assert (len(known), known.heads, known.change) == (2, 1, 2)
    first, second = known.get("log-0"), known.get("log-1")
    assert first is not None
    assert second is not None
    assert (first.head, first.disabled, len(first.keys)) == (None, False, 1)
    assert (second.head, second.disabled, len(second.keys)) == (head(7), True, 2)
    assert known.apply([(record(0, change=9, disabled=True, keys=3), None)]) == 1
    assert (first.disabled, len(first.keys), known.change) == (True, 3, 9)


def test_a_foreign_head_is_taken_over_if_it_is_newer_and_the_log_is_idle() -> None:
    known = book(1)
    log = known.get("log-0")
    assert log is not None
    known.apply([(record(0, change=2), head(5))])
    assert log.head == head(5)
    log.busy = True
    known.apply([(record(0, change=3), head(6))])
    assert log.head == head(5), "the request under way will set it"


@pytest.mark.parametrize("stale", [None, head(4), head(5, START - 1)], ids=["none", "smaller", "earlier"])
def test_what_was_read_before_our_own_commit_does_not_set_memory_back(stale: Head | None) -> None:
    """The store is read on one thread and applied on another; a commit of ours may come between."""
    known = LogBook()
    known.apply([(record(0), head(4))])
    log = known.get("log-0")
    assert log is not None
    known.moved(log, head(5))
    assert known.apply([(record(0, change=2, disabled=True), stale)]) == 1
    assert log.head == head(5)
    assert log.disabled, "the rest of the record is taken over all the same"


def test_all_origins_without_a_cursor_and_none_twice() -> None:
    known = book(3)
    everything = known.changes(None)
    assert everything.origins == ("log-0", "log-1", "log-2")
    assert not everything.more
    nothing = known.changes(everything.cursor)
    assert nothing == Changes(cursor=everything.cursor, more=False, origins=())


def test_a_log_that_was_never_cosigned_is_in_no_changes() -> None:
    assert book(3, heads=False).changes(None).origins == ()


def move(known: LogBook, number: int, to: Head) -> None:
    log = known.get(f"log-{number}")
    assert log is not None
    known.moved(log, to)


def test_what_moved_since_comes_once_in_the_order_of_its_latest_move() -> None:
    known = book(4)
    cursor = known.changes(None).cursor
    for number in (2, 0, 2, 1, 0):
        move(known, number, head(50))
    changed = known.changes(cursor)
    assert changed.origins == ("log-2", "log-1", "log-0")
    move(known, 3, head(51))
    assert known.changes(changed.cursor).origins == ("log-3",)
    assert known.changes(cursor).origins == ("log-2", "log-1", "log-0", "log-3"), "an old cursor still counts"


def test_pages_add_up_while_heads_move(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHANGES_PAGE > 100
    monkeypatch.setattr(book_module, "CHANGES_PAGE", 3)
    known = book(8)
    first = known.changes(None)
    assert (first.origins, first.more) == (("log-0", "log-1", "log-2"), True)
    move(known, 0, head(60))  # named already, and moves again
    move(known, 5, head(60))  # not named yet
    second = known.changes(first.cursor)
    assert (second.origins, second.more) == (("log-3", "log-4", "log-6"), True)
    third = known.changes(second.cursor)
    assert (third.origins, third.more) == (("log-7", "log-0", "log-5"), False)
    assert known.changes(third.cursor).origins == ()


@pytest.mark.parametrize("sequence", [0, -5, 2])
def test_another_runs_cursor_names_everything(sequence: int) -> None:
    assert book(3).changes(Cursor("another run", sequence)).origins == ("log-0", "log-1", "log-2")


def test_two_runs_have_two_epochs() -> None:
    assert book(1).changes(None).cursor.epoch != book(1).changes(None).cursor.epoch


def test_a_cursor_out_of_range_is_no_trap() -> None:
    known = book(3)
    epoch = known.changes(None).cursor.epoch
    assert known.changes(Cursor(epoch, 10**30)).origins == ()
    assert len(known.changes(Cursor(epoch, -(10**30))).origins) == 3


async def test_keys_are_parsed_on_the_loops_thread_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge thread that parsed them could overwrite what the loop has just taken over."""
    log = SimulatedLog("book.example/keys", size=3)
    layout = make_state(tmp_path)
    trust(layout, log)
    threads = []

    def spy(text: str) -> VerifierKey:
        threads.append(threading.current_thread())
        return parse_vkey(text)

    monkeypatch.setattr(request_module, "parse_vkey", spy)
    async with core(layout) as running:
        await running.witness.add_checkpoint(log.add_checkpoint(0))
    assert threads == [threading.current_thread()]
