"""The real distributor accepts what this witness publishes and gives it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distributor.http import HttpTarget, open_session
from distributor.protocol import PublishRejected
from tests.interop.processes import distributor, fetch, mariadb
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
def database(short_folder: Path) -> Iterator[Path]:
    with mariadb(short_folder, "distributor") as at:
        yield at


@pytest.mark.parametrize("name", ["plain-name", "witness.example/with/slashes", "witness.example/%41é~"])
async def test_the_publisher_finds_its_witness_by_any_name(
    database: Path, programs: GoPrograms, testdata: Path, tmp_path: Path, name: str
) -> None:
    origin, vkey, file = ARMORY_DRIVE
    ours = SimulatedKey(name, SignatureType.COSIGNATURE_ED25519)
    second = SimulatedKey(name, SignatureType.COSIGNATURE_MLDSA44)
    note = parse_note((testdata / file).read_bytes())
    checkpoint = parse_checkpoint(note.text)
    cosigned = format_note(note.text, [*note.signatures, ours.sign(checkpoint), second.sign(checkpoint)])

    with distributor(database, [str(ours.vkey)], tmp_path / "output") as url:
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
