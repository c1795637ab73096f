"""The ssh-agent backend: an Ed25519 key in an agent, reached over its Unix socket.

The agent's protocol (draft-ietf-sshm-ssh-agent) signs the bytes it is given; for `ssh-ed25519` the signature
is plain RFC 8032. An agent that is locked lists no keys at all, so that "locked" and "not loaded" look alike.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from witness.core.keystore.backend import Found, Locator, Settings
from witness.core.keystore.base import Algorithm, KeyAbsent, KeyHung, KeyInvalid, KeyLocked, WrongSecret

_FAILURE: Final = 5
_SUCCESS: Final = 6
_REQUEST_IDENTITIES: Final = 11
_IDENTITIES_ANSWER: Final = 12
_SIGN_REQUEST: Final = 13
_SIGN_RESPONSE: Final = 14
_UNLOCK: Final = 23
_TYPE: Final = b"ssh-ed25519"
_MAX_REPLY: Final = 256 * 1024
_TIMEOUT: Final = 30.0
"""Seconds a reply may take at all; the caller's own deadline is the one that matters."""


class AgentDevice:
    """A connection to an agent."""

    unique_id = ""
    note = ""

    def __init__(self, path: str, secret: str | None) -> None:
        self._path = path
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.settimeout(_TIMEOUT)
        try:
            self._connection.connect(path)
        except OSError as error:
            self._connection.close()
            raise KeyAbsent(f"no ssh-agent answers at {path}: {error.strerror}") from error
        if secret is not None and not self._keys():
            self._unlock(secret)

    def prepare(self, options: Settings) -> tuple[Locator, int]:  # noqa: ARG002
        """An agent derives nothing."""
        raise KeyInvalid("an ssh-agent signs with a key of its own and derives none")

    def derive(self, diversifier: bytes, locator: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """An agent derives nothing."""
        raise KeyInvalid("an ssh-agent signs with a key of its own and derives none")

    def provide(self, algorithm: Algorithm, name: str, options: Settings) -> Found:  # noqa: ARG002
        """The Ed25519 key that the agent has: the only one, or the one named by comment or fingerprint."""
        if algorithm is not Algorithm.ED25519:
            raise KeyInvalid(
                f"an ssh-agent has no {algorithm} keys", "--algorithm ed25519 makes do with one key"
            )
        wanted = options.get("key")
        keys = [
            (key, comment)
            for key, comment in self._keys()
            if wanted is None or wanted in {comment, _fingerprint(key)}
        ]
        if not keys:
            what = f"no Ed25519 key {wanted!r}" if wanted else "no Ed25519 key"
            raise KeyLocked(
                f"the agent at {self._path} has {what}, or it is locked", "ssh-add KEY, or ssh-add -X"
            )
        if len(keys) > 1:
            names = ", ".join(f"{_fingerprint(key)} ({comment})" for key, comment in keys)
            raise KeyInvalid(f"the agent has several Ed25519 keys: {names}", "name one with -o key=COMMENT")
        key, _ = keys[0]
        return Found(algorithm, key, {"public_key": key.hex()})

    def sign(self, algorithm: Algorithm, message: bytes, locator: Mapping[str, str]) -> bytes:
        """64 bytes: what the agent returns is the RFC 8032 signature."""
        if algorithm is not Algorithm.ED25519:
            raise KeyInvalid(f"an ssh-agent has no {algorithm} keys")
        blob = _string(_TYPE) + _string(bytes.fromhex(locator["public_key"]))
        kind, reply = self._ask(_SIGN_REQUEST, _string(blob) + _string(message) + bytes(4))
        if kind != _SIGN_RESPONSE:
            raise KeyLocked(
                f"the agent at {self._path} refuses: it is locked, or the key is not loaded",
                "ssh-add KEY, or ssh-add -X",
            )
        signature, _ = _take(reply)
        name, rest = _take(signature)
        value, _ = _take(rest)
        if name != _TYPE:
            raise KeyInvalid(f"the agent signed as {name!r}")
        return value

    def retire(self, locator: Mapping[str, str]) -> None:  # noqa: ARG002
        """An agent cannot."""
        raise KeyInvalid("an ssh-agent's key is not bound to an identity: remove the key itself")

    def close(self) -> None:
        """Ends the connection."""
        with suppress(OSError):
            self._connection.close()

    def _unlock(self, secret: str) -> None:
        kind, _ = self._ask(_UNLOCK, _string(secret.encode()))
        if kind == _SUCCESS or self._keys():
            return
        # An agent that is not locked fails the request too; with a key loaded we never come here.
        raise WrongSecret(f"the passphrase does not unlock the agent at {self._path}, or it holds no key")

    def _keys(self) -> list[tuple[bytes, str]]:
        """Its Ed25519 keys and their comments."""
        kind, reply = self._ask(_REQUEST_IDENTITIES, b"")
        if kind != _IDENTITIES_ANSWER:
            raise KeyAbsent(f"the agent at {self._path} does not list its keys")
        keys = []
        (count,) = struct.unpack_from(">I", reply)
        rest = reply[4:]
        for _ in range(count):
            blob, rest = _take(rest)
            comment, rest = _take(rest)
            name, key = _take(blob)
            if name == _TYPE:
                keys.append((_take(key)[0], comment.decode("utf-8", "replace")))
        return keys

    def _ask(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        try:
            self._connection.sendall(_string(bytes((kind,)) + payload))
            (size,) = struct.unpack(">I", self._exactly(4))
            if not 1 <= size <= _MAX_REPLY:
                raise KeyAbsent(f"the agent at {self._path} answers with {size} bytes")
            reply = self._exactly(size)
        except TimeoutError as error:
            raise KeyHung(f"the agent at {self._path} does not answer") from error
        except OSError as error:
            raise KeyAbsent(f"the agent at {self._path} is gone: {error.strerror}") from error
        return reply[0], reply[1:]

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise KeyAbsent(f"the agent at {self._path} is gone")
            data += part
        return bytes(data)


def open_device(settings: Settings, secret: str | None) -> AgentDevice:
    """Connects to the agent at `socket`.

    Raises:
        KeyAbsent: nobody answers there.
        KeyInvalid: no socket is named.
        WrongSecret: the agent is locked, and the secret is not its passphrase.
    """
    path = settings.get("socket")
    if not path:
        raise KeyInvalid("the backend ssh-agent needs the agent's socket", "-o socket=PATH")
    return AgentDevice(path, secret)


def _fingerprint(key: bytes) -> str:
    digest = hashlib.sha256(_string(_TYPE) + _string(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """A string of the protocol, and what follows it."""
    try:
        (size,) = struct.unpack_from(">I", data)
    except struct.error as error:
        raise KeyAbsent("the agent's answer is cut short") from error
    if len(data) < 4 + size:
        raise KeyAbsent("the agent's answer is cut short")
    return data[4 : 4 + size], data[4 + size :]
