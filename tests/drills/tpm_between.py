"""Stands between a witness and its simulated TPM, and holds the command that moves a counter."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path

_HEADER = struct.Struct(">HII")
"""Tag, size and code of a command, or of a response (TPM 2.0 part 1, 18)."""
NV_INCREMENT = 0x134


class Between:
    """A socket that passes commands on to the TPM's; `with` one. `hold` is "", "before" or "after"."""

    def __init__(self, path: Path, tpm: Path) -> None:
        self.path = path
        self.hold = ""
        self.held = threading.Event()
        self._tpm = tpm
        self._open: list[socket.socket] = []

    def __enter__(self) -> Between:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        Path(f"{self.path}.ctrl").symlink_to(f"{self._tpm}.ctrl")
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.let_go()

    def let_go(self) -> None:
        """Holds nothing any more; what was held is never passed on."""
        self.hold = ""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.held.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as tpm, contextlib.suppress(OSError, EOFError):
            tpm.connect(str(self._tpm))
            self._open += [client, tpm]
            while True:
                command = _message(client)
                code = _HEADER.unpack(command[: _HEADER.size])[2]
                holding = self.hold if code == NV_INCREMENT else ""
                if holding == "before":
                    self.held.set()
                    client.recv(1)  # until whoever asked is gone
                    return
                tpm.sendall(command)
                answer = _message(tpm)
                if holding == "after":
                    self.held.set()
                    client.recv(1)
                    return
                client.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    data = b""
    size = _HEADER.size
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
        if len(data) >= _HEADER.size:
            size = _HEADER.unpack(data[: _HEADER.size])[1]
    return data
