"""`python -m tests.lockdown.inside`: the real core, which tries to get out once it is ready.

It reads the core's settings, then a line of JSON with what to try on; it says on its standard output what
each try met, and serves on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

from tests.lockdown.attempts import from_inside
from witness.core.layout import StateLayout
from witness.core.lockdown.sequence import CoreLockdown
from witness.core.process import install_signals, serve
from witness.core.settings import CoreSettings


def main() -> int:
    settings = CoreSettings.from_json(sys.stdin.readline())
    aims = json.loads(sys.stdin.readline())
    state = Path(settings.state_dir)
    lockdown = CoreLockdown(settings.lockdown, StateLayout(state), front=settings.front_account)
    lockdown.begin()

    def ready() -> None:
        met = from_inside(state, aims["tcp"], aims["unix"], os.getppid())
        sys.stdout.write(json.dumps({"ready": True, "met": met}) + "\n")
        sys.stdout.flush()

    async def run() -> None:
        stop = asyncio.Event()
        install_signals(stop)
        await serve(settings, ready, stop, lockdown)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
