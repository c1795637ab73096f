"""Drills: retiring a generation of keys, cut short at every step, and whatever is put back afterwards.

The core runs in this process, so that it can be cut short; each start is a whole one, with its own keys,
records and socket. However it goes, no retired key's signature is ever seen after the retirement was durable.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Outcome, make, witness
from tests.core.processes import CoreProcess, short_folder
from tests.core.state import trust
from tests.drills.cut_core import EXIT, STEPS
from tests.simulated_log import SimulatedLog
from witness.core import process
from witness.core.continuity import highwater
from witness.core.continuity.secret import HIGH_WATER, MacKey, record_keys, sources_of
from witness.core.continuity.settings import ContinuitySettings
from witness.core.keystore import keyring
from witness.core.keystore.base import KeyAbsent
from witness.core.keystore.keychain import Keychain
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError
from witness.core.settings import CoreSettings
from witness.core.store import generations
from witness.core.store.alarms import Kind, standing
from witness.core.store.desk import Desk
from witness.core.wire import CoreStatus
from witness.front.client import CoreClient, connect_once
from witness.tlog.note import VerifierKey, parse_signature_lines

ORIGIN = "retiring.example/log"


class PowerCut(Exception):
    """Ends a core at once: nothing foresees it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def layout(folder: Path) -> StateLayout:
    layout = StateLayout(make(folder / "s", "--algorithm", "ed25519"))
    trust(layout, SimulatedLog(ORIGIN, size=3))
    return layout


def settings(layout: StateLayout, **continuity: Any) -> CoreSettings:
    # The record lies beside the state folder: nothing that is put back brings it back.
    water = str(layout.root.parent / "water")
    return CoreSettings(
        str(layout.root), continuity=ContinuitySettings(high_water=water, interval=0.1, **continuity)
    )


@asynccontextmanager
async def core(layout: StateLayout, **continuity: Any) -> AsyncIterator[CoreClient]:
    """A core from start to stop, and a connection to it."""
    ready, stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(process.serve(settings(layout, **continuity), ready.set, stop))
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        async with connect_once(str(layout.core_socket), deadline=30) as client:
            yield client
        stop.set()
        await asyncio.wait_for(serving, 30)
    finally:
        waiting.cancel()
        serving.cancel()
        await asyncio.gather(serving, waiting, return_exceptions=True)


async def command(layout: StateLayout, *arguments: str) -> Outcome:
    """A `witness …`, on a thread: it runs an event loop of its own."""
    return await asyncio.to_thread(witness, *arguments, state=layout.root)


async def rotate(layout: StateLayout, overlap: str = "0") -> VerifierKey:
    """Stages a generation; the key that is to retire."""
    (old,) = keyring.read(layout).vkeys
    outcome = await command(layout, "keys", "rotate", "--overlap", overlap)
    assert outcome.code == 0, outcome.err
    return old


async def cosigned_by(client: CoreClient, log: SimulatedLog, old: int) -> set[bytes]:
    lines = await client.add_checkpoint(log.add_checkpoint(old))
    return {line.key_id for line in parse_signature_lines(lines)}


async def eventually(what: str, condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not in time: {what}")


def in_table(layout: StateLayout) -> dict[int, str]:
    with Desk(layout.database) as desk:
        return {row.number: row.stage.value for row in generations.read(desk.connection)}


def in_record(layout: StateLayout) -> tuple[str, ...]:
    """The retired keys that the high-water record names."""
    ring = keyring.read(layout)
    keychain = Keychain.prepare(layout, passphrase=None)
    try:
        sources = sources_of(ring, keychain.signers(), layout.records_key, make=False)
        key = record_keys(sources, ring.identity.encode())[HIGH_WATER]
    finally:
        keychain.close()
    return highwater.read_only(layout.root.parent / "water", MacKey(key)).retired


def kinds(layout: StateLayout) -> set[Kind]:
    """The kinds of the alarms that stand."""
    with Desk(layout.database) as desk:
        return {alarm.kind for alarm in standing(desk)}


def cut(*_: object) -> None:
    raise PowerCut


@pytest.mark.parametrize("step", STEPS)
async def test_cut_short_after_each_step_it_is_completed_before_anything_is_signed(
    layout: StateLayout, step: str
) -> None:
    log = SimulatedLog(ORIGIN, size=3)
    async with core(layout):
        pass  # a high-water record of the first generation
    old = await rotate(layout)
    prefix = (sys.executable, "-m", "tests.drills.cut_core", step)
    died = CoreProcess(layout, prefix=prefix, continuity=settings(layout).continuity)
    assert died.wait() == EXIT
    durable = in_table(layout)[0] == "retired"
    assert durable is (step != "dropped")
    async with core(layout) as client:
        assert await cosigned_by(client, log, 0) == {keyring.read(layout).vkeys[1].key_id}
        await eventually("it is destroyed", lambda: not layout.softkey.exists())
    assert in_table(layout) == {0: "retired", 1: "active"}
    assert in_record(layout) == (str(old),)
    with Desk(layout.database) as desk:
        assert desk.fact("destroyed:0") == "1"
    whole = await command(layout, "audit", "verify", "--json")
    assert whole.code == 0, whole.err
    told = (await command(layout, "audit", "export")).out
    assert told.count('"kind":"retired-keys"') == 1, "each step is on the record once"


async def test_a_staging_cut_short_changes_nothing_and_is_done_again(
    layout: StateLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = keyring.read(layout).vkeys
    with monkeypatch.context() as patch:
        patch.setattr(keyring, "write", cut)
        with pytest.raises(PowerCut):
            await rotate(layout)
    log = SimulatedLog(ORIGIN, size=3)
    async with core(layout) as client:
        assert await cosigned_by(client, log, 0) == {old.key_id}
    await rotate(layout)
    async with core(layout) as client:
        (new,) = {key.key_id for key in keyring.read(layout).vkeys} - {old.key_id}
        assert await cosigned_by(client, log, 3) == {new}
    assert in_table(layout) == {0: "retired", 1: "retired", 2: "active"}


async def test_a_whole_folder_from_before_signs_with_no_retired_key(
    layout: StateLayout, folder: Path
) -> None:
    """Keys, ring and database are of one old moment; the record beside them is not."""
    log = SimulatedLog(ORIGIN, size=3)
    async with core(layout) as client:
        await cosigned_by(client, log, 0)
    shutil.copytree(layout.root, folder / "old")
    await rotate(layout)
    async with core(layout):
        await eventually("it is destroyed", lambda: not layout.softkey.exists())
    shutil.rmtree(layout.root)
    shutil.copytree(folder / "old", layout.root)
    async with core(layout) as client:
        with pytest.raises(CoreError):
            await cosigned_by(client, log, 3)
        status: CoreStatus = await client.status()
        assert any("retired-key" in alarm for alarm in status.alarms)
        assert not status.ready
        assert (await command(layout, "recover")).code == 1
        assert Kind.RETIRED_KEY in kinds(layout)
        # Whatever an operator settles: no other key is here, and this one never signs again.
        await command(layout, "recover", "--fast-forward")
        await eventually("the alarm stands again", lambda: Kind.RETIRED_KEY in kinds(layout))
        assert any("no other key is here" in alarm for alarm in (await client.status()).alarms)
        with pytest.raises(CoreError):
            await cosigned_by(client, log, 3)
    # The database has learnt it: no core even opens the key again.
    with pytest.raises(KeyAbsent, match="was retired"):
        async with core(layout):
            pass


async def test_an_identity_that_was_retired_stays_so_in_an_old_folder(
    layout: StateLayout, folder: Path
) -> None:
    async with core(layout):
        pass
    shutil.copytree(layout.root, folder / "old")
    async with core(layout) as client:
        (await command(layout, "recover", "--retire"))
        # The alarm is told first, the record follows.
        mine = tuple(str(key) for key in keyring.read(layout).vkeys)
        await eventually("the record says so", lambda: in_record(layout) == mine)
        assert any("retired" in alarm for alarm in (await client.status()).alarms)
    shutil.rmtree(layout.root)
    shutil.copytree(folder / "old", layout.root)
    async with core(layout) as client:
        with pytest.raises(CoreError):
            await cosigned_by(client, SimulatedLog(ORIGIN, size=3), 0)


async def test_a_copy_by_a_retired_generation_still_tells_of_our_past(
    layout: StateLayout, folder: Path
) -> None:
    """The world shows a checkpoint that a key cosigned which is retired now: it was ours, and it counts."""
    log = SimulatedLog(ORIGIN, size=3)
    shutil.copytree(layout.root, folder / "young")
    async with core(layout) as client:
        await cosigned_by(client, log, 0)
        log.append(4)
        await cosigned_by(client, log, 3)
        copy = await client.checkpoint(_hash())
    # Database and record are lost, and the keys folder is today's: only the world knows size 7.
    young = StateLayout(folder / "young")
    for file in highwater.slots(folder / "water"):
        file.unlink()
    await rotate(young)
    async with core(young) as client:
        assert await cosigned_by(client, log.fork(3), 0)
        assert await client.seen("a distributor", copy)
        assert any("state-behind" in alarm for alarm in (await client.status()).alarms)


def _hash() -> bytes:
    from witness.tlog.checkpoint import origin_hash

    return origin_hash(ORIGIN)


async def test_a_rotation_that_operators_approved_is_taken_up(layout: StateLayout, tmp_path: Path) -> None:
    keys = {name: tmp_path / name for name in ("alice", "bob")}
    for name, key in keys.items():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
    operators = tuple(f"{name} {key.with_suffix('.pub').read_text().strip()}" for name, key in keys.items())
    with layout.config.open("a") as config:
        config.write("authority:\n  needed: 2\n  operators:\n")
        config.write("".join(f"    - {operator}\n" for operator in operators))
    refused = await command(layout, "keys", "rotate")
    assert refused.code == 1
    assert "rotate needs 2 of 2 operators" in refused.err
    number = (await command(layout, "approvals", "propose", "rotate")).out.strip()
    for key in keys.values():
        assert (await command(layout, "approvals", "approve", number, "--key", str(key))).code == 0
    await rotate(layout)
    async with core(layout, needed=2, operators=operators) as client:
        (new,) = {key.key_id for key in keyring.read(layout).vkeys[1:]}
        assert await cosigned_by(client, SimulatedLog(ORIGIN, size=3), 0) == {new}


async def test_a_rotation_that_no_operators_approved_signs_nothing(
    layout: StateLayout, tmp_path: Path
) -> None:
    """The command asks for approval, and the core asks again: the database alone could have been changed."""
    operators = (
        "alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g",
        "bob ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj9A",
    )
    old = await rotate(layout, overlap="1h")  # as if witness.yaml had not asked for approval
    async with core(layout, needed=2, operators=operators) as client:
        assert await cosigned_by(client, SimulatedLog(ORIGIN, size=3), 0) == {old.key_id}
    assert in_table(layout) == {0: "active", 1: "retired"}
    assert '"kind":"rotation-refused"' in (await command(layout, "audit", "export")).out
