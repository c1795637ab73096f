"""Offline verification: what it costs over the bare signature checks, many look-ups, the command's start.

    python -m benchmarks.bench --only verifying --no-save

All data is made here. Everything that is verified must verify, and its forgery must not: else the run ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nacl import bindings

from benchmarks.chains import lookup_of
from benchmarks.scenarios import Bench
from witness.bundles import Options, parse_log_key, verify
from witness.bundles.sumdb import verify_lookups
from witness.tlog import merkle
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosign_message
from witness.tlog.note import Signature, SignatureType, VerifierKey, format_note, make_vkey
from witness.tlog.policy import parse_policy
from witness.tlog.proof import Proof, format_proof
from witness.tlog.tiles import TILE_WIDTH, Tile

COSIGNATURES = 16
SIZE, INDEX = (1 << 30) - 1, 123_456_789
ENTRY = b"an entry like every other"
STAMP = 1_760_000_000
LOOKUPS, SHORT_LOOKUPS = 100_000, 10_000
ORIGIN = "go.sum database tree"
MEGA = 1e6
COMMAND = Path(sys.executable).with_name("witness")


class WrongVerdict(Exception):
    """Something good did not verify, or something forged did: no figure of this run is worth anything."""


def verifying(bench: Bench) -> None:
    """The three questions."""
    over_signatures(bench)
    many_lookups(bench)
    start(bench)


@dataclass(frozen=True)
class Signer:
    """A key made of its name."""

    key: VerifierKey
    secret: bytes

    @classmethod
    def of(cls, name: str, type_: SignatureType) -> Signer:
        public, secret = bindings.crypto_sign_seed_keypair(hashlib.sha256(name.encode()).digest())
        return cls(make_vkey(name, type_, public), secret)

    def message(self, checkpoint: Checkpoint) -> bytes:
        """What is signed: the text, or the cosigned message."""
        text = checkpoint.text()
        if self.key.type is SignatureType.ED25519:
            return text
        return cosign_message(self.key, STAMP, checkpoint, text)

    def signed(self, checkpoint: Checkpoint) -> bytes:
        """The signature with the message after it, as libsodium takes them."""
        return bindings.crypto_sign(self.message(checkpoint), self.secret)

    def line(self, checkpoint: Checkpoint) -> Signature:
        stamp = b"" if self.key.type is SignatureType.ED25519 else STAMP.to_bytes(8, "big")
        return Signature(self.key.name, self.key.key_id, stamp + self.signed(checkpoint)[:64])


@dataclass(frozen=True)
class Cosigned:
    """A tlog-proof, the policy that wants all of its cosignatures, and its bare signature checks."""

    proof: bytes
    policy: bytes
    bare: list[tuple[bytes, bytes]]

    @classmethod
    def make(cls) -> Cosigned:
        lookup = lookup_of(ENTRY)
        log = Signer.of("log.example/bench", SignatureType.ED25519)
        names = [f"witness.example/{number}" for number in range(COSIGNATURES)]
        witnesses = [Signer.of(name, SignatureType.COSIGNATURE_ED25519) for name in names]
        checkpoint = Checkpoint(log.key.name, SIZE, merkle.tree_root(SIZE, lookup))
        note = format_note(checkpoint.text(), [each.line(checkpoint) for each in (log, *witnesses)])
        hashes = tuple(merkle.inclusion_proof(INDEX, SIZE, lookup))
        lines = [f"log {log.key}"]
        lines += [f"witness w{number} {each.key}" for number, each in enumerate(witnesses)]
        lines += [
            "group everyone all " + " ".join(f"w{number}" for number in range(COSIGNATURES)),
            "quorum everyone",
        ]
        return cls(
            format_proof(Proof(INDEX, hashes, note)),
            "\n".join([*lines, ""]).encode(),
            [(each.signed(checkpoint), each.key.public_key) for each in (log, *witnesses)],
        )

    def options(self) -> Options:
        return Options(policy=parse_policy(self.policy), entry=ENTRY)

    def check_bare(self) -> None:
        for signed, public in self.bare:
            bindings.crypto_sign_open(signed, public)


def over_signatures(bench: Bench) -> None:
    """A tlog-proof with 16 cosignatures against the 17 signature checks that it cannot do without."""
    bench.say(f"a tlog-proof with {COSIGNATURES} cosignatures against its bare signature checks")
    case = Cosigned.make()
    options = case.options()
    _expect(verify(case.proof, options).verified, True)
    forged = case.proof[:-8] + (b"AAAA" if case.proof[-8:-4] != b"AAAA" else b"BBBB") + case.proof[-4:]
    _expect(verify(forged, options).verified, False)
    count, rounds = (10, 12) if bench.plan.mode == "short" else (50, 30)
    sides: dict[str, Callable[[], object]] = {
        "whole": lambda: verify(case.proof, options),
        "bare": case.check_bare,
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(rounds):
        for name in order:
            found[name].append(_cpu_us(sides[name], count))
        order.reverse()
    ratios = [whole / bare for whole, bare in zip(found["whole"], found["bare"], strict=True)]
    whole, bare = (statistics.median(found[name]) for name in sides)
    note = f"CPU {whole:.0f} µs over {bare:.0f} µs; {min(ratios):.2f}–{max(ratios):.2f} over {rounds} rounds"
    bench.report.measured("verify-signatures", statistics.median(ratios), note)


def _cpu_us(action: Callable[[], object], count: int) -> float:
    begun = time.process_time()
    for _ in range(count):
        action()
    return (time.process_time() - begun) / count * 1e6


def many_lookups(bench: Bench) -> None:
    """So many records of a checksum database in one call, in a process of their own to see its memory."""
    count = SHORT_LOOKUPS if bench.plan.mode == "short" else LOOKUPS
    bench.say(f"{count} look-ups of a checksum database in one call")
    folder = bench.folder / "sumdb"
    make_database(folder, count)
    argv = [sys.executable, "-m", "benchmarks.verifying", str(folder), str(count)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise WrongVerdict(done.stderr)
    found = json.loads(done.stdout)
    took = f"{count} in {found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU)"
    before = found["before"] / MEGA
    note = f"{took}; {before:.0f} MB before the first"
    bench.report.measured("verify-memory", found["peak"] / MEGA, note)
    bench.report.facts["verify_lookups"] = {"count": count, **found}
    if count == LOOKUPS:
        growth = max(0, found["peak"] - found["half"]) / MEGA
        bench.report.measured("verify-growth", growth, f"over the second {count // 2} look-ups")
    else:
        bench.report.missing(["verify-growth"], "a short run does not fill the bounded cache of hashes")


def record(number: int) -> bytes:
    """The two lines of a module's version, as the database has them."""
    hashes = [base64.b64encode(hashlib.sha256(b"%d %d" % (number, n)).digest()).decode() for n in (0, 1)]
    version = f"example.com/someone/module{number % 5000} v1.{number // 5000}.0"
    return f"{version} h1:{hashes[0]}\n{version}/go.mod h1:{hashes[1]}\n".encode()


def make_database(folder: Path, count: int) -> None:
    """Writes the tiles that `count` records' proofs need, the signed tree head and its key."""
    log = Signer.of("sum.example", SignatureType.ED25519)
    tree = merkle.MemoryTree()
    for number in range(count):
        tree.append(record(number))
    level, hashes = 0, count
    while hashes:
        for index in range(-(-hashes // TILE_WIDTH)):
            tile = Tile(level, index, min(TILE_WIDTH, hashes - index * TILE_WIDTH))
            path = folder / tile.path().replace("tile/", "tile/8/", 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            nodes = range(index * TILE_WIDTH, index * TILE_WIDTH + tile.width)
            path.write_bytes(b"".join(tree.node(8 * level, node) for node in nodes))
        level, hashes = level + 1, hashes // TILE_WIDTH
    checkpoint = Checkpoint(ORIGIN, count, tree.root(count))
    (folder / "latest").write_bytes(format_note(checkpoint.text(), [log.line(checkpoint)]))
    (folder / "key").write_text(str(log.key))


def verify_database(folder: Path, count: int) -> dict[str, float]:
    """Verifies every record in one call. Memory in bytes: before, after the first half, and at its peak."""
    head = (folder / "latest").read_bytes()
    tiles = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "tile").rglob("*")
        if path.is_file()
    }
    options = Options(logs=(parse_log_key((folder / "key").read_text()),), origin=ORIGIN, artifacts=tiles)
    forged = b"%d\n%b\n%b" % (1, record(2), head)
    _expect([each.verified for each in verify_lookups([forged], options)], [False])

    def lookups() -> Iterator[bytes]:
        for number in range(count):
            yield b"%d\n%b\n%b" % (number, record(number), head)

    before, half, good = _peak(), 0, 0
    begun, cpu = time.monotonic(), time.process_time()
    for number, report in enumerate(verify_lookups(lookups(), options)):
        good += report.verified
        if number == count // 2:
            half = _peak()
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    _expect(good, count)
    return {"seconds": seconds, "cpu_seconds": cpu, "before": before, "half": half, "peak": _peak()}


def _peak() -> int:
    """This process's largest resident memory so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(None, 1)[0]) * 1024


def start(bench: Bench) -> None:
    """Whole runs of the command on one proof: Python's start, the imports and the judgement."""
    bench.say("start of witness verify")
    case = Cosigned.make()
    files = {"proof": case.proof, "policy": case.policy, "entry": ENTRY}
    paths = {name: bench.folder / f"verified.{name}" for name in files}
    for name, content in files.items():
        paths[name].write_bytes(content)
    argv = [str(COMMAND), "verify", "--policy", str(paths["policy"]), "--entry", str(paths["entry"])]
    argv.append(str(paths["proof"]))
    runs = [_run(argv) for _ in range(6 if bench.plan.mode == "short" else 21)][1:]  # the first warms up
    walls, cpus = ([run[side] * 1e3 for run in runs] for side in (0, 1))
    note = (
        f"median of {len(runs)} whole runs; least {min(walls):.0f} ms; CPU {statistics.median(cpus):.0f} ms"
    )
    bench.report.measured("verify-start", statistics.median(walls), note)


def _run(argv: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds of a command that must succeed."""
    begun = time.monotonic()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    took = time.monotonic() - begun
    _expect(os.waitstatus_to_exitcode(status), 0)
    return took, usage.ru_utime + usage.ru_stime


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise WrongVerdict(f"expected {expected}, found {found}")


if __name__ == "__main__":
    print(json.dumps(verify_database(Path(sys.argv[1]), int(sys.argv[2]))))
