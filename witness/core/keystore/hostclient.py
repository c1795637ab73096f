"""The core's side of the device host: blocking calls, each with a deadline."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from witness.core.keystore.base import KeyAbsent, KeyHung
from witness.core.keystore.host import settle
from witness.core.keystore.talk import STATEMENTS, Closed, receive, send, to_error
from witness.core.lockdown.steps import Account

_HOST: Final = "witness.core.keystore.host"
_GRACE: Final = 2.0
"""Seconds beyond a request's deadline after which not even the host can be believed to live."""


class HostClient:
    """A device host of our own.

    `spawn` starts the process and no thread; it comes before the core locks itself down. `start` begins to
    listen; it comes after.
    """

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._connection = connection
        self._process = process
        self._sending = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._closed = False
        self._on_lost: Callable[[], None] | None = None
        self._listener = threading.Thread(target=self._listen, name="device host", daemon=True)

    @classmethod
    def spawn(
        cls,
        devices: Iterable[tuple[str, Mapping[str, str]]] | None = None,
        account: Account | None = None,
        *,
        statements: bool = False,
    ) -> HostClient:
        """Starts the process.

        Args:
            devices: the devices that it may ever open, each by its backend and settings; None for any. A
                core that is taken over could otherwise have it load a library of another's choosing.
            account: whom its workers become, where we are root; None for no change.
            statements: whether its devices may sign succession statements too; never for a core.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
                [sys.executable, "-P", "-m", _HOST, *([STATEMENTS] if statements else [])],
                stdin=theirs.fileno(),
                stdout=2,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        send(ours, settle(devices, account))
        return cls(ours, process)

    @property
    def pid(self) -> int:
        """The host's process ID."""
        return self._process.pid

    def start(self, on_lost: Callable[[], None] | None = None) -> None:
        """Begins to listen; `on_lost` is called, from another thread, should the host end by itself."""
        self._on_lost = on_lost
        self._listener.start()

    def call(self, device: str, op: str, deadline: float, **fields: Any) -> dict[str, Any]:
        """Asks a device's worker and waits for the answer.

        Args:
            device: the device's name.
            op: what is asked of it.
            deadline: seconds that the device has; then its worker is killed.
            fields: what goes with it.

        Raises:
            KeystoreError: what the device answered, or that it did not.
        """
        number = next(self._ids)
        future: Future[dict[str, Any]] = Future()
        with self._guard:
            if self._closed:
                raise KeyAbsent("the process that keeps the devices has ended", "restart the witness")
            self._waiting[number] = future
        request = {"id": number, "device": device, "op": op, "deadline": deadline, **fields}
        try:
            with self._sending:
                send(self._connection, request)
            answer = future.result(deadline + _GRACE)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise KeyHung(f"the process that keeps the device {device} does not answer") from error
            raise KeyAbsent("the process that keeps the devices has ended", "restart the witness") from error
        finally:
            with self._guard:
                self._waiting.pop(number, None)
        if "error" in answer:
            raise to_error(answer["error"])
        result = answer["ok"]
        assert isinstance(result, dict)
        return result

    def close(self) -> None:
        """Ends the host, with all its workers."""
        self._on_lost = None
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._listener.is_alive():
            self._listener.join()
        self._connection.close()
        try:
            self._process.wait(_GRACE)  # it ends by itself when the socket does
        except subprocess.TimeoutExpired:
            # It hangs. A core that has changed its user may not end it; the kernel does, at the core's end.
            with suppress(PermissionError):
                self._process.kill()
                self._process.wait(_GRACE)

    def _listen(self) -> None:
        with suppress(Closed):
            while True:
                answer = receive(self._connection)
                with self._guard:
                    future = self._waiting.get(answer["id"])
                if future is not None and not future.done():
                    future.set_result(answer)
        with self._guard:
            self._closed = True
            waiting = list(self._waiting.values())
        gone = {"error": ["absent", "the process that keeps the devices has ended", "restart the witness"]}
        for future in waiting:
            if not future.done():  # answered already, and its asker has not yet taken it out
                future.set_result(gone)
        if self._on_lost is not None:
            self._on_lost()
