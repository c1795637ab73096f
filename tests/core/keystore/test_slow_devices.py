"""Slow keys hold nobody up but those who want them, and no more of these are let in than can be served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.core.keystore.programs import eventually
from tests.core.keystore.slow import SlowAgent
from tests.core.state import IDENTITY, NAME, START, Clock, trust
from tests.simulated_log import SimulatedLog
from witness.core.cosigner import Cosigner
from witness.core.keystore import keyring, softkey
from witness.core.keystore.base import COSIGNATURE_TYPES, Algorithm
from witness.core.keystore.devices import Deadlines
from witness.core.keystore.keychain import Keychain
from witness.core.keystore.keyring import SOFT, DeviceEntry, KeyEntry, Place, Ring
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError, KeyUnavailable, NoOwnCosignature, Overloaded, StaleOldSize
from witness.core.request import Limits
from witness.core.store import schema
from witness.core.store.sqlite import SQLiteStore
from witness.core.witness import Witness
from witness.tlog.note import make_vkey, parse_signature_lines

SEED = bytes(range(32))
LOGS = 70


@dataclass
class Slow:
    witness: Witness
    agents: list[SlowAgent]
    keychain: Keychain
    logs: list[SimulatedLog]


@contextlib.asynccontextmanager
async def slow_witness(
    folder: Path, *, devices: int = 1, seconds: float = 0.0, budget: float = 1.0, logs: int = LOGS
) -> AsyncIterator[Slow]:
    """A witness whose Ed25519 key is in slow agents and whose ML-DSA-44 key is in its memory."""
    layout = StateLayout(folder / "state")
    layout.root.mkdir()
    agents = [SlowAgent(folder / f"agent{number}", SEED, seconds) for number in range(devices)]
    schema.create(layout.database, name=NAME, identity=IDENTITY, now=START)
    (soft,) = softkey.create(
        layout.softkey, name=NAME, identity=IDENTITY, passphrase=None, algorithms=("ml-dsa-44",)
    )
    vkey = make_vkey(NAME, COSIGNATURE_TYPES[Algorithm.ED25519], agents[0].public)
    entries = [
        DeviceEntry(f"agent{n}", "ssh-agent", {"socket": str(agent.path)}) for n, agent in enumerate(agents)
    ]
    places = tuple(Place(entry.name, {"public_key": agents[0].public.hex()}) for entry in entries)
    keys = (KeyEntry(vkey, "witness", "sign", places), KeyEntry(soft, "witness", "soft", (Place(SOFT),)))
    keyring.write(layout, Ring(NAME, IDENTITY, (*entries, DeviceEntry(SOFT, SOFT)), keys))
    simulated = [SimulatedLog(f"log.example/{number}", size=5) for number in range(logs)]
    trust(layout, *simulated)
    keychain = Keychain.prepare(layout, passphrase=None, deadlines=Deadlines(sign=20.0))
    store = SQLiteStore(layout.database)
    try:
        await asyncio.to_thread(keychain.open)
        limits = Limits(signing_budget=budget)
        witness = Witness(store, Cosigner(keychain.signers()), now=Clock(), limits=limits)
        await witness.start()
        try:
            yield Slow(witness, agents, keychain, simulated)
        finally:
            for agent in agents:
                agent.gate.set()
            await asyncio.wait_for(witness.stop(), 20)
    finally:
        keychain.close()
        store.close()
        for agent in agents:
            agent.close()


async def ask(witness: Witness, body: bytes) -> bytes | CoreError:
    try:
        return await witness.add_checkpoint(body)
    except CoreError as error:
        return error


async def until(what: str, condition: object) -> None:
    await asyncio.to_thread(eventually, what, condition)


@pytest.mark.parametrize("same_log", [False, True])
async def test_what_the_device_cannot_answer_in_time_is_shed_before_it_answers_anything(
    folder: Path, *, same_log: bool
) -> None:
    """70 at once at a device that answers a few in time: the rest is told while it still signs."""
    async with slow_witness(folder, seconds=0.05, budget=0.5) as slow:
        (agent,) = slow.agents
        tried = agent.signed  # when the device was opened
        capacity = Cosigner(slow.keychain.signers()).capacity(0.5)
        assert 1 <= capacity <= 10, "at 20 a second"
        agent.gate.clear()
        logs = slow.logs[:1] * LOGS if same_log else slow.logs
        asking = [asyncio.create_task(ask(slow.witness, log.add_checkpoint(old=0))) for log in logs]
        shed = LOGS - capacity
        # Not one signature was made meanwhile: whoever is shed does not wait for the device.
        await until("the rest is shed", lambda: sum(task.done() for task in asking) >= shed)
        assert agent.signed == tried
        assert all(isinstance(task.result(), Overloaded) for task in asking if task.done())
        agent.gate.set()
        answers = await asyncio.gather(*asking)
        good = [answer for answer in answers if isinstance(answer, bytes)]
        assert len(good) == (1 if same_log else capacity)
        assert all(len(parse_signature_lines(answer)) == 2 for answer in good)
        assert slow.witness.pending == 0
        again = await ask(slow.witness, slow.logs[-1].add_checkpoint(old=0))
        assert isinstance(again, bytes), "the places are free again"


async def test_who_comes_when_every_place_is_taken_is_told_before_anything_is_checked(folder: Path) -> None:
    async with slow_witness(folder, seconds=0.05, budget=0.5, logs=30) as slow:
        (agent,) = slow.agents
        fork = slow.logs[-1].add_checkpoint(old=0, proof=(bytes(32),))
        assert not isinstance(await ask(slow.witness, fork), (bytes, Overloaded)), (
            "it is refused for what it is"
        )
        agent.gate.clear()
        logs = slow.logs[:-1]
        asking = [asyncio.create_task(ask(slow.witness, log.add_checkpoint(old=0))) for log in logs]
        await until("the first are told", lambda: any(task.done() for task in asking))
        judged = slow.witness.stages.judge
        again = await asyncio.gather(*(ask(slow.witness, fork) for _ in range(20)))
        assert all(isinstance(answer, Overloaded) for answer in again)
        assert slow.witness.stages.judge == judged
        agent.gate.set()
        assert any(isinstance(answer, bytes) for answer in await asyncio.gather(*asking))


async def test_a_device_that_signs_holds_up_nothing_else(folder: Path) -> None:
    async with slow_witness(folder, logs=3) as slow:
        signed = await slow.witness.add_checkpoint(slow.logs[2].add_checkpoint(old=0))
        (agent,) = slow.agents
        agent.gate.clear()
        waiting = asyncio.create_task(ask(slow.witness, slow.logs[0].add_checkpoint(old=0)))
        await until("the device is asked", lambda: agent.asked > agent.signed)
        # Refusals of other logs, and subtrees, which the key in memory signs, are answered all the same.
        stale = await ask(slow.witness, slow.logs[2].add_checkpoint(old=0))
        assert stale == StaleOldSize(5)
        log = slow.logs[2]
        with pytest.raises(NoOwnCosignature):
            await slow.witness.sign_subtree(log.sign_subtree(0, 4, log.checkpoint()))
        assert await slow.witness.sign_subtree(log.sign_subtree(0, 4, log.checkpoint() + signed))
        assert not waiting.done()
        agent.gate.set()
        assert isinstance(await waiting, bytes)


async def test_devices_of_one_key_sign_side_by_side(folder: Path) -> None:
    async with slow_witness(folder, devices=3, logs=3) as slow:
        assert slow.keychain.states()[0].detail == "3 of 3 devices"
        for agent in slow.agents:
            agent.gate.clear()
        asking = [asyncio.create_task(ask(slow.witness, log.add_checkpoint(old=0))) for log in slow.logs]
        await until("all three devices are asked", lambda: all(a.asked > a.signed for a in slow.agents))
        for agent in slow.agents:
            agent.gate.set()
        assert all(isinstance(answer, bytes) for answer in await asyncio.gather(*asking))
        rate = slow.keychain.states()[0].rate
        assert rate > 0, "measured, in signatures a second"


async def test_another_device_of_the_key_takes_over(folder: Path) -> None:
    async with slow_witness(folder, devices=2, logs=4) as slow:
        slow.agents[0].key = Ed25519PrivateKey.from_private_bytes(bytes(32))  # it signs wrongly now
        for log in slow.logs:
            assert isinstance(await ask(slow.witness, log.add_checkpoint(old=0)), bytes)
        slow.agents[1].key = slow.agents[0].key
        answers = [await ask(slow.witness, log.add_checkpoint(old=5)) for log in slow.logs]
        assert all(isinstance(answer, KeyUnavailable) for answer in answers)
        await until("the key is told to be out of use", lambda: slow.keychain.states()[0].state == "invalid")


async def test_without_its_device_every_request_is_told_at_once(folder: Path) -> None:
    async with slow_witness(folder, logs=30) as slow:
        (agent,) = slow.agents
        agent.close()
        agent.key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        answers = await asyncio.gather(*(ask(slow.witness, log.add_checkpoint(old=0)) for log in slow.logs))
        kinds = {type(answer) for answer in answers}
        assert KeyUnavailable in kinds
        assert kinds <= {KeyUnavailable, Overloaded}
        later = await ask(slow.witness, slow.logs[0].add_checkpoint(old=0))
        assert isinstance(later, KeyUnavailable)
        assert slow.witness.pending == 0
