"""A log with entries, a distributor and a witness, on one loopback server; and what reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from tests.simulated_log import SimulatedKey, SimulatedLog
from tests.simulated_log_server import SimulatedLogServer
from witness.bundles import Options
from witness.reading.families import FAMILIES
from witness.reading.heads import Trust
from witness.reading.log import LogReader
from witness.reading.sources import Sources
from witness.tlog import merkle
from witness.tlog.checkpoint import log_id, origin_hash
from witness.tlog.note import SignatureType, format_note, parse_note
from witness.tlog.policy import parse_policy
from witness.tlog.submission import parse_add_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feeders.protocol import Fetch
    from witness.reading.post import Post

ORIGIN = "simulated.example/log"


class Entries:
    """A tree that keeps its leaves' contents: lines of text, which every family can carry."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self._tree = merkle.MemoryTree()

    @property
    def size(self) -> int:
        return len(self.contents)

    def extend(self, count: int, branch: str) -> None:
        for index in range(self.size, self.size + count):
            self.contents.append(f"leaf {index} of {branch}\n".encode())
            self._tree.append(self.contents[-1])

    def cut(self, size: int) -> Entries:
        shorter = Entries()
        for content in self.contents[:size]:
            shorter.contents.append(content)
            shorter._tree.append(content)
        return shorter

    def node(self, level: int, index: int) -> bytes:
        return self._tree.node(level, index)


def entry_log(size: int = 0, origin: str = ORIGIN) -> SimulatedLog:
    log = SimulatedLog(origin)
    log._tree = Entries()
    log.append(size)
    return log


def contents(log: SimulatedLog) -> list[bytes]:
    tree = log._tree
    assert isinstance(tree, Entries)
    return tree.contents[: log.size]


def witness_key(name: str, type_: SignatureType = SignatureType.COSIGNATURE_ED25519) -> SimulatedKey:
    return SimulatedKey(name, type_)


def cosigned(log: SimulatedLog, *keys: SimulatedKey, size: int | None = None, timestamp: int = 0) -> bytes:
    """The log's checkpoint with cosignatures."""
    checkpoint = log.value(size)
    lines = [key.sign(checkpoint) for key in log.keys]
    lines += [key.sign(checkpoint, **({"timestamp": timestamp} if timestamp else {})) for key in keys]
    return format_note(checkpoint.text(), lines)


@dataclass
class TestWitness:
    """What a witness must do to be used: check consistency, and cosign."""

    __test__ = False
    key: SimulatedKey
    head: tuple[int, bytes] = (0, merkle.EMPTY_ROOT)
    note: bytes | None = None
    requests: list[bytes] = field(default_factory=list)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        self.requests.append(body)
        submission = parse_add_checkpoint(body)
        size, root = self.head
        if submission.old_size != size:
            return 409, b"%d\n" % size
        new = submission.checkpoint
        try:
            merkle.verify_consistency(size, new.size, root, new.root, submission.proof)
        except merkle.InvalidProof:
            return 422, b"no\n"
        self.head = (new.size, new.root)
        line = self.key.sign(new)
        note = parse_note(submission.note.text + b"\n" + submission.note.signatures[0].line().encode())
        self.note = format_note(note.text, [note.signatures[0], line])
        return 200, line.line().encode()


class World(SimulatedLogServer):
    """Serves entries too, a distributor's notes, and witnesses by number: `/w0`, `/w1`, …"""

    def __init__(self, log: SimulatedLog, witnesses: Sequence[TestWitness] = ()) -> None:
        super().__init__(log)
        self.witnesses = tuple(witnesses)
        self.distributed: dict[str, bytes] = {}  # path below the log's -> note
        self.wrong_entries = False
        self.note: bytes | None = None  # served as the log's checkpoint
        self.hidden: set[str] = set()  # paths that are 404

    def distributor(self) -> str:
        return f"{self.base}/d"

    def witness_url(self, number: int) -> str:
        return f"{self.base}/w{number}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix("/")
        if request.method == "POST" and path.endswith("/add-checkpoint"):
            self.requests.append(path)
            status, body = self.witnesses[int(path[1 : path.index("/")])].answer(await request.read())
            return web.Response(status=status, body=body)
        return await super()._handle(request)

    def _serve(self, path: str) -> bytes | None:
        if path in self.hidden:
            return None
        if self.note is not None and path.endswith(("/checkpoint", "/latest")) and path[:1] not in "dw":
            return self.note
        family, _, rest = path.partition("/")
        entries = self._entries(family, rest)
        if entries is not None:
            return entries
        if family == "d":
            return self.distributed.get(
                unquote(rest).removeprefix(f"distributor/v0/logs/{log_id(self.log.origin)}/")
            )
        if family[:1] == "w":
            witness = self.witnesses[int(family[1:])]
            return witness.note if rest == f"{origin_hash(self.log.origin).hex()}/checkpoint" else None
        return super()._serve(path)

    def _entries(self, family: str, rest: str) -> bytes | None:
        log = contents(self.log)
        if family == "serverless" and rest.startswith("seq/"):
            index = int(rest[4:].replace("/", ""), 16)
            return self._served(log[index : index + 1])[0] if index < len(log) else None
        if family == "serverless" and rest.startswith("leaves/"):
            wanted = bytes.fromhex(rest[7:].replace("/", ""))
            found = [i for i, each in enumerate(log) if merkle.leaf_hash(each) == wanted]
            return b"%x" % found[0] if found else None
        for prefix, encode in (
            ("tile/entries/", lambda each: len(each).to_bytes(2) + each),
            ("tile/8/data/", lambda each: each + b"\n"),
        ):
            if not rest.startswith(prefix) or (family == "tiles") is not (prefix == "tile/entries/"):
                continue
            place, _, width = rest[len(prefix) :].partition(".p/")
            start = 256 * int(place.replace("/", "").replace("x", ""))
            end = start + int(width or 256)
            return b"".join(map(encode, self._served(log[start:end]))) if end <= len(log) else None
        return None

    def _served(self, entries: list[bytes]) -> list[bytes]:
        return [b"another " + each for each in entries] if self.wrong_entries else entries


def reader(world: World, family: str, fetch: Fetch) -> LogReader:
    return LogReader(world.url(family), FAMILIES[family], fetch)


def policy_of(log: SimulatedLog, keys: Sequence[SimulatedKey], threshold: int) -> str:
    lines = [f"log {key.vkey}" for key in log.keys]
    lines += [f"witness w{number} {key.vkey}" for number, key in enumerate(keys)]
    names = " ".join(f"w{number}" for number in range(len(keys)))
    quorum = (
        [f"group all-of-them {threshold} {names}", "quorum all-of-them"] if threshold else ["quorum none"]
    )
    return "\n".join([*lines, *quorum, ""])


def trust_of(log: SimulatedLog, keys: Sequence[SimulatedKey] = (), threshold: int = 0) -> Trust:
    return Trust(Options(policy=parse_policy(policy_of(log, keys, threshold).encode())))


def sources_of(fetch: Fetch, post: Post | None = None, **urls: tuple[str, ...]) -> Sources:
    return Sources(fetch, post=post, **urls)
