"""A server that does as little as HTTP allows, to measure the load generator itself.

`python -m benchmarks.stub PORT` answers every POST with one fixed signature line. No witness.
"""

from __future__ import annotations

import asyncio
import sys

BODY = "— stub.example/w ".encode() + b"A" * 100 + b"\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class Stub(asyncio.Protocol):
    """Reads a whole request by its content length, answers, and waits for the next."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        start = self.buffer.index(b"Content-Length: ") + 16
        length = int(self.buffer[start : self.buffer.index(b"\r", start)])
        if len(self.buffer) >= end + 4 + length:
            self.buffer = self.buffer[end + 4 + length :]
            self.answer()

    def answer(self) -> None:
        self.transport.write(ANSWER)


async def serve(port: int, protocol: type[Stub] = Stub) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(serve(int(sys.argv[1])))
    except ImportError:
        asyncio.run(serve(int(sys.argv[1])))
