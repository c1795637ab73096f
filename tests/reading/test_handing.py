"""Handing over: to a command that may fail or hang, and to a stream."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING

import pytest

from witness.reading.handing import CommandHandOver, Entry, HandOverFailed, LinesHandOver

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = Entry("example.com/log é", 5, b"\0an entry\n" * 100_000, bytes(range(32)), 9)


async def test_a_command_is_given_the_entry_and_its_facts(tmp_path: Path) -> None:
    program = (
        "import os,sys;"
        "data=sys.stdin.buffer.read();"
        f"open({str(tmp_path / 'out')!r},'wb').write(data);"
        f"open({str(tmp_path / 'facts')!r},'w').write("
        "repr({k:v for k,v in os.environ.items() if k.startswith('WITNESS_')}))"
    )
    await CommandHandOver([sys.executable, "-c", program], os.environ, 60).hand([ENTRY])
    assert (tmp_path / "out").read_bytes() == ENTRY.data
    facts = eval((tmp_path / "facts").read_text())
    assert facts["WITNESS_ORIGIN"] == ENTRY.origin
    assert facts["WITNESS_INDEX"] == "5"
    assert facts["WITNESS_LEAF_HASH"] == bytes(range(32)).hex()
    assert facts["WITNESS_SIZE"] == "9"


async def test_a_command_may_leave_its_input_unread() -> None:
    await CommandHandOver([sys.executable, "-c", ""], os.environ, 60).hand([ENTRY])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{shlex.quote(sys.executable)} -c 'raise SystemExit(3)'", "entry 5: ended with exit code 3"),
        (f"{shlex.quote(sys.executable)} -c 'import os; os.kill(os.getpid(), 9)'", "ended by signal 9"),
        ("/nowhere/at-all", "No such file"),
    ],
)
async def test_commands_that_do_not_take_it(command: str, said: str) -> None:
    with pytest.raises(HandOverFailed, match=said):
        await CommandHandOver(shlex.split(command), os.environ, 60).hand([ENTRY])


async def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    child = f"import time\nwhile True:\n open({str(alive)!r},'a').write('x')\n time.sleep(0.01)"
    program = f"import subprocess,sys; subprocess.run([sys.executable,'-c',{child!r}])"
    with pytest.raises(HandOverFailed, match="not done within"):
        await CommandHandOver([sys.executable, "-c", program], os.environ, 1.0).hand([ENTRY])
    if alive.exists():
        size = alive.stat().st_size
        time.sleep(0.2)
        assert alive.stat().st_size == size


async def test_lines(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as file:
        await LinesHandOver(file).hand([ENTRY, ENTRY])
        (one, other) = (tmp_path / "lines").read_bytes().splitlines()
    assert one == other
    line = json.loads(one)
    assert set(line) == {"origin", "index", "leaf_hash", "size", "entry"}
    assert (line["origin"], line["index"], line["size"]) == (ENTRY.origin, 5, 9)


async def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError), io.FileIO(writing, "w") as stream:
        await LinesHandOver(stream).hand([ENTRY])  # type: ignore[arg-type]
