"""The key door: a process that holds a witness's keys and cosigns for another process's core.

It is not a core. It has no logs and no heads, and cannot know whether a checkpoint is consistent with what
was cosigned before: it trusts whoever may connect to have judged that, as a token trusts whoever has its PIN.
What it does not trust them with is anything else. A message is signed only if it is, byte for byte, a
cosignature message (tlog-cosignature) under this witness's own name, with a timestamp that its own clock
agrees with. There is no other verb but the list of vkeys. docs/decisions/ argues why no core has this door.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from witness.core.keystore.authorise import parse_message
from witness.core.keystore.base import KeyBusy, KeyInvalid, KeyRefused, KeystoreError, Signer
from witness.core.keystore.talk import LENGTH, Closed, error_fields, from_b64, length, pack, to_b64, unpack

log = logging.getLogger(__name__)

CLOCKS_APART: Final = 300
"""Seconds that a timestamp may differ from this machine's clock."""
MAX_CONNECTIONS: Final = 64
MAX_REQUEST: Final = 8 * 1024
"""Bytes of a request: a cosignature message is some hundreds, unless its extension lines are long."""
_THREADS: Final = 8
_IDLE: Final = 3600.0
_UCRED: Final = struct.Struct("3i")


class KeyDoor:
    """Serves signers at a Unix socket, to our own user, root, and `uids`."""

    def __init__(
        self, signers: Sequence[Signer], *, uids: Sequence[int] = (), now: Callable[[], float] = time.time
    ) -> None:
        self._signers = {str(signer.vkey): signer for signer in signers}
        self._allowed = frozenset({os.geteuid(), 0, *uids})
        self._others = bool(uids)
        self._now = now
        self._threads = ThreadPoolExecutor(_THREADS, "signer")
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.signed = 0
        self.refused = 0

    async def start(self, path: Path) -> None:
        """Listens at `path`, where nothing may stand but a socket that nobody listens at.

        Raises:
            OSError: something does, or the folder cannot be written.
        """
        listener = _bind(path, others=self._others)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def stop(self) -> None:
        """Takes no more and closes."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.close()
        self._threads.shutdown()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        pid, uid, _gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._allowed or len(self._connections) >= MAX_CONNECTIONS:
            log.warning("refused a connection from user %d (process %d)", uid, pid)
            writer.close()
            return
        self._connections.add(writer)
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    size = length(await reader.readexactly(LENGTH.size))
                    if size > MAX_REQUEST:
                        raise Closed  # noqa: TRY301 - one place ends a connection
                    request = unpack(await reader.readexactly(size))
                writer.write(pack(await self._answer(request)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, Closed):
            return
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("op") == "list":
            return {"vkeys": list(self._signers)}
        try:
            signer, message = self._authorised(request)
            signature = await asyncio.get_running_loop().run_in_executor(self._threads, signer.sign, message)
        except KeystoreError as error:
            self.refused += not isinstance(error, KeyBusy)
            return {"error": error_fields(error)}
        self.signed += 1
        return {"signature": to_b64(signature)}

    def _authorised(self, request: dict[str, Any]) -> tuple[Signer, bytes]:
        vkey, text = request.get("vkey"), request.get("message")
        signer = self._signers.get(vkey) if isinstance(vkey, str) else None
        if request.get("op") != "sign" or signer is None or not isinstance(text, str):
            raise KeyInvalid("the key door lists its vkeys and cosigns, and does nothing else")
        try:
            message = from_b64(text)
        except ValueError as error:
            raise KeyInvalid("the message is not base64") from error
        said = parse_message(signer.vkey, message)
        # A subtree's cosignature has the timestamp 0 and says nothing about time.
        if said.timestamp and abs(said.timestamp - self._now()) > CLOCKS_APART:
            raise KeyRefused(
                f"the timestamp {said.timestamp} is not within {CLOCKS_APART} s of the clock here"
            )
        return signer, message


def _bind(path: Path, *, others: bool) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # between bind and chmod nobody else may connect
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    if others:
        path.chmod(0o666)  # the kernel's word on who is there decides
    return listener


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return  # bind says what stands there
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    finally:
        probe.close()
