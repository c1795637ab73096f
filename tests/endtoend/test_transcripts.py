"""Every transcript over HTTP, through the real daemon: supervisor, front and core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.processes import Witness, fetch, poll
from tests.transcripts import Answer, Transcript, own_transcripts, play, shared_transcripts
from witness.tlog.note import VerifierKey, parse_vkey

pytestmark = pytest.mark.slow


@dataclass
class HttpDoor:
    witness: Witness

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        return tuple(parse_vkey(text) for text in self.witness.vkeys)

    async def call(self, verb: str, body: bytes) -> Answer:
        answer = fetch(f"{self.witness.url}/{verb}", body=body, method="POST")
        return Answer(answer.status, answer.content_type, answer.body)


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """One daemon for all transcripts: their logs have different origins."""
    daemon = Witness(tmp_path_factory.mktemp("transcripts") / "state", "witness.example/w1")
    daemon.start()
    yield daemon
    daemon.stop()


async def through_http(transcript: Transcript, witness: Witness) -> None:
    for origin, keys in transcript.logs:
        # All keys in one command: the daemon takes them up together.
        witness.add_log(str(keys[0]), *(str(key) for key in keys[1:]), "--origin", origin)
    last_origin, last_keys = transcript.logs[-1]
    junk = f"old 0\n\n{last_origin}\n0\n{'A' * 43}=\n\n— {last_keys[-1].name} AAAAAAAA\n"
    poll("the daemon knows the logs", lambda: witness.submit(junk).status != 404 or None, seconds=10)
    await play(transcript, HttpDoor(witness))
    for origin, size in transcript.sizes.items():
        note = witness.checkpoint(origin)
        assert note is not None
        assert note.split("\n")[1] == str(size)


@pytest.mark.parametrize("transcript", own_transcripts(), ids=lambda t: t.name)
async def test_own(transcript: Transcript, witness: Witness) -> None:
    await through_http(transcript, witness)


async def test_shared(testdata: Path, tmp_path: Path) -> None:
    """Their logs share origins, so each transcript has a daemon of its own; the first three."""
    for number, transcript in enumerate(shared_transcripts(testdata)[:3]):
        daemon = Witness(tmp_path / str(number), transcript.witness_name)
        daemon.start()
        try:
            await through_http(transcript, daemon)
        finally:
            daemon.stop()
