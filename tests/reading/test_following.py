"""A log is followed: every entry once and in order, over restarts, crashes, bad servers and forks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from feeders.protocol import BadLogData, FetchFailed
from tests.reading.world import (
    World,
    contents,
    cosigned,
    entry_log,
    reader,
    sources_of,
    trust_of,
    witness_key,
)
from witness.bundles import Options, verify
from witness.reading.following import NOW, Follower, NotBegun, Settings
from witness.reading.handing import Entry, FileHandOver, HandOverFailed
from witness.reading.heads import BadHead, Forked
from witness.reading.place import BadPlace, PlaceFolder, decode_place
from witness.tlog.merkle import MemoryTree, leaf_hash

if TYPE_CHECKING:
    from pathlib import Path

    from feeders.fetch import HttpFetch
    from witness.reading.handing import HandOver
    from witness.reading.heads import Trust

KEYS = [witness_key(f"witness.example/w{number}") for number in range(2)]
FAMILY_NAMES = ("tiles", "sumdb", "serverless")


class Taker:
    """Remembers what it was handed; fails before or after taking, on demand."""

    def __init__(self, batch: int = 256) -> None:
        self.batch = batch
        self.entries: list[Entry] = []
        self.fail_at: int | None = None  # index that is refused
        self.dies_after: int | None = None  # index after which the program ends, before it says so

    def begin(self, written: int | None) -> int | None:
        return None

    async def hand(self, entries: Sequence[Entry]) -> int | None:
        for entry in entries:
            if entry.index == self.fail_at:
                raise HandOverFailed("not now")
            self.entries.append(entry)
            if entry.index == self.dies_after:
                raise KeyboardInterrupt
        return None

    def data(self) -> list[bytes]:
        return [entry.data for entry in self.entries]


class Following:
    """What a test follows a log with; `again` is a restart on the same folder."""

    def __init__(self, world: World, fetch: HttpFetch, folder: Path, family: str = "tiles") -> None:
        self.world = world
        self.fetch = fetch
        self.folder = PlaceFolder(folder)
        folder.mkdir(exist_ok=True)
        self.family = family
        self.trust: Trust = trust_of(world.log)
        self.settings = Settings(hold=0)
        self.told: list[str] = []
        self.distributors: tuple[str, ...] = ()
        self.time = 0.0

    def again(self, hand_over: HandOver) -> Follower:
        return Follower(
            reader(self.world, self.family, self.fetch),
            self.trust,
            sources_of(self.fetch, distributors=self.distributors),
            self.folder,
            hand_over,
            settings=self.settings,
            tell=self.told.append,
            clock=lambda: self.time,
        )


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("batch", [1, 100, 256])
async def test_every_entry_once_and_in_order(
    fetch: HttpFetch, tmp_path: Path, family: str, batch: int
) -> None:
    log = entry_log()
    async with World(log) as world:
        following = Following(world, fetch, tmp_path, family)
        taker = Taker(batch)
        follower = following.again(taker)
        for more in (0, 1, 2, 252, 1, 1, 300, 0, 60):
            log.append(more)
            turn = await follower.turn()
            assert (turn.size, turn.next, turn.why_not) == (log.size, log.size, "")
            assert taker.data() == contents(log)
            if log.size % 2:
                follower = following.again(taker)  # a restart
        assert [entry.index for entry in taker.entries] == list(range(log.size))
        assert all(entry.leaf_hash == leaf_hash(entry.data) for entry in taker.entries)
        assert all(entry.index < entry.size <= log.size for entry in taker.entries)


@pytest.mark.parametrize("begin", [1, 255, 256, 257, 600, NOW])
async def test_beginning_later(fetch: HttpFetch, tmp_path: Path, begin: int) -> None:
    log = entry_log(600)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        following.settings = Settings(begin, 0)
        taker = Taker()
        await following.again(taker).turn()
        first = 600 if begin == NOW else begin
        assert taker.data() == contents(log)[first:]
        following.settings = Settings(0, 0)  # of no meaning any more
        log.append(7)
        await following.again(taker).turn()
        assert taker.data() == contents(log)[first:]


async def test_beginning_beyond_the_end(fetch: HttpFetch, tmp_path: Path) -> None:
    async with World(entry_log(5)) as world:
        following = Following(world, fetch, tmp_path)
        following.settings = Settings(6, 0)
        with pytest.raises(NotBegun):
            await following.again(Taker()).turn()
        assert following.folder.load() is None


async def test_what_is_not_taken_comes_again(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(600)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        taker = Taker(batch=1)
        taker.fail_at = 400
        follower = following.again(taker)
        for _ in range(2):
            with pytest.raises(HandOverFailed):
                await follower.turn()
            assert taker.data() == contents(log)[:400]
        taker.fail_at = None
        assert (await follower.turn()).handed == 200
        assert taker.data() == contents(log)


@pytest.mark.parametrize(("batch", "repeated"), [(1, 1), (256, 101)])
async def test_after_a_crash_the_last_batch_comes_again_and_no_more(
    fetch: HttpFetch, tmp_path: Path, batch: int, repeated: int
) -> None:
    log = entry_log(600)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        taker = Taker(batch)
        taker.dies_after = 356
        with pytest.raises(KeyboardInterrupt):
            await following.again(taker).turn()
        second = Taker(batch)
        await following.again(second).turn()
        assert taker.data() == contents(log)[:357]
        assert second.data() == contents(log)[357 - repeated :]


async def test_stopping_between_batches(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(600)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        taker = Taker(batch=10)
        stopping: Callable[[], bool] = lambda: len(taker.entries) >= 30  # noqa: E731
        turn = await following.again(taker).turn(stopping)
        assert (turn.next, turn.size) == (30, 600)
        await following.again(taker).turn()
        assert taker.data() == contents(log)


async def test_an_output_file_has_every_entry_exactly_once(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(600)
    file = tmp_path / "out.jsonl"
    async with World(log) as world:
        following = Following(world, fetch, tmp_path / "place")
        follower = following.again(FileHandOver(file))
        log.append(100)
        await follower.turn()
        with file.open("ab") as torn:  # a crash after writing, before the place was moved
            torn.write(b'{"index": 700, "torn')
        whole = file.read_bytes().rpartition(b"\n")[0] + b"\n"
        await following.again(FileHandOver(file)).turn()  # nothing new: the torn line goes all the same
        assert file.read_bytes() == whole
        log.append(50)
        await following.again(FileHandOver(file)).turn()
        lines = [json.loads(line) for line in file.read_bytes().splitlines()]
        assert [line["index"] for line in lines] == list(range(750))
        assert [line["leaf_hash"] for line in lines] == [leaf_hash(each).hex() for each in contents(log)]
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(HandOverFailed, match="lines were lost"):
            following.again(FileHandOver(file))


async def test_a_file_of_somebody_else(fetch: HttpFetch, tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"precious\n")
    async with World(entry_log(3)) as world:
        with pytest.raises(HandOverFailed, match="not empty"):
            Following(world, fetch, tmp_path / "place").again(FileHandOver(file))
    assert file.read_bytes() == b"precious\n"


# --- Checkpoints that are not witnessed ---


async def test_only_witnessed_checkpoints_are_accepted(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(9)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        following.trust = trust_of(log, KEYS, 2)
        following.distributors = (world.distributor(),)
        taker = Taker()
        follower = following.again(taker)
        turn = await follower.turn()
        assert (turn.size, turn.handed) == (None, 0)
        assert "size 9 is not accepted: expected 2 of 2" in turn.why_not
        world.distributed["checkpoint.2"] = cosigned(log, *KEYS)
        log.append(3)
        turn = await follower.turn()  # the newest that was witnessed
        assert (turn.size, turn.next) == (9, 9)
        assert "size 12 is not accepted" in turn.why_not
        assert taker.data() == contents(log)[:9]
        world.note = cosigned(log, *KEYS)
        assert (await follower.turn()).why_not == ""
        assert taker.data() == contents(log)
        # The place's own head, with its cosignatures, is what a third party can check.
        place = following.folder.load()
        assert place is not None
        assert verify(place.head, following.trust.options).verified


# --- Forks ---


def evidence_in(folder: Path, options: Options) -> None:
    (file,) = folder.glob("evidence-*.json")
    report = verify(file.read_bytes(), options)
    assert report.verified, report.checks


@pytest.mark.parametrize(
    ("known", "at", "grown"),
    [(300, 299, 1), (300, 200, 500), (256, 255, 200), (64, 63, 1), (1, 0, 5), (300, 10, 200), (300, 10, 290)],
)
async def test_forks_are_refused_and_proved(
    fetch: HttpFetch, tmp_path: Path, known: int, at: int, grown: int
) -> None:
    log = entry_log(known)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        taker = Taker()
        follower = following.again(taker)
        await follower.turn()
        fork = log.fork(at)
        fork.append(grown)
        size = fork.size
        world.log = fork
        if size < known:
            # The fork is the smaller tree: what it contradicts are the tiles of the larger.
            world.note, world.log = fork.checkpoint(), log
        for restarted in (False, True):
            with pytest.raises(Forked, match="evidence is in"):
                await (following.again(taker) if restarted else follower).turn()
        evidence_in(tmp_path, Options(logs=log.vkeys))
        assert taker.data() == contents(log)
        with pytest.raises(BadPlace, match="seen to fork"), following.folder.locked():
            pass


async def test_an_unwitnessed_fork_is_a_fork(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(20)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        following.trust = trust_of(log, KEYS, 2)
        world.note = cosigned(log, *KEYS)
        follower = following.again(Taker())
        await follower.turn()
        world.note = None
        world.log = log.fork(5)
        world.log.append(20)
        with pytest.raises(Forked):
            await follower.turn()
        evidence_in(tmp_path, Options(logs=log.vkeys))


async def test_a_fork_that_only_a_distributor_has(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(20)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        following.trust = trust_of(log, KEYS, 1)
        following.distributors = (world.distributor(),)
        fork = log.fork(5)
        fork.append(10)
        world.distributed["checkpoint.1"] = cosigned(fork, KEYS[0])
        with pytest.raises(Forked):
            await following.again(Taker()).turn()
        evidence_in(tmp_path, Options(logs=log.vkeys))


async def test_an_older_checkpoint_is_no_fork(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(300)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        follower = following.again(Taker())
        await follower.turn()
        world.note = log.checkpoint(100)
        turn = await follower.turn()
        assert "size 100 was served, 300 is known" in turn.why_not
        assert (turn.size, turn.accepted) == (300, False)


# --- Servers that fail or lie ---


@pytest.mark.parametrize("family", FAMILY_NAMES)
async def test_entries_of_another_tree_are_not_handed_over(
    fetch: HttpFetch, tmp_path: Path, family: str
) -> None:
    log = entry_log(300)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path, family)
        taker = Taker()
        follower = following.again(taker)
        world.wrong_entries = True
        with pytest.raises(BadLogData, match="not those of the tree"):
            await follower.turn()
        assert not taker.entries
        world.wrong_entries = False
        await follower.turn()
        assert taker.data() == contents(log)


async def test_bad_tiles_are_no_fork_and_pass(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(300)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        follower = following.again(Taker())
        await follower.turn()
        log.append(600)
        world.faults.tiles_only = world.faults.wrong_tiles = True
        with pytest.raises(BadLogData):
            await follower.turn()
        world.faults.wrong_tiles = False
        assert (await follower.turn()).next == 900


async def test_failures_leave_the_place_where_it_was(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(300)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        follower = following.again(Taker())
        await follower.turn()
        before = (tmp_path / "place.json").read_bytes()
        log.append(3)
        world.faults.status = 503
        with pytest.raises(FetchFailed):
            await follower.turn()
        world.faults.status = 200
        log.sign_wrongly = True
        with pytest.raises(BadHead):
            await follower.turn()
        assert (tmp_path / "place.json").read_bytes() == before


# --- Partial bundles ---


async def test_a_busy_logs_partial_bundles_are_left_alone_for_a_while(
    fetch: HttpFetch, tmp_path: Path
) -> None:
    log = entry_log(300)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        following.settings = Settings(hold=60)
        follower = following.again(Taker())
        assert (await follower.turn()).next == 256
        following.time = 59
        assert (await follower.turn()).next == 256
        following.time = 60
        assert (await follower.turn()).next == 300
        log.append(1)  # a slow log is not held back
        assert (await follower.turn()).next == 301
        world.forget()
        for _ in range(3):
            log.append(300)
            following.time += 1
            await follower.turn()
        bundles = [path for path in world.requests if "entries" in path]
        assert bundles == [f"tiles/tile/entries/00{number}" for number in (1, 2, 3)]
        following.time += 60
        assert (await follower.turn()).next == 1201


async def test_few_requests_for_many_entries(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(256 * 20)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        await following.again(Taker()).turn()
        assert len(world.requests) <= 20 + 2


# --- The place ---


async def test_a_damaged_place_is_never_a_fresh_start(fetch: HttpFetch, tmp_path: Path) -> None:
    log = entry_log(300)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        await following.again(Taker()).turn()
        path = tmp_path / "place.json"
        whole = path.read_bytes()
        members = json.loads(whole)
        bad = [b"", whole[:-20], b"{}", b"[]", whole.replace(b"place/v1", b"place/v2")]
        bad += [
            json.dumps(members | change).encode()
            for change in (
                {"next": 299},
                {"next": 301},
                {"next": True},
                {"next": -1},
                {"edge": members["edge"][:-1]},
                {"edge": members["edge"][::-1]},
                {"checkpoint": ""},
                {"checkpoint": log.checkpoint(299).decode()},
                {"written": -1},
            )
        ]
        for data in bad:
            path.write_bytes(data)
            with pytest.raises(BadPlace):
                following.again(Taker())
        path.write_bytes(whole)
        assert decode_place(whole).edge.size == 300


async def test_a_place_of_another_log(fetch: HttpFetch, tmp_path: Path) -> None:
    async with World(entry_log(3)) as world:
        following = Following(world, fetch, tmp_path)
        await following.again(Taker()).turn()
        following.trust = trust_of(entry_log(3, "other.example/log"))
        with pytest.raises(BadPlace, match="not trusted"):
            following.again(Taker())


def test_one_program_at_a_time(tmp_path: Path) -> None:
    folder = PlaceFolder(tmp_path / "made" / "here")
    other = PlaceFolder(folder.folder)
    with folder.locked(), pytest.raises(BadPlace, match="another program"), other.locked():
        pass
    with folder.locked():
        pass


async def test_a_place_is_written_whole_or_not_at_all(
    fetch: HttpFetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = entry_log(10)
    async with World(log) as world:
        following = Following(world, fetch, tmp_path)
        follower = following.again(Taker())
        await follower.turn()
        before = (tmp_path / "place.json").read_bytes()
        synced: list[str] = []

        def no_space(descriptor: int) -> None:
            synced.append("asked")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("witness.reading.place.os.fsync", no_space)
        log.append(5)
        with pytest.raises(OSError, match="No space"):
            await follower.turn()
        assert synced
        assert (tmp_path / "place.json").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["place.json"]


def test_the_simulated_tree_is_that_of_its_contents() -> None:
    log = entry_log(70)
    tree = MemoryTree()
    for content in contents(log):
        tree.append(content)
    assert tree.root() == log.root()
