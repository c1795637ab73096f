"""What a running daemon says of itself, over the sockets in its state folder."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

from witness.cli.watchdog import NoAnswer
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError, CoreUnreachable
from witness.core.wire import CoreStatus
from witness.front.client import connect_once

DEADLINE: Final = 5.0
"""Seconds that the daemon has to answer a command."""
_MAX_STATUS: Final = 64 * 1024 * 1024
_OK: Final = 200


async def ask_status(layout: StateLayout) -> CoreStatus:
    """How the core is.

    Raises:
        CoreError: no core answers at the folder's socket.
    """
    async with connect_once(str(layout.core_socket), deadline=DEADLINE) as core:
        return await core.status()


async def core_answers(layout: StateLayout) -> None:
    """Asks the core how it is; returns once it has answered, whatever it said.

    Raises:
        NoAnswer: it did not.
    """
    try:
        await ask_status(layout)
    except CoreUnreachable as error:
        raise NoAnswer(str(error)) from error
    except CoreError:
        return


async def front_answers(path: Path) -> None:
    """Asks a front at its own socket, or the feeder at its; returns once it has said anything in HTTP.

    Raises:
        NoAnswer: it did not.
    """
    writer = None
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: witness\r\nConnection: close\r\n\r\n")
        if not await reader.read(1):
            raise NoAnswer("it closed the connection")
    except OSError as error:
        raise NoAnswer(str(error)) from error
    finally:
        if writer is not None:
            writer.close()


def core_status(layout: StateLayout) -> CoreStatus | None:
    """How the core is; None where no core answers at the folder's socket."""
    try:
        return asyncio.run(ask_status(layout))
    except CoreError:
        return None


def core_checkpoint(layout: StateLayout, origin_hash: bytes) -> bytes:
    """The latest cosigned checkpoint as the core serves it, by the 32-byte SHA-256 of its origin.

    Raises:
        CoreError: it has none, or no core answers.
    """

    async def ask() -> bytes:
        async with connect_once(str(layout.core_socket), deadline=DEADLINE) as core:
            return await core.checkpoint(origin_hash)

    return asyncio.run(ask())


def front_status(layout: StateLayout) -> dict[str, Any] | None:
    """The front's status document; None where no front answers at the folder's socket."""
    connection = _UnixConnection(layout.front_socket, DEADLINE)
    try:
        connection.request("GET", "/status.json")
        response = connection.getresponse()
        document = json.loads(response.read(_MAX_STATUS)) if response.status == _OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return document if isinstance(document, dict) else None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Connects to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
