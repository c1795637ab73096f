"""What every store keeps, whatever stands behind it: one suite over all backends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.core.memory_store import MemoryStore, Shared
from tests.core.state import IDENTITY, NAME, START
from tests.simulated_log import SimulatedKey
from witness.core.store import schema
from witness.core.store.base import Advance, Contradiction, CosignedHead, Head, Identity, Store
from witness.core.store.logs import LogBook, LogSettings
from witness.core.store.sqlite import MAX_CONTRADICTIONS_PER_LOG, SQLiteStore
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import SignatureType, make_vkey


@dataclass
class Backend:
    """A fresh database: `open` gives one more connection, `configure` is the operator's hand."""

    open: Callable[[], Store]
    configure: Callable[..., int]


def _memory(_folder: Path) -> Backend:
    shared = Shared(Identity(NAME, IDENTITY))
    operator = MemoryStore(shared)

    def configure(origin: str, *numbers: int, disabled: bool = False) -> int:
        return operator.configure(origin, _vkeys(origin, numbers or (0,)), disabled=disabled)

    return Backend(lambda: MemoryStore(shared), configure)


def _sqlite(folder: Path) -> Backend:
    path = folder / "witness.db"
    schema.create(path, name=NAME, identity=IDENTITY, now=START)

    def configure(origin: str, *numbers: int, disabled: bool = False) -> int:
        keys = tuple(SimulatedKey(origin, number=n).vkey for n in numbers or (0,))
        with LogBook(path) as book, book.transaction():
            book.add(origin, keys, LogSettings(disabled=disabled), source="test", now=START)
        with LogBook(path) as book:
            return book.get(origin)[0].log_id

    return Backend(lambda: SQLiteStore(path), configure)


def _vkeys(origin: str, numbers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(str(SimulatedKey(origin, number=n).vkey) for n in numbers)


@pytest.fixture(params=[_sqlite, _memory], ids=["sqlite", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return cast("Callable[[Path], Backend]", request.param)(tmp_path)


@pytest.fixture
def store(backend: Backend) -> Iterator[Store]:
    opened = backend.open()
    yield opened
    opened.close()


def root(text: object) -> bytes:
    return hashlib.sha256(str(text).encode()).digest()


def cosigned(size: int, *, branch: str = "", at: int = START) -> CosignedHead:
    head = Head(size, root(f"{size}{branch}"), at)
    return CosignedHead(head, f"note {size}{branch}\n".encode(), f"lines {size}{branch} {at}\n".encode())


def test_identity(store: Store) -> None:
    assert store.identity() == Identity(NAME, IDENTITY)


def test_a_log_never_cosigned_has_no_head(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    assert store.head(log) is None
    assert store.cosigned_by_id(log) is None
    assert store.cosigned(origin_hash("a")) is None
    assert store.cosigned(origin_hash("nobody")) is None
    assert store.last_timestamp() == 0
    assert [(record.origin, head) for record, head in store.load()] == [("a", None)]


def test_moves_are_what_is_read_back(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    first, second = cosigned(3), cosigned(9, at=START + 5)
    assert store.advance([Advance(log, None, first)]) == [True]
    assert store.advance([Advance(log, first.head, second)]) == [True]
    for reader in (store, backend.open()):
        assert reader.head(log) == second.head
        assert reader.cosigned_by_id(log) == second
        assert reader.cosigned(origin_hash("a")) == second
        assert reader.last_timestamp() == START + 5
        assert [head for _, head in reader.load()] == [second.head]


def test_an_empty_batch_moves_nothing(store: Store) -> None:
    assert store.advance([]) == []


def test_size_zero_is_a_head(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    assert store.advance([Advance(log, None, cosigned(0))]) == [True]
    assert store.head(log) == cosigned(0).head
    assert store.advance([Advance(log, None, cosigned(4))]) == [False]


def test_the_same_head_is_signed_anew_but_never_with_an_earlier_time(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    first, later, earlier = cosigned(3), cosigned(3, at=START + 9), cosigned(3, at=START + 8)
    assert store.advance([Advance(log, None, first)]) == [True]
    assert store.advance([Advance(log, first.head, later)]) == [True]
    assert store.advance([Advance(log, later.head, earlier)]) == [False]
    assert store.cosigned_by_id(log) == later


@pytest.mark.parametrize(
    "before",
    [None, cosigned(2).head, cosigned(4).head, cosigned(3, branch="fork").head],
    ids=["none", "smaller", "larger", "another root"],
)
def test_a_move_from_another_head_is_not_made(backend: Backend, store: Store, before: Head | None) -> None:
    log = backend.configure("a")
    stored = cosigned(3)
    assert store.advance([Advance(log, None, stored)]) == [True]
    assert store.advance([Advance(log, before, cosigned(7))]) == [False]
    assert store.cosigned_by_id(log) == stored


def test_a_move_from_a_head_that_is_not_there_is_not_made(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    assert store.advance([Advance(log, cosigned(3).head, cosigned(7))]) == [False]
    assert store.head(log) is None


def test_one_lost_move_does_not_hold_up_the_others(backend: Backend, store: Store) -> None:
    logs = [backend.configure(f"log-{n}") for n in range(3)]
    assert store.advance([Advance(logs[1], None, cosigned(5))]) == [True]
    assert store.advance([Advance(log, None, cosigned(8)) for log in logs]) == [True, False, True]
    assert [store.head(log) for log in logs] == [cosigned(8).head, cosigned(5).head, cosigned(8).head]


def test_of_two_moves_of_one_log_in_a_batch_the_second_loses(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    moves = [Advance(log, None, cosigned(5)), Advance(log, None, cosigned(6))]
    assert store.advance(moves) == [True, False]
    assert store.head(log) == cosigned(5).head


@pytest.mark.parametrize("connections", [1, 4])
def test_of_racing_moves_exactly_one_is_made(backend: Backend, connections: int) -> None:
    """Eight threads, on one connection or on several, move one head twenty times: each step is made once."""
    log = backend.configure("a")
    stores = [backend.open() for _ in range(connections)]
    stores[0].advance([Advance(log, None, cosigned(1))])
    won: list[list[str]] = []
    for step in range(2, 22):
        start, winners = threading.Barrier(8), []

        def race(
            number: int, step: int = step, start: threading.Barrier = start, into: list[str] = winners
        ) -> None:
            branch = "" if number == 0 else f" by {number}"
            before = stores[0].head(log)
            start.wait(20)
            after = cosigned(step, branch=branch)
            if stores[number % connections].advance([Advance(log, before, after)]) == [True]:
                into.append(branch)

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        won.append(winners)
        assert len(winners) == 1, winners
        assert stores[-1].cosigned_by_id(log) == cosigned(step, branch=winners[0])
    for store in stores:
        store.close()


def test_load_pages_through_changes_in_order(backend: Backend, store: Store) -> None:
    for number in range(7):
        backend.configure(f"log-{number}")
    backend.configure("log-2", 0, 1)  # a further key: its change is now the last
    seen, since = [], 0
    while page := list(store.load(since, 3)):
        assert len(page) <= 3
        seen += [record.origin for record, _ in page]
        changes = [record.change for record, _ in page]
        assert changes == sorted(changes)
        assert changes[0] > since
        since = changes[-1]
    assert seen == ["log-0", "log-1", "log-3", "log-4", "log-5", "log-6", "log-2"]
    ((record, _),) = store.load(since - 1)
    assert record.vkeys == _vkeys("log-2", (0, 1))


def test_a_page_may_be_left_early(backend: Backend, store: Store) -> None:
    for number in range(4):
        backend.configure(f"log-{number}")
    next(iter(store.load()))
    for _record, _head in store.load(0, 3):
        break
    assert len(list(store.load())) == 4
    assert store.last_timestamp() == 0


def test_a_disabled_log_keeps_its_head(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    store.advance([Advance(log, None, cosigned(3))])
    assert backend.configure("a", disabled=True) == log
    ((record, head),) = store.load()
    assert record.disabled
    assert head == cosigned(3).head
    assert store.cosigned(origin_hash("a")) == cosigned(3)


def test_changed_tells_of_others_once_and_never_of_ourselves(backend: Backend, store: Store) -> None:
    assert not store.changed()
    log = backend.configure("a")
    assert store.changed()
    assert not store.changed()
    store.advance([Advance(log, None, cosigned(3))])
    assert not store.changed()
    other = backend.open()
    other.advance([Advance(log, cosigned(3).head, cosigned(4))])
    other.close()
    assert store.changed()
    assert not store.changed()


def contradiction(log: int, number: int, stored: bytes = b"stored") -> Contradiction:
    return Contradiction(log, "root-mismatch", START, 3, stored, b"offered %d" % number, b"")


def test_contradictions_are_kept_once(backend: Backend, store: Store) -> None:
    log = backend.configure("a")
    assert store.contradictions() == 0
    assert store.keep_contradiction(contradiction(log, 0))
    assert not store.keep_contradiction(contradiction(log, 0))
    assert store.keep_contradiction(contradiction(log, 1))
    assert store.keep_contradiction(contradiction(log, 0, b"another stored"))
    assert store.contradictions() == 3
    assert backend.open().contradictions() == 3


def test_contradictions_are_bounded_for_each_log(backend: Backend, store: Store) -> None:
    loud, other = backend.configure("loud"), backend.configure("other")
    kept = [store.keep_contradiction(contradiction(loud, n)) for n in range(MAX_CONTRADICTIONS_PER_LOG + 3)]
    assert kept == [True] * MAX_CONTRADICTIONS_PER_LOG + [False] * 3
    assert store.keep_contradiction(contradiction(other, 0, b"of another log"))
    assert store.contradictions() == MAX_CONTRADICTIONS_PER_LOG + 1


def test_every_row_of_the_largest_values_survives(backend: Backend, store: Store) -> None:
    log = backend.configure("ö" * 127)
    largest = CosignedHead(Head(2**63 - 1, b"\xff" * 32, 2**62), b"\x00\n" * 60_000, b"\xff" * 5000)
    assert store.advance([Advance(log, None, largest)]) == [True]
    assert store.cosigned(origin_hash("ö" * 127)) == largest


def test_keys_of_every_type_come_back_as_text(backend: Backend, store: Store) -> None:
    backend.configure("a", 0, 1, 2)
    ((record, _),) = store.load()
    assert record.vkeys == _vkeys("a", (0, 1, 2))
    assert all(text == str(make_vkey("a", SignatureType.ED25519, SimulatedKey("a", number=n).vkey.public_key))
               for n, text in enumerate(record.vkeys))  # fmt: skip
