"""Forks are recognised at our head, below it and beyond it; what is exported convinces without us."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from pathlib import Path

from tests.cli.command import witness as command
from tests.core.state import core, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.bundles import Options, verify
from witness.core.continuity import memory
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError
from witness.core.store.desk import Desk


async def refused(running: object, body: bytes) -> str:
    try:
        await running.witness.add_checkpoint(body)  # type: ignore[attr-defined]
    except CoreError as error:
        return error.code
    return ""


def forked(log: SimulatedLog, at: int, size: int) -> SimulatedLog:
    fork = log.fork(at)
    fork.append(size - at)
    return fork


async def contradicted(layout: StateLayout, log: SimulatedLog) -> None:
    """Cosigned at 6 and 11, remembered at 6; then three contradictions."""
    async with core(layout) as running:
        desk = Desk(layout.database)
        running.witness.judge.recall = lambda log_id, size: memory.recall(desk, log_id, size)
        await running.witness.add_checkpoint(log.add_checkpoint(0))
        memory.remember_heads(desk, [1], 4)
        log.append(5)
        await running.witness.add_checkpoint(log.add_checkpoint(6))
        honest = log.add_checkpoint(0, 6)
        assert await refused(running, honest) == "stale-old-size"
        assert running.witness.contradictions == 0, "an old checkpoint is no contradiction"
        assert await refused(running, forked(log, 4, 11).add_checkpoint(11)) == "root-mismatch"
        assert await refused(running, forked(log, 3, 6).add_checkpoint(0)) == "stale-old-size"
        assert await refused(running, forked(log, 5, 14).add_checkpoint(11)) == "invalid-proof"
        # A proof that leads nowhere proves nothing.
        assert (
            await refused(running, forked(log, 5, 14).add_checkpoint(11, proof=[bytes(32)] * 4))
            == "invalid-proof"
        )
        assert running.witness.contradictions == 3
        desk.close()


async def test_three_forks_are_kept_and_exported_and_verified_by_two_programs(tmp_path: Path) -> None:
    layout = make_state(tmp_path / "s")
    (layout.root / "witness.yaml").write_text("name: witness.example/w1\n")
    log = SimulatedLog("evidence.example/log", size=6)
    trust(layout, log)
    await contradicted(layout, log)
    listed = json.loads(command("--state", str(layout.root), "evidence", "list", "--json").out)
    assert [(each["kind"], each["size"]) for each in listed] == [
        ("root-mismatch", 11), ("root-mismatch", 6), ("fork", 11),
    ]  # fmt: skip
    for each in listed:
        file = tmp_path / f"{each['number']}.json"
        outcome = command(
            "--state", str(layout.root), "evidence", "export", str(each["number"]), "-o", str(file)
        )
        assert outcome.code == 0, outcome.err
        data = file.read_bytes()
        assert verify(data, Options(logs=log.vkeys)).verified
        assert independently(data, str(log.vkeys[0]))
        changed = data.replace(b"evidence.example/log\\n11\\n", b"evidence.example/log\\n12\\n")
        if changed != data:
            assert not independently(changed, str(log.vkeys[0]))


def test_remembered_heads_are_bounded(tmp_path: Path) -> None:
    layout = make_state(tmp_path / "s")
    log = SimulatedLog("evidence.example/log", size=1)
    trust(layout, log)
    with Desk(layout.database) as desk:
        desk.connection.execute("INSERT INTO heads VALUES (1, 0, zeroblob(32), 1, x'', x'')")
        for size in range(1, 20):
            desk.connection.execute("UPDATE heads SET size = ?", (size,))
            memory.remember_heads(desk, [1], 5)
        sizes = [row[0] for row in desk.connection.execute("SELECT size FROM recent_heads ORDER BY size")]
    assert sizes == [15, 16, 17, 18, 19]
    assert sqlite3.sqlite_version_info >= (3, 37)


# --- An independent check, from the specifications alone (signed-note, RFC 6962) ---


def independently(data: bytes, vkey: str) -> bool:
    """Whether both notes are signed by the key, and cannot both be true."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    name, _, material = vkey.split("+", 2)
    raw = base64.b64decode(material)
    assert raw[0] == 1
    key_id = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    content = json.loads(data)
    heads = []
    for note in content["notes"]:
        text, _, lines = note.partition("\n\n")
        text += "\n"
        good = False
        for line in lines.splitlines():
            dash, signer, value = line.split(" ")
            blob = base64.b64decode(value)
            if dash == "—" and signer == name and blob[:4] == key_id:
                try:
                    Ed25519PublicKey.from_public_bytes(raw[1:]).verify(blob[4:], text.encode())
                    good = True
                except InvalidSignature:
                    return False
        origin, size, root = text.split("\n")[:3]
        if not good or origin != name:
            return False
        heads.append((int(size), base64.b64decode(root)))
    (one, root_one), (two, root_two) = heads
    if content["kind"] == "same-size-different-root":
        return one == two and root_one != root_two
    proof = [base64.b64decode(each) for each in content["proof"]]
    contained = base64.b64decode(content["contained_root"])
    return contained != root_one and consistent(one, two, contained, root_two, proof)


def consistent(m: int, n: int, first: bytes, second: bytes, proof: list[bytes]) -> bool:
    """RFC 6962, section 2.1.2, read backwards: SUBPROOF by recursion, building both roots at once."""
    left = list(proof)

    def walk(m: int, n: int, known: bool) -> tuple[bytes, bytes]:  # noqa: FBT001
        if m == n:
            if known:
                return first, first
            node = left.pop()
            return node, node
        k = 1
        while k * 2 < n:
            k *= 2
        if m <= k:
            right = left.pop()
            old, new = walk(m, k, known)
            return old, hashlib.sha256(b"\1" + new + right).digest()
        sibling = left.pop()
        old, new = walk(m - k, n - k, False)
        return (
            hashlib.sha256(b"\1" + sibling + old).digest(),
            hashlib.sha256(b"\1" + sibling + new).digest(),
        )

    try:
        roots = walk(m, n, True)
    except IndexError:
        return False
    return roots == (first, second) and not left
