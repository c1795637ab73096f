"""What the publisher's tests need around it: logs that are cosigned, time, and a distributor."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import web
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from witness.core.refusals import CoreError, NoCheckpoint
from witness.core.wire import Changes, Cursor
from witness.tlog.checkpoint import Checkpoint, log_id, parse_checkpoint
from witness.tlog.cosignature import cosign_message, encode_timestamped
from witness.tlog.note import (
    Signature,
    SignatureType,
    SignerKey,
    VerifierKey,
    format_note,
    key_id_for,
    make_vkey,
    parse_note,
)
from witness.tlog.signature import InvalidNoteSignature, verify_note

WITNESS = "witness.example/w1"  # a slash: what escaping is about
_WITNESS_SEED = hashlib.sha256(b"witness").digest()
WITNESS_KEY = make_vkey(
    WITNESS, SignatureType.COSIGNATURE_ED25519, crypto_sign_seed_keypair(_WITNESS_SEED)[0]
)


def log_signer(origin: str) -> SignerKey:
    seed = hashlib.sha256(b"log " + origin.encode()).digest()
    public_key = crypto_sign_seed_keypair(seed)[0]
    return SignerKey(origin, key_id_for(origin, SignatureType.ED25519, public_key), seed)


def cosigned(origin: str, size: int, *, timestamp: int = 1_700_000_000, fork: str = "") -> bytes:
    """A checkpoint signed by the log and cosigned by `WITNESS`; `fork` gives other roots."""
    checkpoint = Checkpoint(origin, size, hashlib.sha256(f"{origin} {size} {fork}".encode()).digest())
    text = checkpoint.text()
    secret = crypto_sign_seed_keypair(_WITNESS_SEED)[1]
    message = cosign_message(WITNESS_KEY, timestamp, checkpoint, text)
    value = encode_timestamped(timestamp, crypto_sign(message, secret)[:64])
    cosignature = Signature(WITNESS, WITNESS_KEY.key_id, value)
    return format_note(text, [log_signer(origin).sign(text), cosignature])


def size_of(note: bytes) -> int:
    return parse_checkpoint(parse_note(note).text).size


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds; that it never does is the failure."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def settle() -> None:
    """Gives everything that could happen now the time to happen."""
    await asyncio.sleep(0.06)


class ManualClock:
    """Time that passes when a test says so; the network beneath stays real."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def posix(self) -> float:
        return 1_700_000_000 + self.now

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        due = None if seconds is None else self.now + seconds
        while not event.is_set() and (due is None or self.now < due):
            await asyncio.sleep(0.001)

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Heads:
    """The core's side: the latest cosigned checkpoints and what moved, in pages of `page` origins."""

    def __init__(self, page: int = 1000) -> None:
        self.notes: dict[str, bytes] = {}
        self.asked: list[Cursor | None] = []
        self.error: CoreError | None = None
        self.fetched: list[str] = []
        self._page = page
        self._epoch = 1
        self._moves: list[str] = []

    def move(self, origin: str, size: int, **kwargs: object) -> None:
        self.notes[origin] = cosigned(origin, size, **kwargs)  # type: ignore[arg-type]
        self._moves.append(origin)

    def restart(self) -> None:
        """As a restarted core: another epoch, in which every head is named."""
        self._epoch += 1
        self._moves = list(self.notes)

    async def changes(self, cursor: Cursor | None) -> Changes:
        self.asked.append(cursor)
        if self.error is not None:
            raise self.error
        start = cursor.sequence if cursor and cursor.epoch == str(self._epoch) else 0
        end = min(len(self._moves), start + self._page)
        origins = tuple(dict.fromkeys(self._moves[start:end]))
        return Changes(Cursor(str(self._epoch), end), end < len(self._moves), origins)

    async def checkpoint(self, origin: str) -> bytes:
        self.fetched.append(origin)
        if origin not in self.notes:
            raise NoCheckpoint(origin)
        return self.notes[origin]


@dataclass
class Fault:
    """An answer given in place of the right one."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Distributor:
    """Behaves as transparency-dev/distributor does towards a PUT, with switches for its bad days.

    It unescapes the path once before it looks at it, redirects paths that are not clean, wants exactly the
    log's and the witness's signature verified, refuses sizes that go back, and answers as the real one.
    """

    _PATH = re.compile(r"/distributor/v0/logs/([a-zA-Z0-9-]+)/byWitness/([^ +]+)/checkpoint")

    def __init__(self, origins: Iterable[str] = (), prefix: str = "") -> None:
        self.logs: dict[str, tuple[str, VerifierKey]] = {}
        self.stored: dict[str, bytes] = {}  # by origin
        self.requests: list[tuple[str, str]] = []  # method and raw path
        self.cookies: list[str] = []  # as sent
        self.sizes: list[int] = []  # of what was accepted, in order
        self.faults: list[Fault] = []  # for the next requests
        self.always: Callable[[str], Fault | None] = lambda origin: None  # by origin
        self.gate: asyncio.Event | None = None  # requests wait here
        self.under_way = 0
        self.most_under_way = 0
        self.base = ""
        self.prefix = prefix
        self.runner: web.AppRunner | None = None
        for origin in origins:
            self.know(origin)

    def know(self, origin: str) -> None:
        self.logs[log_id(origin)] = (origin, log_signer(origin).vkey)

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path))
        self.cookies.append(request.headers.get("Cookie", ""))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            body = await request.read()
            if self.gate is not None:
                await self.gate.wait()
            return self._answer(request.method, request.raw_path, body)
        finally:
            self.under_way -= 1

    def _answer(self, method: str, raw_path: str, body: bytes) -> web.Response:
        path = unquote(raw_path)
        if "//" in path:
            return web.Response(status=301, headers={"Location": path.replace("//", "/")})
        match = self._PATH.fullmatch(path.removeprefix(self.prefix)) if path.startswith(self.prefix) else None
        if match is None:
            return web.Response(status=404, text="404 page not found\n")
        if method != "PUT":
            return web.Response(text="what a GET would have got")
        known = self.logs.get(match[1])
        fault = self.faults.pop(0) if self.faults else self.always(known[0] if known else "")
        if fault is not None:
            return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
        status = self._distribute(known, match[2], body)
        return web.Response(
            status=status, text="" if status == 200 else "failed to update to new checkpoint\n"
        )

    def _distribute(self, known: tuple[str, VerifierKey] | None, witness: str, body: bytes) -> int:
        if known is None or witness != WITNESS:
            return 400
        origin, key = known
        note = parse_note(body)
        checkpoint = parse_checkpoint(note.text)
        try:
            verified = verify_note(note, [key, WITNESS_KEY])
        except InvalidNoteSignature:
            return 400
        if checkpoint.origin != origin or len(verified) != 2:
            return 400
        if origin in self.stored:
            old = parse_checkpoint(parse_note(self.stored[origin]).text)
            if checkpoint.size < old.size:
                return 400
            if checkpoint.size == old.size and checkpoint.root != old.root:
                return 500
        self.stored[origin] = body
        self.sizes.append(checkpoint.size)
        return 200


@asynccontextmanager
async def serving(distributor: Distributor, host: str = "127.0.0.1") -> AsyncIterator[Distributor]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", distributor.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    port = runner.addresses[0][1]
    distributor.base = f"http://{host}:{port}{distributor.prefix}"
    try:
        yield distributor
    finally:
        if distributor.gate is not None:
            distributor.gate.set()
        await runner.cleanup()
