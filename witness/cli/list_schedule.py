"""Pulling the configured lists on schedule: a process each time (`witness.cli.pulling`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from witness.cli.child import python
from witness.cli.config import ListConfig
from witness.cli.lockdown import Lockdowns
from witness.cli.supervisor import Say

PATIENCE: Final = 600.0
"""Seconds that one reading may take; 44,000 new logs take some ten."""
FIRST: Final = 10.0
"""Seconds within which the first reading begins."""
_JITTER: Final = 0.1


async def pull_on_schedule(
    root: Path,
    lists: Sequence[ListConfig],
    environ: Mapping[str, str],
    say: Say,
    *,
    locked: Lockdowns | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Pulls each list at its interval, until cancelled.

    Args:
        root: the state folder.
        lists: which, and how often.
        environ: the processes' environment; no secret stands in it.
        say: takes lines for the operator.
        locked: what the processes give up.
        sleep: waits for seconds.
    """
    locked = locked or Lockdowns()
    async with asyncio.TaskGroup() as group:
        for each in lists:
            following = _follow(root, each, environ, say, locked=locked, sleep=sleep)
            group.create_task(following, name=f"list {each.url}")


async def _follow(
    root: Path,
    wanted: ListConfig,
    environ: Mapping[str, str],
    say: Say,
    *,
    locked: Lockdowns,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    rng = random.Random()  # noqa: S311 - jitter, not cryptography
    pause = rng.uniform(0, FIRST)
    while True:
        await sleep(pause)
        # What it met stands on stderr, which is ours, and in lists.json.
        try:
            await _pull(root, wanted.url, environ, locked)
        except TimeoutError:
            say(f"the list {wanted.url} was not read within {PATIENCE:g} s")
        except OSError as error:
            say(f"the list {wanted.url} was not read: {error}")
        pause = wanted.interval * rng.uniform(1 - _JITTER, 1 + _JITTER)


async def _pull(root: Path, url: str, environ: Mapping[str, str], locked: Lockdowns) -> None:
    child = await asyncio.create_subprocess_exec(
        *python("witness.cli.pulling"),
        os.fspath(root),
        url,
        locked.to_json(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=dict(environ),
    )
    try:
        async with asyncio.timeout(PATIENCE):
            await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
