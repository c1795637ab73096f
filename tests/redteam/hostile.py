"""`python -m tests.redteam.hostile`: a program in the front's place, in an attacker's hands.

It has the real front's rights, by the real front's confinement, and more time than manners. It reads one line
of JSON, what to attack; it writes JSON lines: what its tries on files and processes met, then every answer
that was no refusal, for the test to hold against the rules, then the end.
"""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from tests.core.processes import SocketClient
from tests.lockdown.attempts import attempt, execute, look_into
from tests.simulated_log import SimulatedLog
from witness.core.lockdown import confinement
from witness.core.lockdown.steps import Account, LockdownSettings
from witness.core.refusals import CoreError, InternalError
from witness.core.wire import MAX_REQUEST, Kind, Verb, encode_frame
from witness.tlog.checkpoint import origin_hash

FLOOD = 48 * 1024 * 1024
"""Bytes after which a flood that nobody cuts off ends by itself."""


def logs() -> list[list[SimulatedLog]]:
    """The logs of the test, each with the histories that it may tell: the attacker owns the logs too."""
    found = []
    for number in range(4):
        honest = SimulatedLog(f"redteam.example/{number}", size=40)
        fork = honest.fork(7 * number, "lie")
        fork.append(30)
        found.append([honest, fork])
    return found


class Attack:
    """One attacker."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.choose = random.Random(seed)
        self.logs = logs()
        self.sizes: dict[str, int] = {}
        self.cosigned: dict[tuple[str, int], bytes] = {}
        self.kept: list[bytes] = []  # bodies that were once accepted, to be replayed

    # --- Bodies ---

    def body(self) -> tuple[int, bytes]:
        """A request: right, stale, forked, mangled, or of another verb."""
        choose = self.choose
        histories = choose.choice(self.logs)
        log = choose.choice(histories)
        new = choose.randrange(1, log.size + 1)
        old = choose.choice([0, new, self.sizes.get(log.origin, 0), choose.randrange(new + 1)])
        if old > new:
            new = log.size
        body = log.add_checkpoint(min(old, new), new)
        kind = choose.randrange(8)
        if kind == 0 and self.kept:
            body = choose.choice(self.kept)
        elif kind == 1:
            body = self.mangled(body)
        elif kind == 2:  # another log's proof, another history's checkpoint
            other = choose.choice(histories)
            body = body.partition(b"\n\n")[0] + b"\n\n" + other.checkpoint(min(new, other.size))
        elif kind == 3:
            start = choose.randrange(log.size // 4) * 4
            cosigned = self.cosigned.get((log.origin, log.size), log.checkpoint())
            subtree = log.sign_subtree(start, start + 4, cosigned, log.size)
            return Verb.SIGN_SUBTREE, subtree if choose.random() < 0.5 else self.mangled(subtree)
        elif kind == 4:
            verb = choose.choice([*Verb, 0, 99, 255, choose.randrange(256)])
            payload = choose.choice([b"", origin_hash(log.origin), choose.randbytes(32), b"0", body])
            return verb, payload
        return Verb.ADD_CHECKPOINT, body

    def mangled(self, body: bytes) -> bytes:
        data = bytearray(body)
        for _ in range(self.choose.randrange(1, 4)):
            at = self.choose.randrange(len(data)) if data else 0
            match self.choose.randrange(4):
                case 0 if data:
                    data[at] ^= 1 << self.choose.randrange(8)
                case 1:
                    del data[at : at + self.choose.randrange(1, 90)]
                case 2:
                    data[at:at] = self.choose.choice(
                        [b"\n", b"\n\n", b"+", b"=", b"old 0\n", bytes(3), b"9" * 30]
                    )
                case _:
                    data[at:at] = data[: self.choose.randrange(200)]
        return bytes(data)

    # --- What it does with the socket ---

    def talk(self, rounds: int) -> None:
        """Many requests in flight, mostly sensible ones: what is answered is reported."""
        with SocketClient(self.path) as client:
            for _ in range(rounds):
                batch = [(verb, body, client.send(verb, body)) for verb, body in self.batch()]
                for verb, body, number in batch:
                    self.report(verb, body, client.receive(number))

    def batch(self) -> list[tuple[int, bytes]]:
        return [self.body() for _ in range(self.choose.randrange(1, 30))]

    def report(self, verb: int, body: bytes, answer: bytes | CoreError) -> None:
        if isinstance(answer, InternalError):
            say({"bug": [verb, base64.b64encode(body).decode()]})
        if isinstance(answer, CoreError):
            size = getattr(answer, "known", None)
            if isinstance(size, int) and verb == Verb.ADD_CHECKPOINT:  # the 409 says how far the witness is
                origin = body.partition(b"\n\n")[2].split(b"\n")[0].decode("utf-8", "replace")
                self.sizes[origin] = size
            return
        if verb == Verb.ADD_CHECKPOINT:
            self.kept = [*self.kept[-40:], body]
            note = body.partition(b"\n\n")[2]
            origin, size = note.split(b"\n")[:2]
            self.cosigned[origin.decode(), int(size)] = note + answer
        say({"ok": [verb, base64.b64encode(body).decode(), base64.b64encode(answer).decode()]})

    def half_frames(self, count: int) -> None:
        """Frames that are cut short, too long, or no frames."""
        for _ in range(count):
            frame = encode_frame(self.choose.randrange(2**32), *self.body())
            data = self.choose.choice(
                [
                    frame[: self.choose.randrange(len(frame))],
                    struct.pack(">I", self.choose.choice([0, 4, MAX_REQUEST + 1, 2**32 - 1])) + frame,
                    self.choose.randbytes(self.choose.randrange(1, 400)),
                    struct.pack(">IIB", MAX_REQUEST, 1, 1) + bytes(self.choose.randrange(100_000)),
                ]
            )
            with self.connection() as raw:
                try:
                    raw.sendall(data)
                    if self.choose.random() < 0.3:
                        raw.recv(100)
                except OSError:
                    continue

    def connection(self) -> socket.socket:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.settimeout(0.2)
        for _ in range(200):
            try:
                raw.connect(str(self.path))
            except (BlockingIOError, TimeoutError):  # the backlog is full
                time.sleep(0.01)
            else:
                break
        return raw

    def many_connections(self, count: int) -> int:
        """So many at once, each with half a frame of the greatest length; how many are still open then."""
        part = struct.pack(">IIB", MAX_REQUEST, 1, 1) + bytes(120_000)
        held = []
        for _ in range(count):
            raw = self.connection()
            try:
                raw.sendall(part)
            except OSError:
                raw.close()
            else:
                held.append(raw)
        alive = 0
        for raw in held:
            raw.settimeout(0.005)
            try:
                alive += raw.recv(1) != b""
            except TimeoutError:
                alive += 1
            except OSError:
                pass
        for raw in held:
            raw.close()
        return alive

    def flood(self, verb: int, payload: bytes, connections: int, patience: int) -> int:
        """Asks and never reads, until it is cut off; the bytes that were taken."""
        frames = encode_frame(1, verb, payload) * max(1, 200_000 // (len(payload) + 9))
        held = [self.connection() for _ in range(connections)]
        taken = 0
        stalled = 0
        while held and taken < FLOOD and stalled < patience:
            for raw in list(held):
                raw.settimeout(0.05)
                try:
                    taken += raw.send(frames)
                except TimeoutError:  # it is not read for the moment
                    stalled += 1
                except OSError:
                    held.remove(raw)
                    raw.close()
        for raw in held:
            raw.close()
        return taken


def files(state: Path, core: int) -> dict[str, str]:
    """What it can do about the state folder and the core's process."""
    met = {}
    for name in (
        "witness.db",
        "witness.db-wal",
        "witness.db-shm",
        "witness.yaml",
        "core.lock",
        "keys/softkey.json",
    ):
        path = state / name
        met[f"read {name}"] = attempt(path.read_bytes)
        met[f"write {name}"] = attempt(lambda path=path: path.open("r+b").close())
        met[f"remove {name}"] = attempt(path.unlink)
        met[f"move {name}"] = attempt(lambda path=path: path.rename(path.with_suffix(".gone")))
        met[f"open up {name}"] = attempt(lambda path=path: path.chmod(0o666))
        met[f"cut {name}"] = attempt(lambda path=path: os.truncate(path, 0))
    met["list"] = attempt(lambda: list(state.iterdir()))
    met["list keys"] = attempt(lambda: list((state / "keys").iterdir()))
    met["new"] = attempt(lambda: (state / "planted").write_bytes(b"x"))
    met["new link"] = attempt(lambda: (state / "planted").symlink_to("/etc"))
    met["new socket"] = attempt(lambda: socket.socket(socket.AF_UNIX).bind(str(state / "planted.sock")))
    met["open up"] = attempt(lambda: state.chmod(0o777))
    met["remove socket"] = attempt((state / "core.sock").unlink)
    met["kill"] = attempt(lambda: os.kill(core, signal.SIGKILL))
    met["stop"] = attempt(lambda: os.kill(core, signal.SIGSTOP))
    met["execute"] = attempt(execute)
    met.update({f"core's {what}": how for what, how in look_into(core).items()})
    return met


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


def main() -> int:
    aims = json.loads(sys.stdin.readline())
    state = Path(aims["state"])
    account = Account(**aims["account"]) if aims["account"] else None
    lockdown = LockdownSettings(account=account)
    confinement.prepare(lockdown)
    steps = confinement.confine(lockdown, state, reads=[Path(path) for path in sys.path if path])
    say({"steps": {step.name: step.state for step in steps}})
    say({"files": files(state, aims["core"])})
    attack = Attack(state / "core.sock", aims["seed"])
    for _ in range(aims["turns"]):
        attack.talk(aims["rounds"])
        attack.half_frames(20)
        say({"open": attack.many_connections(aims["connections"])})
        for verb, payload in (
            (Verb.LOGS, b"0"), (Verb.CHANGES, b""), (Verb.STATUS, b""), (Verb.CHECKPOINT, bytes(32)),
            (Verb.ADD_CHECKPOINT, b"old 0\n\n" + b"x" * 100_000), (Verb.SIGN_SUBTREE, bytes(100_000)),
            (Verb.ADD_CHECKPOINT, attack.logs[0][0].add_checkpoint(0)), (200, b""),
        ):  # fmt: skip
            begun = time.monotonic()
            taken = attack.flood(verb, payload, 6, aims["patience"])
            say({"flood": [int(verb), taken, round(time.monotonic() - begun, 1)]})
        attack.talk(aims["rounds"])
    say({"end": Kind.OK})
    return 0


if __name__ == "__main__":
    sys.exit(main())
