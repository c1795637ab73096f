"""Rule 10: every refusal is a typed error with its facts as fields, mapped to a status in one table.

The guard: witness/core/refusals.py, and `STATUS` in witness/front/endpoints.py.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.core.state import START, Clock, Running, core
from tests.core.test_server import serving
from tests.rules.support import (
    Gate,
    RecordingSigner,
    StoreAround,
    answer,
    state,
    subtree_answer,
    turns,
    until,
)
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.core import refusals as r
from witness.core.clock import EARLIEST, ClockCheck
from witness.core.keystore.base import KeyAbsent
from witness.core.refusals import BY_CODE, CoreError, Refusal, Unavailable
from witness.core.request import Limits
from witness.core.store.base import Advance, CosignedHead, Head, Store, StoreBroken
from witness.core.store.logs import LogBook
from witness.core.wire import Verb
from witness.front.client import CoreClient
from witness.front.endpoints import STATUS, refusal
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import SignatureType

ORIGIN = "rule.example/10"
Scene = Callable[[Path], Awaitable[CoreError | bytes]]


def concrete(family: type[CoreError]) -> list[type[CoreError]]:
    below = family.__subclasses__()
    return [leaf for cls in below for leaf in concrete(cls)] if below else [family]


ALL = concrete(CoreError)


def a_log() -> SimulatedLog:
    return SimulatedLog(ORIGIN, size=9)


def running(folder: Path, log: SimulatedLog, **more: Any) -> AbstractAsyncContextManager[Running]:
    return core(state(folder, log, algorithms=more.pop("algorithms", ("ed25519", "ml-dsa-44"))), **more)


def asked(body: Callable[[SimulatedLog], bytes], *, known: bool = True, subtree: bool = False) -> Scene:
    """One request; `known` has the log cosigned at size 9 before."""

    async def scene(folder: Path) -> CoreError | bytes:
        log = a_log()
        async with running(folder, log) as w:
            if known:
                assert isinstance(await answer(w, log.add_checkpoint(0)), bytes)
            return await (subtree_answer if subtree else answer)(w, body(log))

    return scene


def forked(log: SimulatedLog) -> SimulatedLog:
    fork = log.fork(4)
    fork.append(5)
    return fork


def wrongly(log: SimulatedLog) -> bytes:
    log.sign_wrongly = True
    return log.add_checkpoint(9)


def of_size_zero(log: SimulatedLog) -> bytes:
    empty = SimulatedLog(ORIGIN)
    empty.wrong_root = True
    return empty.add_checkpoint(0)


async def disabled(folder: Path) -> CoreError | bytes:
    log = a_log()
    layout = state(folder, log)
    with LogBook(layout.database) as book, book.transaction():
        book.set_disabled(ORIGIN, disabled=True)
    async with core(layout) as w:
        return await answer(w, log.add_checkpoint(0))


async def unsigned_extensions(folder: Path) -> CoreError | bytes:
    log = SimulatedLog(ORIGIN, size=9, keys=[SimulatedKey(ORIGIN, SignatureType.COSIGNATURE_MLDSA44)])
    log.extensions = ("words",)
    async with running(folder, log) as w:
        return await answer(w, log.add_checkpoint(0))


async def bad_subtree_proof(folder: Path) -> CoreError | bytes:
    log = a_log()
    async with running(folder, log) as w:
        lines = await answer(w, log.add_checkpoint(0))
        assert isinstance(lines, bytes)
        note = log.value().text() + b"\n" + lines
        return await subtree_answer(w, forked(log).sign_subtree(4, 8, note))


async def no_subtrees(folder: Path) -> CoreError | bytes:
    log = a_log()
    async with running(folder, log, algorithms=("ed25519",)) as w:
        return await subtree_answer(w, log.sign_subtree(0, 4, log.checkpoint()))


async def no_checkpoint(folder: Path) -> CoreError | bytes:
    async with serving(folder) as served, served.client() as client:
        return await client.ask(Verb.CHECKPOINT, bytes(32))


class Held(StoreAround):
    def __init__(self, store: Store, gate: Gate) -> None:
        super().__init__(store)
        self.gate = gate

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        self.gate()
        return self.store.advance(moves)


async def overloaded(folder: Path) -> CoreError | bytes:
    log, gate = a_log(), Gate()
    async with running(folder, log, wrap_store=lambda s: Held(s, gate), limits=Limits(max_pending=1)) as w:
        first = asyncio.create_task(answer(w, log.add_checkpoint(0)))
        await until(gate.reached.is_set)
        shed = await answer(w, log.add_checkpoint(0))
        gate.open()
        assert isinstance(await first, bytes)
        return shed


async def clock_behind(folder: Path) -> CoreError | bytes:
    log, clock = a_log(), Clock(START)
    async with running(folder, log, clock=clock) as w:
        assert isinstance(await answer(w, log.add_checkpoint(0)), bytes)
        clock.now -= 1
        return await answer(w, log.add_checkpoint(9))


async def key_unavailable(folder: Path) -> CoreError | bytes:
    log = a_log()

    def absent(signer: Any) -> RecordingSigner:
        recording = RecordingSigner(signer, [])
        recording.fault = KeyAbsent("pulled out")
        return recording

    async with running(folder, log, wrap_signer=absent) as w:
        got = await answer(w, log.add_checkpoint(0))
        assert w.store.head(1) is None
        return got


class Broken(StoreAround):
    error: Exception = StoreBroken("no space", lasting=False)

    def advance(self, moves: Sequence[Advance]) -> list[bool]:
        raise self.error


class Buggy(Broken):
    error = RuntimeError("a bug, with a secret in it")


def failing_store(kind: type[Broken]) -> Scene:
    async def scene(folder: Path) -> CoreError | bytes:
        log = a_log()
        async with running(folder, log, wrap_store=kind) as w:
            return await answer(w, log.add_checkpoint(0))

    return scene


async def stopping(folder: Path) -> CoreError | bytes:
    log, gate = a_log(), Gate()
    async with running(folder, log, wrap_store=lambda s: Held(s, gate)) as w:
        first = asyncio.create_task(answer(w, log.add_checkpoint(0)))
        await until(gate.reached.is_set)
        ending = asyncio.create_task(w.witness.stop())
        await turns()
        late = await answer(w, log.add_checkpoint(0))
        gate.open()
        assert isinstance(await first, bytes), "what is inside is answered"
        await ending
        return late


async def clock_wrong(folder: Path) -> CoreError | bytes:
    log = a_log()
    async with running(folder, log) as w:
        w.witness.clock = ClockCheck()
        w.clock.now = EARLIEST - 1
        return await answer(w, log.add_checkpoint(0))


def stopped(why: CoreError) -> Scene:
    """How each comes about is told by tests/core/continuity; here it stops a real core."""

    async def scene(folder: Path) -> CoreError | bytes:
        log = a_log()
        async with running(folder, log) as w:
            w.witness.halted = why
            return await answer(w, log.add_checkpoint(0))

    return scene


async def not_yet_cosigned(folder: Path) -> CoreError | bytes:
    async with serving(folder) as served, served.client() as client:
        head = CosignedHead(Head(served.log.size, served.log.root(), START), served.log.checkpoint(), b"")
        assert served.running.store.advance([Advance(1, None, head)]) == [True]
        return await client.ask(Verb.CHECKPOINT, origin_hash(served.log.origin))


async def unreachable(folder: Path) -> CoreError | bytes:
    try:
        return await CoreClient(str(folder / "nothing.sock")).add_checkpoint(b"")
    except CoreError as error:
        return error


SCENES: dict[type[CoreError], Scene] = {
    r.MalformedRequest: asked(lambda _: b"old 00\n"),
    r.UnknownOrigin: asked(lambda _: SimulatedLog("nobody.example", size=1).add_checkpoint(0)),
    r.DisabledLog: disabled,
    r.NoTrustedSignature: asked(lambda log: log.add_checkpoint(9, keys=[SimulatedKey("stranger")])),
    r.InvalidSignature: asked(wrongly),
    r.UnsignedExtensions: unsigned_extensions,
    r.OldSizeTooLarge: asked(lambda log: log.add_checkpoint(9, 5, proof=())),
    r.StaleOldSize: asked(lambda log: log.add_checkpoint(0)),
    r.WrongEmptyRoot: asked(of_size_zero, known=False),
    r.RootMismatch: asked(lambda log: forked(log).add_checkpoint(9, proof=())),
    r.InvalidProof: asked(lambda log: log.add_checkpoint(0, proof=(bytes(32),)), known=False),
    r.InvalidSubtree: asked(
        lambda log: log.sign_subtree(4, 8, log.checkpoint()).replace(b"4 8", b"5 8"), subtree=True
    ),
    r.InvalidSubtreeProof: bad_subtree_proof,
    r.NoOwnCosignature: asked(lambda log: log.sign_subtree(4, 8, log.checkpoint()), subtree=True),
    r.SubtreesUnsupported: no_subtrees,
    r.NoCheckpoint: no_checkpoint,
    r.Overloaded: overloaded,
    r.ClockBehind: clock_behind,
    r.ClockWrong: clock_wrong,
    r.StateBehind: stopped(r.StateBehind(ORIGIN, 4, 9, "the high-water record")),
    r.SigningStopped: stopped(r.SigningStopped("restored", "a backup")),
    r.NotCompared: stopped(r.NotCompared("the world was not asked yet")),
    r.NotYetCosigned: not_yet_cosigned,
    r.KeyUnavailable: key_unavailable,
    r.StoreUnavailable: failing_store(Broken),
    r.Stopping: stopping,
    r.CoreUnreachable: unreachable,
    r.InternalError: failing_store(Buggy),
}


@pytest.mark.parametrize("cls", SCENES, ids=lambda cls: cls.__name__)
async def test_the_real_code_raises_it_and_the_table_maps_it(cls: type[CoreError], tmp_path: Path) -> None:
    got = await SCENES[cls](tmp_path)
    assert type(got) is cls
    reply = refusal(got)
    assert reply.status == STATUS[cls]
    assert reply.outcome == cls.code
    assert reply.body.endswith(b"\n")
    assert reply.body.count(b"\n") == 1
    assert b"secret" not in reply.body


def _made_in() -> dict[str, set[str]]:
    """Which refusals are made in which files, outside the file that defines them."""
    made: dict[str, set[str]] = {}
    for file in sorted((ROOT / "witness").rglob("*.py")):
        if file.name == "refusals.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            # SubtreesUnsupported has no facts, and is raised as a class.
            called = node.func if isinstance(node, ast.Call) else getattr(node, "exc", None)
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            made.setdefault(name, set()).add(file.name)
    return made


def test_every_refusal_that_the_code_makes_is_shown_above() -> None:
    """Those that only later issues raise are in the table already; they get their scene with their code."""
    made = _made_in()
    missing = {cls.__name__: made[cls.__name__] for cls in ALL if cls not in SCENES and cls.__name__ in made}
    assert missing == {}
    assert [cls.__name__ for cls in SCENES if cls.__name__ not in made] == []


def test_the_table_names_every_refusal_and_nothing_else() -> None:
    assert set(STATUS) == set(ALL) == set(BY_CODE.values())
    assert len(BY_CODE) == len(ALL), "no two share a code"
    assert all(400 <= status <= 599 for status in STATUS.values())


def test_the_callers_faults_are_4xx_and_ours_5xx() -> None:
    for cls, status in STATUS.items():
        if issubclass(cls, Unavailable):
            assert status >= 500, cls
        elif cls is not r.SubtreesUnsupported:  # an optional part of the specification: 501
            assert issubclass(cls, Refusal)
            assert status < 500, cls


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_its_facts_are_fields(cls: type[CoreError]) -> None:
    fields = dataclasses.fields(cls)
    facts = {field.name: 7 if field.type == "int" else "a fact" for field in fields}
    error = cls(**facts)
    assert error.facts() == facts
    assert error == cls(**facts)
    assert "\n" not in str(error)
    assert str(error) != cls.code, "it says something to people"


def test_no_other_place_of_the_front_decides_a_refusals_status() -> None:
    """Outside the table no module of the front names a refusal beside a number."""
    names = {cls.__name__ for cls in ALL}
    found = set()
    for file in (ROOT / "witness" / "front").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
            for key, value in pairs:
                if getattr(key, "attr", getattr(key, "id", "")) in names and isinstance(value, ast.Constant):
                    found.add(file.name)
    assert found == {"endpoints.py"}
