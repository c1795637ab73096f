"""How the core, the device host and its workers talk: JSON objects over socket pairs, each after its length.

Nobody else can reach these sockets: they have no name, and are inherited.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import socket
import struct
from typing import Any, Final

from witness.core.keystore.base import BY_CODE, KeystoreError

LENGTH: Final = struct.Struct(">I")
MAX_MESSAGE: Final = 1024 * 1024
STATEMENTS: Final = "--statements"
"""What host and workers are started with where succession statements may be signed."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


class Closed(Exception):
    """The other side is gone."""


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes, its length before it."""
    data = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(data)) + data


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` packed, without its length.

    Raises:
        Closed: it is something else; the connection is of no further use.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Closed from error
    if not isinstance(message, dict):
        raise Closed
    return message


def length(header: bytes) -> int:
    """The bytes of the message that a header announces.

    Raises:
        Closed: more than there ever are.
    """
    (size,) = LENGTH.unpack(header)
    if size > MAX_MESSAGE:
        raise Closed
    return int(size)


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Sends a message whole.

    Raises:
        OSError: the other side is gone.
    """
    connection.sendall(pack(message))


def receive(connection: socket.socket) -> dict[str, Any]:
    """The next message; waits for it.

    Raises:
        Closed: there will be none.
    """
    return unpack(_exactly(connection, length(_exactly(connection, LENGTH.size))))


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = connection.recv(size - len(parts))
        except OSError as error:
            raise Closed from error
        if not part:
            raise Closed
        parts += part
    return bytes(parts)


def error_fields(error: KeystoreError) -> list[str]:
    """An error for the way: its code, reason and hint."""
    return [error.code, error.reason, error.hint]


def to_error(fields: list[str]) -> KeystoreError:
    """The error that `error_fields` took apart."""
    code, reason, hint = fields
    return BY_CODE.get(code, KeystoreError)(reason, hint)


def to_b64(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def from_b64(text: str) -> bytes:
    """The bytes again."""
    return base64.b64decode(text, validate=True)


def tie_to_parent() -> None:
    """Ends this process with its parent, and keeps its memory from its user's other processes (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getppid()
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
