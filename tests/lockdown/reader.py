"""`python -m tests.lockdown.reader`: what reads lists, as it is after its lock-down, tries to get out.

It reads a line of JSON: which of the two it is, its lock-down, the state folder, and what to try on. It says
what each try met.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lockdown.attempts import attempt
from witness.cli.outward import preload, reads
from witness.core.layout import StateLayout
from witness.core.lockdown.adding import AddingLockdown, confine_fetching
from witness.core.lockdown.steps import LockdownSettings
from witness.core.store.logs import LogBook

preload()  # while whoever starts us may still read Python's library


def main() -> int:
    told = json.loads(sys.stdin.readline())
    layout, lockdown = StateLayout(Path(told["state"])), LockdownSettings.from_fields(told["lockdown"])
    if told["which"] == "fetching":
        if told["confined"]:
            confine_fetching(lockdown, layout.root, reads())
        met = tries(layout, told["tcp"])
    else:
        adding = AddingLockdown(lockdown, layout)
        if told["confined"]:
            adding.begin()
        with LogBook(layout.database) as book:
            scratch = layout.root / "scratch"
            scratch.touch()
            if told["confined"]:
                adding.finish((scratch,))
            met = tries(layout, told["tcp"])
            with book.transaction():
                met["list logs"] = attempt(book.all)
            scratch.write_text("x")
            scratch.replace(layout.root / "lists.json")
    print(json.dumps(met))
    return 0


def tries(layout: StateLayout, tcp: int) -> dict[str, Any]:
    def connect() -> None:
        with socket.create_connection(("127.0.0.1", tcp), timeout=20):
            pass

    def execute() -> None:
        subprocess.run(["/bin/true"], check=True)

    def to_core() -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(str(layout.core_socket))

    return {
        "database": attempt(lambda: layout.database.open("rb").close()),
        "keys": attempt(lambda: layout.softkey.open("rb").close()),
        "configuration": attempt(lambda: layout.config.open("rb").close()),
        "shadow": attempt(lambda: Path("/etc/shadow").open("rb").close()),
        "home": attempt(lambda: (layout.root.parent / "secret").open("rb").close()),
        "connect": attempt(connect),
        "core": attempt(to_core),
        "execute": attempt(execute),
        "fork": attempt(lambda: os.fork() or os._exit(0)),
        "kill": attempt(lambda: os.kill(os.getppid(), 0)),
    }


if __name__ == "__main__":
    sys.exit(main())
