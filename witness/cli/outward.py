"""What the supervisor's children that talk to the world have in common: the front, and the feeders' process.

Their standard input brings one line, the settings, and then stays open as their life line: at end of file
whoever started them is gone, and they end too. Their standard output carries one line, `{"ready": true, …}`
or `{"error": …, "hint": …}`; their log goes to standard error.

Nothing of the store, of keys or of YAML is imported here: these processes could not reach them, and would pay
for them in memory.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import importlib
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

import uvloop

import distributor
import feeders
import witness
from witness.cli.front_settings import BadSettings
from witness.core.lockdown import confinement
from witness.core.lockdown.steps import LockdownSettings, RequirementUnmet
from witness.front.client import CoreClient
from witness.front.listeners import CannotListen

CONNECT_SECONDS: Final = 10.0
"""How long readiness waits for the core, which was ready before we were started."""

LATER: Final = ("stringprep",)
"""Modules that the libraries import when they first need them."""
CODECS: Final = ("idna", "punycode", "ascii", "latin-1", "utf-8-sig")
"""Encodings that they use: host names, above all. Python imports an encoding when it is first used."""


def run(main: Callable[[], Coroutine[None, None, None]], lockdown: LockdownSettings, log_level: str) -> int:
    """Runs a child's coroutine; what could be foreseen is told in the one line. Returns the exit status."""
    logging.basicConfig(
        level=log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    confinement.prepare(lockdown)
    preload()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except ExceptionGroup as group:
        fault = _foreseen(group)
        if fault is None:
            raise
        return fail(str(fault), _hint(fault))
    return 0


def stop_event() -> asyncio.Event:
    """Set by SIGTERM, by SIGINT, and at the end of the life line."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(0, _life_line, stop)
    return stop


async def connected(core: CoreClient) -> None:
    """Waits for the core, for a while: a child is ready without it too, and says so in its status."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            await core.wait_connected()


def reads() -> list[Path]:
    """Our own code, and the certificates that TLS trusts."""
    code = [path for package in (witness, feeders, distributor) for path in package.__path__]
    tls = ssl.get_default_verify_paths()
    certificates = [
        tls.cafile, tls.capath, tls.openssl_cafile, tls.openssl_capath,
        os.environ.get(tls.openssl_cafile_env), os.environ.get(tls.openssl_capath_env),
    ]  # fmt: skip
    return [Path(path) for path in (*code, *certificates) if path]


def user_agent(name: str, contact: str) -> str:
    """Who asks a server, and where to complain."""
    whom = "; ".join(part for part in (name, contact) if part)
    printable = "".join(c for c in whom if c.isascii() and c.isprintable() and c not in "()\\")
    return f"tlog-witness/{witness.__version__} ({printable})"


def say(line: dict[str, object]) -> None:
    """The one line."""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)  # noqa: T201 - this line is the interface to whoever started us


def fail(error: str, hint: str = "") -> int:
    """The one line of a child that cannot run; its exit status."""
    say({"error": error, "hint": hint})
    return 3


def _foreseen(
    group: BaseExceptionGroup[Exception],
) -> CannotListen | BadSettings | RequirementUnmet | None:
    """The one error that can be foreseen, if it is the only one that the task groups gathered."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        if len(found.exceptions) != 1:
            return None
        found = found.exceptions[0]
    return found if isinstance(found, (CannotListen, BadSettings, RequirementUnmet)) else None


def preload() -> None:
    """Loads what would be imported later: by then the process may not read where that is."""
    for codec in CODECS:
        codecs.lookup(codec)
    for module in LATER:
        importlib.import_module(module)


def _life_line(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        stop.set()


def _hint(error: BaseException) -> str:
    if isinstance(error, RequirementUnmet):
        return error.hint
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        return (
            "another program listens there: stop it, or give another address with --listen or in witness.yaml"
        )
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
        return "choose another address with listen in witness.yaml or --listen"
    return ""
