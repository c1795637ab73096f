"""`python -m witness.cli.list_fetch URL [LOCKDOWN]`: one list of logs from the network to standard output.

A process of its own for what speaks HTTP to strangers. It is told nothing but the URL, and what it is to give
up before it speaks (`ListLockdown.fetching`); whoever called it reads a bounded number of bytes, and believes
none of them. Exit codes: 0 done, 3 the world failed, with one
line on standard error.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import witness
from feeders.fetch import HttpFetch, open_session
from feeders.protocol import FeedError
from witness.cli.log_lists import MAX_LIST
from witness.cli.outward import preload, reads
from witness.core.lockdown.adding import confine_fetching
from witness.core.lockdown.steps import LockdownSettings, RequirementUnmet

TIMEOUT: Final = 120.0
"""Seconds for the whole answer."""


async def fetch_list(url: str) -> bytes:
    """The body of the list at `url`, at most `MAX_LIST` bytes.

    Raises:
        FeedError: it could not be had.
    """
    async with open_session(connections=1) as session:
        return await HttpFetch(session, f"tlog-witness/{witness.__version__} (lists)", TIMEOUT)(url, MAX_LIST)


def _confine(told: dict[str, Any]) -> None:
    preload()
    confine_fetching(LockdownSettings.from_fields(told["lockdown"]), Path(told["state"]), reads())


def main() -> int:
    """Writes the list; returns the process's exit status."""
    url, *lockdown = sys.argv[1:]
    try:
        if lockdown:
            _confine(json.loads(lockdown[0]))
        body = asyncio.run(fetch_list(url))
    except RequirementUnmet as error:
        print(error, file=sys.stderr)  # noqa: T201 - the interface to whoever called
        return 3
    except FeedError as error:
        print(error.reason, file=sys.stderr)  # noqa: T201 - the interface to whoever called
        return 3
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
