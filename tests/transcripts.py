"""Requests with the answers the specification gives, played through every door of the witness.

A transcript configures some logs at a fresh witness and then speaks; state carries over from step to step. A
door is anything that takes a request's bytes and gives back a status, a content type and a body.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.tlog.note import SignatureType, VerifierKey, parse_note, parse_signature_lines, parse_vkey
from witness.tlog.signature import verify_note

ADD, SUBTREE = "add-checkpoint", "sign-subtree"
SIZE_TYPE = "text/x.tlog.size"


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Step:
    """One request. `body` may be made from the answers so far, by step name."""

    name: str
    body: bytes | Callable[[dict[str, Answer]], bytes]
    status: int
    verb: str = ADD
    known: int | None = None  # the size a 409 names
    repeat: bool = False  # the same request, with old = new, is accepted again


@dataclass(frozen=True)
class Transcript:
    name: str
    logs: tuple[tuple[str, tuple[VerifierKey, ...]], ...]
    steps: tuple[Step, ...]
    ed25519_seed: bytes | None = None
    witness_name: str = "witness.example/w1"
    sizes: dict[str, int] = field(default_factory=dict)  # size stored for an origin at the end


class Door(Protocol):
    vkeys: tuple[VerifierKey, ...]

    async def call(self, verb: str, body: bytes) -> Answer: ...


async def play(transcript: Transcript, door: Door) -> None:
    """Speaks a transcript to a door and checks every answer, cosignatures included."""
    answers: dict[str, Answer] = {}
    for step in transcript.steps:
        body = step.body if isinstance(step.body, bytes) else step.body(answers)
        answer = await door.call(step.verb, body)
        where = f"{transcript.name} / {step.name}: {answer}"
        assert answer.status == step.status, where
        if step.status == 409:
            assert answer.content_type == SIZE_TYPE, where
            assert answer.body == f"{step.known}\n".encode(), where
        elif step.status == 200:
            check_cosignatures(step.verb, body, answer.body, door.vkeys)
        else:
            assert answer.body.endswith(b"\n"), where
            assert answer.body.count(b"\n") == 1, where
            assert len(answer.body) > 3, where
        answers[step.name] = answer


def check_cosignatures(verb: str, body: bytes, lines: bytes, vkeys: tuple[VerifierKey, ...]) -> None:
    """A 200's body is one valid cosignature by each of the witness's keys, and nothing else."""
    signatures = parse_signature_lines(lines)
    if verb == SUBTREE:
        subtree_keys = [key for key in vkeys if key.type == SignatureType.COSIGNATURE_MLDSA44]
        assert [(s.name, s.key_id) for s in signatures] == [(k.name, k.key_id) for k in subtree_keys]
        return
    note = parse_note(body.split(b"\n\n", 1)[1] + lines)
    verified = verify_note(note, vkeys)
    assert [v.key for v in verified] == list(vkeys)
    assert len(signatures) == len(vkeys)


def own_transcripts() -> list[Transcript]:
    """What every MUST of tlog-witness asks for, one situation after another."""
    return [_life(), _first_contact(), _signatures(), _forms(), _sizes(), _subtrees(), _several_keys()]


def _life() -> Transcript:
    log = SimulatedLog("transcript.example/life", size=3)
    first = log.add_checkpoint(0)
    log.append(4)
    grown = log.add_checkpoint(3)
    fork = log.fork(2)
    fork.append(5)
    wrong_fork = fork.add_checkpoint(7, proof=())
    lying = log.fork(5)
    lying.append(6)
    return Transcript(
        "a log's life",
        ((log.origin, log.vkeys),),
        (
            Step("first", first, 200),
            Step("the same again without knowing", first, 409, known=3),
            Step("re-signed", log.add_checkpoint(3, 3), 200),
            Step("grown", grown, 200),
            Step("grown twice", grown, 409, known=7),
            Step("smaller checkpoint", log.add_checkpoint(3, 5), 409, known=7),
            Step("old size beyond", log.add_checkpoint(7, 5, proof=()), 400),
            Step("same size, another root", wrong_fork, 422),
            Step("fork", lying.add_checkpoint(7, proof=lying.proof(5)), 422),
            Step("still there", log.add_checkpoint(7, 7), 200),
        ),
        sizes={log.origin: 7},
    )


def _first_contact() -> Transcript:
    log = SimulatedLog("transcript.example/first", size=9)
    return Transcript(
        "first contact is not special",
        ((log.origin, log.vkeys),),
        (
            Step("an old size we never signed", log.add_checkpoint(4), 409, known=0),
            Step("a proof where none belongs", log.add_checkpoint(0, proof=log.proof(4)), 422),
            Step("old size beyond", log.add_checkpoint(10, 9, proof=()), 400),
            Step("good", log.add_checkpoint(0), 200),
        ),
        sizes={log.origin: 9},
    )


def _signatures() -> Transcript:
    log = SimulatedLog("transcript.example/signatures", size=4)
    stranger = SimulatedKey("stranger.example")
    other = SimulatedLog("transcript.example/unknown", size=4)
    bad = SimulatedLog("transcript.example/signatures", size=4)
    bad.sign_wrongly = True
    good_lines = log.checkpoint().split(b"\n\n", 1)[1]
    bad_lines = bad.checkpoint().split(b"\n\n", 1)[1]
    text = log.value().text()
    return Transcript(
        "signatures",
        ((log.origin, log.vkeys),),
        (
            Step("unknown origin", other.add_checkpoint(0), 404),
            Step("only a stranger", log.add_checkpoint(0, keys=[stranger]), 403),
            Step("bad", bad.add_checkpoint(0), 403),
            Step("bad beside good", b"old 0\n\n" + text + b"\n" + good_lines + bad_lines, 403),
            Step("another old size changes nothing", bad.add_checkpoint(2), 403),
            Step("a stranger beside good", log.add_checkpoint(0, keys=[stranger, *log.keys]), 200),
        ),
        sizes={log.origin: 4},
    )


def _forms() -> Transcript:
    log = SimulatedLog("transcript.example/forms", size=6)
    note = log.checkpoint()
    good = log.add_checkpoint(0)
    line = base64.b64encode(bytes(32)) + b"\n"
    bodies = {
        "empty": b"",
        "no old line": b"\n" + note,
        "old alone": b"old\n\n" + note,
        "leading zero": b"old 00\n\n" + note,
        "plus": b"old +0\n\n" + note,
        "minus": b"old -0\n\n" + note,
        "two spaces": b"old  0\n\n" + note,
        "trailing space": b"old 0 \n\n" + note,
        "hexadecimal": b"old 0x0\n\n" + note,
        "not ASCII digits": "old ٠\n\n".encode() + note,
        "upper case": b"Old 0\n\n" + note,
        "carriage return": b"old 0\r\n\r\n" + note,
        "no blank line": b"old 0\n" + note,
        "64 proof lines": b"old 1\n" + line * 64 + b"\n" + note,
        "short hash": b"old 1\n" + base64.b64encode(bytes(31)) + b"\n\n" + note,
        "unpadded hash": b"old 1\n" + line[:-2] + b"\n\n" + note,
        "url-safe hash": b"old 1\n" + base64.urlsafe_b64encode(b"\xff" * 32) + b"\n\n" + note,
        "dirty trailing bits": b"old 1\n" + b"A" * 42 + b"B=\n\n" + note,
        "no signature": b"old 0\n\n" + log.value().text() + b"\n",
        "no checkpoint": b"old 0\n\n",
        "size with a leading zero": good.replace(b"\n6\n", b"\n06\n"),
        "size beyond 64 bits": good.replace(b"\n6\n", b"\n99999999999999999999\n"),
        "root of 31 bytes": good.replace(base64.b64encode(log.root()), base64.b64encode(bytes(31))),
        "not UTF-8": good.replace(b"transcript.example", b"transcript\xff.example"),
        "control character": good.replace(
            b"transcript.example/forms\n", b"transcript.example/\x07forms\n", 1
        ),
        "text after the signatures": good + b"more\n",
        "no final newline": good[:-1],
    }
    steps = [Step(name, body, 400) for name, body in bodies.items()]
    return Transcript(
        "forms", ((log.origin, log.vkeys),), (*steps, Step("good", good, 200)), sizes={log.origin: 6}
    )


def _sizes() -> Transcript:
    empty = SimulatedLog("transcript.example/empty")
    wrong = SimulatedLog("transcript.example/empty")
    wrong.wrong_root = True
    huge = SimulatedLog("transcript.example/huge", size=1_000_000_007, huge=True)
    first = huge.add_checkpoint(0)
    huge.append(1_000_000)
    second = huge.add_checkpoint(1_000_000_007)
    broken = list(huge.proof(1_000_000_007))
    broken[3] = bytes(32)
    extended = SimulatedLog("transcript.example/extended", size=3)
    extended.extensions = ("an extension line", "another")
    uncovered = SimulatedLog(
        "transcript.example/uncovered",
        size=3,
        keys=[SimulatedKey("transcript.example/uncovered", SignatureType.COSIGNATURE_MLDSA44)],
    )
    plain = uncovered.add_checkpoint(0)
    uncovered.extensions = ("words of a stranger",)
    return Transcript(
        "sizes",
        tuple((log.origin, log.vkeys) for log in (empty, huge, extended, uncovered)),
        (
            Step("size 0, wrong root", wrong.add_checkpoint(0), 422),
            Step("size 0", empty.add_checkpoint(0), 200),
            Step("size 0 again", empty.add_checkpoint(0), 200),
            Step("a billion", first, 200),
            Step("a wrong proof", huge.add_checkpoint(1_000_000_007, proof=broken), 422),
            Step("a short proof", huge.add_checkpoint(1_000_000_007, proof=broken[:-1]), 422),
            Step("an empty proof", huge.add_checkpoint(1_000_000_007, proof=()), 422),
            Step("a billion and a million", second, 200),
            Step("extension lines", extended.add_checkpoint(0), 200),
            Step("extension lines that nobody signed", uncovered.add_checkpoint(0), 403),
            Step("the same checkpoint without them", plain, 200),
        ),
        sizes={empty.origin: 0, huge.origin: 1_001_000_007, extended.origin: 3},
    )


def _subtrees() -> Transcript:
    log = SimulatedLog("transcript.example/subtrees", size=14)
    unknown = SimulatedLog("transcript.example/nobody", size=14)
    other_tree = log.fork(3)
    other_tree.append(11)
    first = log.add_checkpoint(0)

    def cosigned(answers: dict[str, Answer]) -> bytes:
        return log.value().text() + b"\n" + answers["cosigned"].body

    def request(start: int, end: int) -> Callable[[dict[str, Answer]], bytes]:
        return lambda answers: log.sign_subtree(start, end, cosigned(answers))

    def mangled(old: bytes, new: bytes) -> Callable[[dict[str, Answer]], bytes]:
        return lambda answers: log.sign_subtree(8, 13, cosigned(answers)).replace(old, new, 1)

    def of_another_tree(answers: dict[str, Answer]) -> bytes:
        return other_tree.sign_subtree(8, 13, cosigned(answers))

    def bad_cosignature(answers: dict[str, Answer]) -> bytes:
        lines = answers["cosigned"].body.split(b"\n")
        flipped = lines[0][:-4] + (b"AAA=" if lines[0][-4:] != b"AAA=" else b"BBA=")
        return log.sign_subtree(8, 13, log.value().text() + b"\n" + b"\n".join([flipped, *lines[1:]]))

    bad_forms = {
        "range with a leading zero": (b"subtree 8 13", b"subtree 08 13"),
        "range of one number": (b"subtree 8 13", b"subtree 8"),
        "an old line": (b"subtree 8 13", b"old 8"),
        "unaligned": (b"subtree 8 13", b"subtree 7 13"),
        "empty": (b"subtree 8 13", b"subtree 8 8"),
        "backwards": (b"subtree 8 13", b"subtree 13 8"),
        "beyond the tree": (b"subtree 8 13", b"subtree 8 15"),
    }
    return Transcript(
        "subtrees",
        ((log.origin, log.vkeys),),
        (
            Step("cosigned", first, 200),
            Step("[8, 13)", request(8, 13), 200, SUBTREE),
            Step("[4, 8)", request(4, 8), 200, SUBTREE),
            Step("[0, 14)", request(0, 14), 200, SUBTREE),
            Step("one leaf", request(5, 6), 200, SUBTREE),
            *(Step(n, mangled(a, b), 400, SUBTREE) for n, (a, b) in bad_forms.items()),
            Step("another tree's hashes", of_another_tree, 422, SUBTREE),
            Step("only the log's signature", log.sign_subtree(8, 13, log.checkpoint()), 403, SUBTREE),
            Step("a cosignature that does not verify", bad_cosignature, 403, SUBTREE),
            Step("unknown origin", unknown.sign_subtree(8, 13, unknown.checkpoint()), 404, SUBTREE),
        ),
        sizes={log.origin: 14},
    )


def _several_keys() -> Transcript:
    origin = "transcript.example/keys"
    types = (
        SignatureType.ED25519,
        SignatureType.ECDSA,
        SignatureType.RFC6962,
        SignatureType.COSIGNATURE_MLDSA44,
    )
    keys = [SimulatedKey(origin, kind) for kind in types]
    keys.append(SimulatedKey("the same log under another key name.example".replace(" ", "-"), number=1))
    log = SimulatedLog(origin, keys=keys)
    steps = []
    for number, key in enumerate(keys, start=1):
        log.append(number)
        steps.append(Step(f"type {key.type}", log.add_checkpoint(log.size - number, keys=[key]), 200))
    log.append(2)
    steps.append(Step("all at once", log.add_checkpoint(log.size - 2), 200))
    return Transcript(
        "several keys of one origin", ((origin, log.vkeys),), tuple(steps), sizes={origin: log.size}
    )


def shared_transcripts(testdata: Path) -> list[Transcript]:
    """The transcripts of other witnesses' tests; where theirs and the specification differ, it holds."""
    found = []
    data = json.loads((testdata / "witness/add-checkpoint-litewitness.json").read_text())
    vkey = parse_vkey(data["log"]["vkey"])
    steps = []
    for number, case in enumerate(data["cases"]):
        known = None
        if case["spec_status"] == 409:
            known = _known_size(case)
        steps.append(Step(f"case {number}", case["request_body"].encode(), case["spec_status"], known=known))
    found.append(
        Transcript(
            "litewitness", ((data["log"]["origin"], (vkey,)),), tuple(steps),
            bytes.fromhex(data["witness"]["ed25519_seed_hex"]), data["witness"]["name"],
        )
    )  # fmt: skip
    data = json.loads((testdata / "witness/add-checkpoint-zero-size.json").read_text())
    vkey = parse_vkey(data["log"]["vkey"])
    for case in data["cases"]:
        steps = []
        if case["known"]:
            good = next(c for c in data["cases"] if c["name"] == "first non-empty tree")
            steps.append(Step("known", good["request_body"].encode(), 200))
        known = case["known"] if case["status"] == 409 else None
        steps.append(Step(case["name"], case["request_body"].encode(), case["status"], known=known))
        if case["status"] == 200:
            again = case["request_body"].replace(f"old {case['old']}\n", f"old {case['new']}\n", 1)
            steps.append(Step("again", again.encode(), 200))
        found.append(
            Transcript(f"zero size: {case['name']}", ((data["log"]["origin"], (vkey,)),), tuple(steps))
        )
    data = json.loads((testdata / "witness/two-keys-one-name.json").read_text())
    steps = [Step("one request", data["request"]["body"].encode(), data["status"])]
    found.append(
        Transcript(
            "two keys, one name",
            ((data["log"]["origin"], (parse_vkey(data["log"]["vkey"]),)),),
            tuple(steps),
            witness_name=data["witness_name"],
        )
    )
    return found


def _known_size(case: dict[str, object]) -> int:
    for text in case["asserts"]:
        digits = "".join(c for c in text if c.isdigit())
        if "body" in text and digits:
            return int(digits)
    raise AssertionError(f"no size in {case['asserts']}")


def origin_hash_hex(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()
