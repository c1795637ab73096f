"""An ssh-agent that signs when it is told to: a real socket, and as slow as is wanted."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class SlowAgent:
    """Speaks enough of the agent's protocol. With `gate` closed it holds every signature back."""

    def __init__(self, path: Path, seed: bytes, seconds: float = 0.0) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.key.public_key().public_bytes_raw()
        self.path = path
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.signed = 0
        self._one = threading.Lock()  # a device makes one signature at a time
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, struct.error):
            while True:
                (size,) = struct.unpack(">I", self._exactly(connection, 4))
                request = self._exactly(connection, size)
                connection.sendall(string(self._answer(request)))

    def _answer(self, request: bytes) -> bytes:
        if request[0] == 11:
            blob = string(b"ssh-ed25519") + string(self.public)
            return b"\x0c" + struct.pack(">I", 1) + string(blob) + string(b"slow")
        if request[0] != 13:
            return b"\x05"
        (size,) = struct.unpack_from(">I", request, 1)
        rest = request[5 + size :]
        (size,) = struct.unpack_from(">I", rest)
        message = rest[4 : 4 + size]
        with self._one:
            self.asked += 1
            self.gate.wait()
            if self.seconds:
                threading.Event().wait(self.seconds)
            self.signed += 1
            signature = self.key.sign(message)
        return b"\x0e" + string(string(b"ssh-ed25519") + string(signature))

    @staticmethod
    def _exactly(connection: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = connection.recv(size - len(data))
            if not part:
                raise OSError
            data += part
        return data
