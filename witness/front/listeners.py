"""The sockets that a front listens at: taken before it serves, and before it gives up its privileges."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from witness.front.settings import TcpAddress, UnixAddress, parse_address

BACKLOG = 1024
"""Connections that may wait to be accepted: bursts come at the turn of the second."""


class CannotListen(Exception):
    """An address cannot be listened on; `address` is as configured."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason


def bind(addresses: Sequence[str]) -> list[socket.socket]:
    """Sockets bound to addresses as configured, and listening: what connects waits.

    Raises:
        CannotListen: one of them is taken, or is not ours to listen on.
    """
    bound: list[socket.socket] = []
    try:
        for address in addresses:
            bound += _listeners(address)
    except CannotListen:
        for each in bound:
            each.close()
        raise
    return bound


def unlink(addresses: Sequence[str]) -> None:
    """Removes the files of Unix sockets among the addresses, as far as this process may.

    A front with a user of its own may not: whoever started it does, or the next front.
    """
    for address in addresses:
        where = parse_address(address)
        if isinstance(where, UnixAddress):
            with contextlib.suppress(PermissionError):
                Path(where.path).unlink(missing_ok=True)


def _listeners(address: str) -> list[socket.socket]:
    """Sockets bound to an address as configured; several where a name stands for several.

    Raises:
        CannotListen: it is taken, or is not ours to listen on.
    """
    where = parse_address(address)
    try:
        return [_unix_listener(where.path)] if isinstance(where, UnixAddress) else _tcp_listeners(where)
    except OSError as error:
        raise CannotListen(address, error.strerror or str(error)) from error


def _unix_listener(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):  # left behind: two fronts are kept apart by their ports
            Path(path).unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _tcp_listeners(where: TcpAddress) -> list[socket.socket]:
    found = socket.getaddrinfo(
        where.host or None, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(address)
            each.listen(BACKLOG)
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound
