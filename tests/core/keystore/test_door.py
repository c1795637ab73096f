"""The key door from a hostile caller's side: cosignatures of its own name, now, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from witness.core.keystore.authorise import is_signed, trial_message
from witness.core.keystore.base import Algorithm
from witness.core.keystore.door import MAX_REQUEST, KeyDoor
from witness.core.keystore.softkey import soft_signer
from witness.core.keystore.talk import from_b64, to_b64
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message
from witness.tlog.note import SignatureType, make_vkey

NAME = "witness.example/door"
NOW = 1_800_000_000
SIGNERS = [soft_signer(algorithm, NAME, bytes(32)) for algorithm in Algorithm]
ED25519, MLDSA44 = SIGNERS
TEXT = Checkpoint("log.example/l", 5, bytes(32)).text()


@contextlib.asynccontextmanager
async def door(path: Path) -> AsyncIterator[KeyDoor]:
    served = KeyDoor(SIGNERS, now=lambda: NOW)
    await served.start(path)
    try:
        yield served
    finally:
        await served.stop()


async def ask(path: Path, *requests: Any) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    answers = []
    try:
        for request in requests:
            data = request if isinstance(request, bytes) else json.dumps(request).encode()
            writer.write(struct.pack(">I", len(data)) + data)
            size = struct.unpack(">I", await reader.readexactly(4))[0]
            answers.append(json.loads(await reader.readexactly(size)))
    finally:
        writer.close()
    return answers


def signing(signer: Any, message: bytes, /, **more: Any) -> dict[str, Any]:
    return {"op": "sign", "vkey": str(signer.vkey), "message": to_b64(message)} | more


async def test_it_lists_its_keys_and_cosigns(folder: Path) -> None:
    async with door(folder / "d"):
        listed, *signed = await ask(
            folder / "d", {"op": "list"}, *(signing(s, trial_message(s.vkey, NOW)) for s in SIGNERS)
        )
    assert listed == {"vkeys": [str(signer.vkey) for signer in SIGNERS]}
    for signer, answer in zip(SIGNERS, signed, strict=True):
        assert is_signed(signer.vkey, trial_message(signer.vkey, NOW), from_b64(answer["signature"]))


FOREIGN = make_vkey(NAME, SignatureType.ED25519, ED25519.vkey.public_key)
HOSTILE = [
    {},
    {"op": "export"},
    {"op": ["sign"]},
    {"op": "sign"},
    signing(ED25519, b"anything at all"),
    signing(ED25519, TEXT),
    signing(ED25519, cosignature_v1_message(NOW, TEXT), op="raw"),
    signing(ED25519, cosignature_v1_message(NOW, TEXT), vkey=str(FOREIGN)),
    signing(ED25519, cosignature_v1_message(NOW, TEXT), vkey=[1]),
    signing(ED25519, cosignature_v1_message(NOW, TEXT), message="no base64!"),
    signing(ED25519, cosignature_v1_message(NOW, TEXT), message=17),
    signing(ED25519, cosignature_v1_message(NOW, TEXT) + b"\n"),
    signing(ED25519, cosignature_v1_message(NOW + 301, TEXT)),
    signing(ED25519, cosignature_v1_message(NOW - 301, TEXT)),
    signing(ED25519, cosigned_message(NAME, NOW, "log.example/l", 0, 5, bytes(32))),
    signing(MLDSA44, cosignature_v1_message(NOW, TEXT)),
    signing(MLDSA44, cosigned_message("somebody.else/w", NOW, "log.example/l", 0, 5, bytes(32))),
    signing(MLDSA44, cosigned_message(NAME, NOW + 301, "log.example/l", 0, 5, bytes(32))),
]


@pytest.mark.parametrize("request_", HOSTILE)
async def test_nothing_else_is_signed(folder: Path, request_: dict[str, Any]) -> None:
    async with door(folder / "d") as served:
        (answer,) = await ask(folder / "d", request_)
        assert set(answer) == {"error"}
        assert served.signed == 0
        # A connection outlives a refusal, and so does the door.
        assert len(await ask(folder / "d", request_, {"op": "list"})) == 2


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 2**32 - 1),
        struct.pack(">I", MAX_REQUEST + 1) + bytes(MAX_REQUEST + 1),
        struct.pack(">I", 3) + b"[1]",
        struct.pack(">I", 3) + b"\xff\xff\xff",
        struct.pack(">I", 8000) + b"[" * 8000,
        struct.pack(">I", 100) + b"half a",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_broken_framing_ends_the_connection_alone(folder: Path, data: bytes) -> None:
    async with door(folder / "d"):
        reader, writer = await asyncio.open_unix_connection(str(folder / "d"))
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        assert await ask(folder / "d", {"op": "list"})


async def test_it_takes_the_place_of_a_dead_socket_and_of_nothing_else(folder: Path) -> None:
    path = folder / "d"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with door(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="in use"):
            async with door(path):
                pass
        assert await ask(path, {"op": "list"})
    (folder / "file").write_text("precious")
    with pytest.raises(OSError, match="in use"):
        async with door(folder / "file"):
            pass
    assert (folder / "file").read_text() == "precious"
