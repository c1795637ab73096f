"""The real distributor accepts what this witness publishes and gives it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from distributor.http import HttpTarget, open_session
from distributor.protocol import PublishRejected
from tests.interop.processes import Witness, distributor, fetch, find_distributor, mariadb, poll
from tests.interop.programs import GoPrograms
from tests.simulated_log import SimulatedKey
from witness.tlog.checkpoint import log_id, parse_checkpoint
from witness.tlog.note import SignatureType, format_note, parse_note

pytestmark = pytest.mark.slow

# Real logs that the distributor has built in: their origins, vkeys and checkpoints in the test data.
ARMORY_DRIVE = (
    "Armory Drive Prod 2",
    "armory-drive-log+16541b8f+AYDPmG5pQp4Bgu0a1mr5uDZ196+t8lIVIfWQSPWmP+Jv",
    "logs/serverless/armory-drive-prod2/checkpoint",
)
SUM_DATABASE = (
    "go.sum database tree",
    "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
    "logs/sumdb/size11094656/latest",
)


@pytest.fixture(scope="module")
def sql(short_folder: Path) -> Iterator[Path]:
    find_distributor()  # else there is nothing to start a database for
    with mariadb(short_folder, ["names", "first", "second"]) as at:
        yield at


@pytest.mark.parametrize("name", ["plain-name", "witness.example/with/slashes", "witness.example/%41é~"])
async def test_the_publisher_finds_its_witness_by_any_name(
    sql: Path, programs: GoPrograms, testdata: Path, tmp_path: Path, name: str
) -> None:
    origin, vkey, file = ARMORY_DRIVE
    ours = SimulatedKey(name, SignatureType.COSIGNATURE_ED25519)
    second = SimulatedKey(name, SignatureType.COSIGNATURE_MLDSA44)
    note = parse_note((testdata / file).read_bytes())
    checkpoint = parse_checkpoint(note.text)
    cosigned = format_note(note.text, [*note.signatures, ours.sign(checkpoint), second.sign(checkpoint)])

    with distributor(sql, "names", [str(ours.vkey)], tmp_path / "output") as url:
        async with open_session() as session:
            target = HttpTarget(url, name, session)
            await target.publish(origin, cosigned)
            stranger = HttpTarget(url, "somebody.else", session)
            with pytest.raises(PublishRejected):
                await stranger.publish(origin, cosigned)
        served = fetch(f"{url}/distributor/v0/logs/{log_id(origin)}/checkpoint.1")
    assert served.status == 200, served
    request = {"note": served.body.decode(), "origin": origin, "log": vkey, "cosigners": [str(ours.vkey)]}
    answer = programs.run("notecheck", request)
    assert answer["size"] == checkpoint.size
    assert [found["name"] for found in answer["cosignatures"]] == [name]


def test_the_witness_publishes_what_it_cosigns(
    make_witness: Callable[[], Witness], sql: Path, programs: GoPrograms, testdata: Path, tmp_path: Path
) -> None:
    witness = make_witness()
    real = [
        (origin, vkey, (testdata / file).read_text()) for origin, vkey, file in (ARMORY_DRIVE, SUM_DATABASE)
    ]
    for origin, vkey, _ in real:
        witness.add_log(vkey, "--origin", origin)
    with distributor(sql, "first", [witness.vkey(4)], tmp_path / "first") as url:
        witness.configure(distributors=[{"url": url}])
        witness.start()
        for *_, note in real:
            witness.submit_once_known(f"old 0\n\n{note}")
        check_published(url, witness, programs, real)
        witness.stop()
    # Another distributor learns after the next start all that was cosigned before it.
    with distributor(sql, "second", [witness.vkey(4)], tmp_path / "second") as url:
        witness.configure(distributors=[{"url": url}])
        witness.start()
        check_published(url, witness, programs, real)
        witness.stop()


def check_published(
    url: str, witness: Witness, programs: GoPrograms, logs: list[tuple[str, str, str]]
) -> None:
    """Waits until the distributor has a cosigned checkpoint of each log, and has Go verify it."""
    for origin, vkey, note in logs:
        address = f"{url}/distributor/v0/logs/{log_id(origin)}"
        by_us = partial(found, f"{address}/byWitness/{witness.name}/checkpoint")
        served = poll(f"{origin} at the distributor", by_us)
        request = {"note": served, "origin": origin, "log": vkey, "cosigners": witness.vkeys}
        answer = programs.run("notecheck", request)
        assert str(answer["size"]) == note.split("\n")[1]
        # It was told of the 0x04 key alone, so it leaves the other cosignature out.
        names = [(each["name"], each["key_id"]) for each in answer["cosignatures"]]
        assert names == [(witness.name, witness.vkey(4).split("+")[1])]
        merged = fetch(f"{address}/checkpoint.1")
        assert merged.status == 200, merged
        programs.run("notecheck", request | {"note": merged.body.decode()})


def found(url: str) -> str | None:
    """The body, once there is one."""
    answer = fetch(url)
    return answer.body.decode() if answer.status == 200 else None
