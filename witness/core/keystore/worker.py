"""`python -m witness.core.keystore.worker`: drives one device, in a process that may be killed.

Descriptor 0 is a socket. It brings requests and takes answers, one at a time (`witness.core.keystore.talk`).
At its end the process ends. It signs cosignature messages only, whoever asks; and succession statements if it
was started for that (`--statements`), as no core starts it: a core that is taken over names no successor.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from witness.core.keystore import drivers
from witness.core.keystore.authorise import parse_message, parse_statement
from witness.core.keystore.backend import CountingDevice, Device, opener
from witness.core.keystore.base import Algorithm, KeyAbsent, KeyInvalid, KeystoreError
from witness.core.keystore.talk import (
    STATEMENTS,
    Closed,
    error_fields,
    from_b64,
    receive,
    send,
    tie_to_parent,
    to_b64,
)
from witness.tlog.note import parse_vkey
from witness.tlog.succession import FIRST_LINE


class Worker:
    """Answers requests about one device."""

    def __init__(self, *, statements: bool) -> None:
        self._statements = statements
        self._device: Device | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; faults of the world are answers too."""
        try:
            return {"ok": self._do(request)}
        except KeystoreError as error:
            return {"error": error_fields(error)}

    def close(self) -> None:
        """Lets the device go."""
        if self._device is not None:
            self._device.close()

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911 - one for each operation
        op = request["op"]
        if op == "open":
            self.close()
            settings = request["settings"]
            open_device = opener(request["backend"], settings)
            if request["driver"] is not None:  # after all imports: the user may not read where they are
                drivers.become(drivers.Driver.of(request["driver"]))
                tie_to_parent()  # which another user undoes
            self._device = open_device(settings, request["secret"])
            return {"unique_id": self._device.unique_id, "note": self._device.note}
        device = self._device
        if device is None:
            raise KeyAbsent("the device is not open")
        match op:
            case "sign":
                vkey, message = parse_vkey(request["vkey"]), from_b64(request["message"])
                if self._statements and message.startswith(FIRST_LINE.encode()):
                    parse_statement(vkey, message)
                else:
                    parse_message(vkey, message)
                algorithm = Algorithm(request["algorithm"])
                return {"signature": to_b64(device.sign(algorithm, message, request["locator"]))}
            case "derive":
                secret = device.derive(from_b64(request["diversifier"]), request["locator"])
                return {"secret": to_b64(secret)}
            case "prepare":
                locator, generation = device.prepare(request["options"])
                return {"locator": locator, "generation": generation}
            case "provide":
                found = device.provide(Algorithm(request["algorithm"]), request["name"], request["options"])
                return {"public_key": to_b64(found.public_key), "locator": found.locator}
            case "retire":
                device.retire(request["locator"])
                return {}
            case _:
                return _count(device, op, request)


def _count(device: Device, op: str, request: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(device, CountingDevice):
        raise KeyInvalid(f"the device has no counters, and knows no operation {op!r}")
    match op:
        case "counter-make":
            locator, value = device.make_counter(request["options"])
            return {"locator": locator, "value": value}
        case "counter-read":
            return {"value": device.read_counter(request["locator"])}
        case "counter-increment":
            return {"value": device.increment_counter(request["locator"])}
        case _:
            raise KeyAbsent(f"a device knows no operation {op!r}")


def main() -> int:
    """Serves until the socket ends."""
    tie_to_parent()
    connection = socket.socket(fileno=0)
    worker = Worker(statements=STATEMENTS in sys.argv[1:])
    try:
        while True:
            request = receive(connection)
            send(connection, {"id": request["id"], **worker.answer(request)})
    except (Closed, BrokenPipeError, ConnectionResetError):
        return 0
    finally:
        worker.close()


if __name__ == "__main__":
    sys.exit(main())
