"""The pipe that takes secrets."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from witness.core.keystore.unlocking import MAX_LINE, UnlockPipe, send
from witness.core.layout import StateLayout


def layout_in(folder: Path) -> StateLayout:
    layout = StateLayout(folder)
    layout.keys.mkdir(mode=0o700)
    return layout


class Tries:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.news = threading.Event()

    def __call__(self, device: str, secret: str, attempt: str) -> None:
        self.seen.append((device, secret, attempt))
        self.news.set()


async def test_a_secret_comes_through_and_nobody_else_reads_it(tmp_path: Path) -> None:
    layout, tries = layout_in(tmp_path), Tries()
    assert not send(layout, "tpm", "x", "1"), "nobody is there"
    pipe = UnlockPipe(layout, tries)
    pipe.make()
    mode = layout.unlock.stat().st_mode
    assert stat.S_ISFIFO(mode)
    assert stat.S_IMODE(mode) == 0o600
    pipe.listen()
    assert send(layout, "tpm", "pass wörd\n", "1")
    assert send(layout, "tpm", "another", "2")
    for _ in range(2000):
        if len(tries.seen) == 2:
            break
        await asyncio.sleep(0.005)
    assert sorted(tries.seen) == [("tpm", "another", "2"), ("tpm", "pass wörd\n", "1")]
    await pipe.close()
    assert not layout.unlock.exists()
    assert not send(layout, "tpm", "x", "1")


async def test_a_pipe_left_behind_is_replaced_and_a_dead_one_takes_nothing(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    os.mkfifo(layout.unlock)
    assert not send(layout, "tpm", "x", "1"), "it has no reader, and the sender is not held up"
    pipe = UnlockPipe(layout, Tries())
    pipe.make()
    pipe.listen()
    assert send(layout, "tpm", "x", "1")
    await pipe.close()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[" * 4000 + b"\n", b"\xff\n", b"x" * 20_000 + b"\n"])
async def test_what_is_no_try_is_let_pass(tmp_path: Path, line: bytes) -> None:
    layout, tries = layout_in(tmp_path), Tries()
    pipe = UnlockPipe(layout, tries)
    pipe.make()
    pipe.listen()
    descriptor = os.open(layout.unlock, os.O_WRONLY)
    await asyncio.to_thread(os.write, descriptor, line)
    os.close(descriptor)
    assert send(layout, "tpm", "good", "1")
    assert await asyncio.to_thread(tries.news.wait, 20)
    assert tries.seen == [("tpm", "good", "1")]
    await pipe.close()


def test_a_secret_that_would_not_fit_whole_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        send(layout_in(tmp_path), "tpm", "x" * MAX_LINE, "1")
