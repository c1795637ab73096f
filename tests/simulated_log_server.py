"""Log servers on loopback that count what they are asked for, and fail and lie on command.

async with SimulatedLogServer(log) as server:
    server.url("tiles"), server.url("rekor"), …   # every family of feeders.kinds, and "pixel8"
    server.faults.partials_missing = True
    server.requests   # the paths asked for, in order of arrival
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiohttp import web

from witness.tlog import merkle
from witness.tlog.note import parse_note
from witness.tlog.tiles import MalformedTile, parse_tile_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.simulated_log import SimulatedLog

BOMB_SIZE = 64 * 1024 * 1024
"""Bytes that the gzip bomb of `Faults.gzip_bomb` inflates to."""

_BLOCK = bytes(64 * 1024)


@dataclass
class Faults:
    """What the server does wrong, until reset. All of it holds for every request, unless `tiles_only`."""

    tiles_only: bool = False
    """The checkpoint is served well."""
    status: int = 200
    """Every answer has this status instead."""
    partials_missing: bool = False
    """Partial tiles are gone (404), as tlog-tiles allows where the full one is there."""
    wrong_tiles: bool = False
    """Tiles have the right length and the wrong hashes (the first bit of each is flipped)."""
    short_by: int = 0
    """Bodies lack this many bytes at their end."""
    endless: bool = False
    """Bodies never end."""
    trickle: bool = False
    """A body begins, and the rest does not come."""
    gzip: bool = False
    """Bodies are compressed though nobody asked for it."""
    gzip_bomb: bool = False
    """A small body that inflates to `BOMB_SIZE`."""
    redirect: str = ""
    """Every answer redirects to this URL followed by the path."""
    checkpoint: bytes | None = None
    """Served instead of the log's own: an older one, another origin's, or no checkpoint at all."""
    wrong_proofs: bool = False
    """Proofs of the APIs have the right form and the wrong hashes."""


class LoopbackServer:
    """Serves what `answer(path)` gives, on 127.0.0.1 and a free port; None is a 404.

    Args:
        answer: the body for a path without its leading slash.
    """

    def __init__(self, answer: Callable[[str], bytes | None]) -> None:
        self._answer = answer
        self._bomb = b""
        self.faults = Faults()
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bytes_sent = 0
        self.validators = ""
        """`etag` or `date`: answers have such a validator, and unchanged ones are answered 304."""
        self.answered_304 = 0

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def base(self) -> str:
        """The server's own URL, without a final slash."""
        return f"http://127.0.0.1:{self._port}"

    def forget(self) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.headers.clear()
        self.bytes_sent = 0

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path_qs.removeprefix("/")
        self.requests.append(path)
        self.headers.append(dict(request.headers))
        is_tile = "/tile/" in f"/{path}"
        faults = self.faults if is_tile or not self.faults.tiles_only else Faults()
        if faults.redirect:
            return web.Response(status=302, headers={"Location": f"{faults.redirect}/{path}"})
        if faults.status != 200:
            return web.Response(status=faults.status, text="no")
        if is_tile and faults.partials_missing and _is_partial(path):
            return web.Response(status=404)
        body = self._answer(path)
        if body is None:
            return web.Response(status=404)
        if not is_tile and self.faults.checkpoint is not None:
            body = self.faults.checkpoint
        if is_tile and faults.wrong_tiles:
            body = _spoilt(body)
        if faults.short_by:
            body = body[: -faults.short_by]
        return await self._send(request, faults, body)

    def _validator(self, body: bytes) -> tuple[str, str, str]:
        """The header of the answer, its value, and the header of a conditional question."""
        digest = hashlib.sha256(body).digest()
        if self.validators == "date":  # a second for each content there may be
            second = int.from_bytes(digest[:2], "big")
            text = f"Tue, 03 Nov 2026 {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} GMT"
            return "Last-Modified", text, "If-Modified-Since"
        return "ETag", f'"{digest.hex()}"', "If-None-Match"

    async def _send(self, request: web.BaseRequest, faults: Faults, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.validators:
            header, value, question = self._validator(body)
            if request.headers.get(question) == value:
                self.answered_304 += 1
                return web.Response(status=304, headers={header: value})
            response.headers[header] = value
        if faults.gzip_bomb:
            response.headers["Content-Encoding"] = "gzip"
            self._bomb = self._bomb or gzip.compress(bytes(BOMB_SIZE), 9)
            body = self._bomb
        elif faults.gzip:
            response.headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body)
        await response.prepare(request)
        if faults.trickle:
            await response.write(body[:1])
            await asyncio.Event().wait()  # until the client has gone, or the server stops
        while faults.endless:
            await response.write(_BLOCK)
            self.bytes_sent += len(_BLOCK)
        await response.write(body)
        self.bytes_sent += len(body)
        await response.write_eof()
        return response


class FolderServer(LoopbackServer):
    """Serves the files of a folder, such as a real log of the test data."""

    def __init__(self, folder: Path) -> None:
        def answer(path: str) -> bytes | None:
            file = folder / path
            return file.read_bytes() if file.is_file() else None

        super().__init__(answer)


class SimulatedLogServer(LoopbackServer):
    """Serves a simulated log in all layouts and APIs at once; `log` may be replaced while it runs.

    `shards` are further logs that the rekor API tells of, by tree ID; the log itself has `TREE_ID`.
    """

    TREE_ID = "1193050959916656506"

    def __init__(self, log: SimulatedLog) -> None:
        self.log = log
        self.shards: dict[str, SimulatedLog] = {}
        super().__init__(self._serve)

    def url(self, family: str) -> str:
        """The log's URL for a kind of feeder; `pixel8` is a pixel log with tiles of height 8."""
        query = {"rekor": f"?treeID={self.TREE_ID}", "pixel8": "?height=8"}
        return f"{self.base}/{family}{query.get(family, '')}"

    def _serve(self, path: str) -> bytes | None:  # noqa: PLR0911 - one a layout
        family, _, rest = path.partition("/")
        match family:
            case "tiles" | "static-ct" | "serverless":
                checkpoint = "checkpoint"
            case "sumdb":
                checkpoint = "latest"
            case "pixel" | "pixel8":
                checkpoint = "checkpoint.txt"
            case _:
                return self._api(family, rest)
        if rest == checkpoint:
            return self.log.checkpoint()
        match family:
            case "tiles" | "static-ct":
                return self._raw_tile(rest)
            case "sumdb" | "pixel8" if rest.startswith("tile/8/"):
                return self._raw_tile("tile/" + rest.removeprefix("tile/8/"))
            case "pixel" if rest.startswith("tile/1/"):
                return self._low_tile("tile/" + rest.removeprefix("tile/1/"))
            case "serverless":
                return self._text_tile(rest)
        return None

    # The APIs that are no tiles.

    def _api(self, family: str, path: str) -> bytes | None:  # noqa: PLR0911 - one an endpoint
        head, _, query = path.partition("?")
        asked = dict(pair.split("=") for pair in query.split("&") if pair)
        match family, head.split("/"):
            case "rfc6962", ["ct", "v1", "get-sth"]:
                return self._tree_head()
            case "rfc6962", ["ct", "v1", "get-sth-consistency"]:
                proof = self._proof(self.log, asked["first"], asked["second"])
                return proof and json.dumps({"consistency": [_b64(each) for each in proof]}).encode()
            case "rekor", ["api", "v1", "log"]:
                shards = [self._shard(*each) for each in self.shards.items()]
                return json.dumps(self._shard(self.TREE_ID, self.log) | {"inactiveShards": shards}).encode()
            case "rekor", ["api", "v1", "log", "proof"]:
                log = {self.TREE_ID: self.log, **self.shards}[asked["treeID"]]
                proof = self._proof(log, asked["firstSize"], asked["lastSize"])
                answer = {"rootHash": log.root().hex(), "hashes": [each.hex() for each in proof or ()]}
                return proof and json.dumps(answer).encode()
            case "sigsum", ["get-tree-head"]:
                signature = parse_note(self.log.checkpoint()).signatures[0].value
                fields = f"size={self.log.size}\nroot_hash={self.log.value().root.hex()}\n"
                return f"{fields}signature={signature.hex()}\n".encode()
            case "sigsum", ["get-consistency-proof", old, new]:
                proof = self._proof(self.log, old, new)
                return proof and "".join(f"node_hash={each.hex().upper()}\n" for each in proof).encode()
        return None

    def _tree_head(self) -> bytes:
        value = parse_note(self.log.checkpoint()).signatures[0].value
        fields = {
            "tree_size": self.log.size,
            "timestamp": int.from_bytes(value[:8], "big"),
            "sha256_root_hash": _b64(self.log.value().root),
            "tree_head_signature": _b64(value[8:]),
        }
        return json.dumps(fields).encode()

    def _shard(self, tree_id: str, log: SimulatedLog) -> dict[str, object]:
        return {
            "rootHash": log.value().root.hex(),
            "signedTreeHead": log.checkpoint().decode(),
            "treeID": tree_id,
            "treeSize": log.size,
        }

    def _proof(self, log: SimulatedLog, old: str, new: str) -> tuple[bytes, ...] | None:
        if not 0 < int(old) < int(new) <= log.size:
            return None
        proof = log.proof(int(old), int(new))
        return tuple(_spoilt(each) for each in proof) if self.faults.wrong_proofs else proof

    def _low_tile(self, path: str) -> bytes | None:
        """A tile of height 1: two neighbouring nodes of a level, or the one there is."""
        try:
            tile = parse_tile_path(path)
        except MalformedTile:
            return None
        width = 1 if path.endswith(".p/1") else 2
        if 2 * tile.index + width > self.log.size >> tile.level:
            return None
        return b"".join(self.log.node(tile.level, 2 * tile.index + i) for i in range(width))

    def _exists(self, level: int, index: int, width: int) -> bool:
        return 256 * index + width <= self.log.size >> 8 * level

    def _raw_tile(self, path: str) -> bytes | None:
        try:
            tile = parse_tile_path(path)
        except MalformedTile:
            return None
        if not self._exists(tile.level, tile.index, tile.width):
            return None
        return self.log.tile(tile.level, tile.index, tile.width)

    def _text_tile(self, path: str) -> bytes | None:
        stem, _, suffix = path.partition(".")
        parts = stem.split("/")
        if len(parts) != 6 or [len(part) for part in parts[1:]] != [2, 4, 2, 2, 2]:
            return None
        level, index, width = int(parts[1], 16), int("".join(parts[2:]), 16), int(suffix or "100", 16)
        if not self._exists(level, index, width):
            return None
        lines = [""] * (2 * width - 1)
        hashes = [self.log.node(8 * level, 256 * index + i) for i in range(width)]
        for height in range(8):
            for i, value in enumerate(hashes):
                lines[(2 << height) * i + (1 << height) - 1] = base64.b64encode(value).decode()
            hashes = [merkle.node_hash(a, b) for a, b in zip(hashes[::2], hashes[1::2], strict=False)]
        return "\n".join(["32", str(width), *lines, ""]).encode()


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _is_partial(path: str) -> bool:
    return "." in path


def _spoilt(tile: bytes) -> bytes:
    """A tile with every hash another one, in the same format."""
    if tile.startswith(b"32\n"):
        head, nodes = tile.split(b"\n")[:2], tile.split(b"\n")[2:]
        return b"\n".join(
            [*head, *(line and (b"B" if line[:1] == b"A" else b"A") + line[1:] for line in nodes)]
        )
    return b"".join(bytes([tile[i] ^ 1]) + tile[i + 1 : i + 32] for i in range(0, len(tile), 32))
