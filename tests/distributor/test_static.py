"""The monitoring layout as files."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from distributor.protocol import PublishFailed, PublishRejected, TargetUnavailable
from distributor.static import MAX_NOTE, StaticTarget
from tests.distributor.world import WITNESS, cosigned, size_of
from witness.tlog.note import Signature, format_note, parse_note

ORIGIN = "log.example/one"
HASH = hashlib.sha256(ORIGIN.encode()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "monitoring"


@pytest.fixture
def target(folder: Path) -> StaticTarget:
    return StaticTarget(folder, WITNESS)


async def test_layout_and_modes(folder: Path, target: StaticTarget) -> None:
    old = os.umask(0o077)
    try:
        await target.publish(ORIGIN, cosigned(ORIGIN, 5))
    finally:
        os.umask(old)
    file = folder / HASH / "checkpoint"
    assert file.read_bytes() == cosigned(ORIGIN, 5)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    assert [path.name for path in (folder / HASH).iterdir()] == ["checkpoint"]


async def test_order_of_what_makes_it_durable(
    folder: Path, target: StaticTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before it gets its name, the folder after; and a new folder's name is too."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def traced_fsync(descriptor: int) -> None:
        calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def traced_rename(*args: object, **kwargs: object) -> None:
        calls.append("rename")
        rename(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "rename", traced_rename)
    await target.publish(ORIGIN, cosigned(ORIGIN, 5))
    assert calls == ["sync monitoring", "sync .checkpoint.new", "rename", f"sync {HASH}"]


async def test_reader_never_sees_a_part(folder: Path, target: StaticTarget) -> None:
    notes = [cosigned(ORIGIN, size) for size in range(1, 120)]
    whole = set(notes)
    await target.publish(ORIGIN, notes[0])
    seen: list[bytes] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append((folder / HASH / "checkpoint").read_bytes())

    reader = asyncio.create_task(asyncio.to_thread(read))
    try:
        for note in notes[1:]:
            await target.publish(ORIGIN, note)
    finally:
        done.set()
    await reader
    assert set(seen) <= whole
    assert len(set(seen)) > 1  # else the reader saw nothing of the changes
    sizes = [size_of(note) for note in seen]
    assert sizes == sorted(sizes)


async def test_size_going_down_is_refused(folder: Path, target: StaticTarget) -> None:
    await target.publish(ORIGIN, cosigned(ORIGIN, 9))
    with pytest.raises(PublishFailed, match="size 9, larger than 8"):
        await target.publish(ORIGIN, cosigned(ORIGIN, 8, timestamp=1_800_000_000))
    assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 9)


async def test_same_size_with_another_root_is_refused(folder: Path, target: StaticTarget) -> None:
    await target.publish(ORIGIN, cosigned(ORIGIN, 9))
    with pytest.raises(PublishRejected, match="another root"):
        await target.publish(ORIGIN, cosigned(ORIGIN, 9, fork="x", timestamp=1_800_000_000))
    assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 9)


async def test_newer_cosignature_of_the_same_checkpoint_replaces_and_older_does_not(
    folder: Path, target: StaticTarget
) -> None:
    await target.publish(ORIGIN, cosigned(ORIGIN, 9, timestamp=1_000))
    await target.publish(ORIGIN, cosigned(ORIGIN, 9, timestamp=3_000))
    await target.publish(ORIGIN, cosigned(ORIGIN, 9, timestamp=2_000))
    assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 9, timestamp=3_000)


async def test_only_our_own_cosignatures_tell_the_age(folder: Path, target: StaticTarget) -> None:
    note = parse_note(cosigned(ORIGIN, 9, timestamp=1_000))
    future = (9_000).to_bytes(8, "big") + bytes(64)
    other = Signature("other.example", b"\0\0\0\1", future)
    await target.publish(ORIGIN, format_note(note.text, [*note.signatures, other]))
    await target.publish(ORIGIN, cosigned(ORIGIN, 9, timestamp=2_000))
    assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 9, timestamp=2_000)


@pytest.mark.parametrize("junk", [b"", b"half a check", cosigned("another.log", 99), b"x" * (MAX_NOTE + 1)])
async def test_what_is_no_checkpoint_of_the_origin_is_replaced(
    junk: bytes, folder: Path, target: StaticTarget
) -> None:
    (folder / HASH).mkdir(parents=True)
    (folder / HASH / "checkpoint").write_bytes(junk)
    await target.publish(ORIGIN, cosigned(ORIGIN, 1))
    assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 1)


@pytest.mark.parametrize(
    "note", [b"", b"no note", cosigned("another.log", 1), b"no\ncheckpoint\n\n\xe2\x80\x94 a AAAAAAA=\n"]
)
async def test_only_checkpoints_of_the_origin_are_published(
    note: bytes, folder: Path, target: StaticTarget
) -> None:
    with pytest.raises(PublishRejected):
        await target.publish(ORIGIN, note)
    assert not folder.exists()


async def test_link_in_place_of_the_origins_folder(
    tmp_path: Path, folder: Path, target: StaticTarget
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    (folder / HASH).symlink_to(outside, target_is_directory=True)
    with pytest.raises(PublishRejected, match="not a plain file or folder"):
        await target.publish(ORIGIN, cosigned(ORIGIN, 1))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["checkpoint", ".checkpoint.new"])
async def test_link_in_place_of_a_file_is_never_written_through(
    name: str, tmp_path: Path, folder: Path, target: StaticTarget
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    (folder / HASH).mkdir(parents=True)
    (folder / HASH / name).symlink_to(victim)
    if name == "checkpoint":  # what stands there cannot be compared: an operator's affair
        with pytest.raises(PublishRejected, match="not a plain file or folder"):
            await target.publish(ORIGIN, cosigned(ORIGIN, 1))
    else:  # a name of ours alone: swept away
        await target.publish(ORIGIN, cosigned(ORIGIN, 1))
        assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 1)
    assert victim.read_bytes() == b"precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("kind", ["fifo", "folder"])
async def test_neither_a_fifo_nor_a_folder_holds_it_up(kind: str, folder: Path, target: StaticTarget) -> None:
    (folder / HASH).mkdir(parents=True)
    place = folder / HASH / "checkpoint"
    if kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    before = descriptors()
    with pytest.raises(PublishRejected, match="not a plain file"):
        await target.publish(ORIGIN, cosigned(ORIGIN, 1))
    assert descriptors() == before


async def test_another_process_that_writes_there_is_waited_for(folder: Path, target: StaticTarget) -> None:
    (folder / HASH).mkdir(parents=True)
    lock = os.open(folder / HASH, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(PublishFailed, match="another process"):
        await target.publish(ORIGIN, cosigned(ORIGIN, 1))
    os.close(lock)
    await target.publish(ORIGIN, cosigned(ORIGIN, 1))
    assert (folder / HASH / "checkpoint").exists()


async def test_failing_file_system(
    folder: Path, target: StaticTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    await target.publish(ORIGIN, cosigned(ORIGIN, 1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TargetUnavailable, match="No space left on device"):
            await target.publish(ORIGIN, cosigned(ORIGIN, 2))
    assert (folder / HASH / "checkpoint").read_bytes() == cosigned(ORIGIN, 1)
    await target.publish(ORIGIN, cosigned(ORIGIN, 2))  # the left-over is swept away
    assert [path.name for path in (folder / HASH).iterdir()] == ["checkpoint"]
