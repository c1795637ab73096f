"""The remote backend: a key behind `witness keys serve`, over a Unix socket (perhaps one forwarded by ssh).

The other side signs cosignature messages of its own witness name and nothing else; see
`witness.core.keystore.door` for what it checks.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from witness.core.keystore.backend import Found, Locator, Settings
from witness.core.keystore.base import COSIGNATURE_TYPES, Algorithm, KeyAbsent, KeyInvalid
from witness.core.keystore.talk import Closed, from_b64, receive, send, to_b64, to_error
from witness.tlog.note import MalformedVKey, VerifierKey, parse_vkey

_TIMEOUT: Final = 30.0
"""Seconds a reply may take at all; the caller's own deadline is the one that matters."""


class RemoteDevice:
    """A connection to a key door."""

    unique_id = ""
    note = ""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.settimeout(_TIMEOUT)
        try:
            self._connection.connect(path)
            self._keys = self._list()
        except OSError as error:
            self._connection.close()
            raise KeyAbsent(f"nobody answers at {path}: {error.strerror or error}") from error
        except BaseException:
            self._connection.close()
            raise

    def prepare(self, options: Settings) -> tuple[Locator, int]:  # noqa: ARG002
        """It derives nothing."""
        raise KeyInvalid("a remote key signs and derives nothing")

    def derive(self, diversifier: bytes, locator: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """It derives nothing."""
        raise KeyInvalid("a remote key signs and derives nothing")

    def provide(self, algorithm: Algorithm, name: str, options: Settings) -> Found:  # noqa: ARG002
        """The key of the algorithm that the other side has, under the same witness name."""
        for vkey in self._keys:
            if vkey.type == COSIGNATURE_TYPES[algorithm]:
                if vkey.name != name:
                    raise KeyInvalid(
                        f"the key at {self._path} is {vkey.name}'s, not {name}'s",
                        "both sides must have one name",
                    )
                return Found(algorithm, vkey.public_key, {"vkey": str(vkey)})
        raise KeyInvalid(f"there is no {algorithm} key at {self._path}")

    def sign(self, algorithm: Algorithm, message: bytes, locator: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """A signature by the other side."""
        answer = self._ask({"op": "sign", "vkey": locator["vkey"], "message": to_b64(message)})
        return from_b64(str(answer["signature"]))

    def retire(self, locator: Mapping[str, str]) -> None:  # noqa: ARG002
        """It cannot be retired from here."""
        raise KeyInvalid("a remote key is retired where it is kept")

    def close(self) -> None:
        """Ends the connection."""
        with suppress(OSError):
            self._connection.close()

    def _list(self) -> list[VerifierKey]:
        try:
            return [parse_vkey(str(text)) for text in self._ask({"op": "list"})["vkeys"]]
        except (KeyError, TypeError, MalformedVKey) as error:
            raise KeyInvalid(f"whoever answers at {self._path} is no key door") from error

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            send(self._connection, request)
            answer = receive(self._connection)
        except (OSError, Closed) as error:
            raise KeyAbsent(f"the key door at {self._path} is gone") from error
        if "error" in answer:
            raise to_error(answer["error"])
        return answer


def open_device(settings: Settings, secret: str | None) -> RemoteDevice:  # noqa: ARG001 - the socket is the right
    """Connects to the door at `socket`.

    Raises:
        KeyAbsent: nobody answers there.
        KeyInvalid: no socket is named, or it is no key door.
    """
    path = settings.get("socket")
    if not path:
        raise KeyInvalid("the backend remote needs the door's socket", "-o socket=PATH")
    return RemoteDevice(path)
