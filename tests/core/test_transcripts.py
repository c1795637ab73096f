"""Every transcript through the core itself, with the front's one table for the statuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.core.state import Running, add_logs, core, make_state
from tests.transcripts import ADD, Answer, Transcript, own_transcripts, play, shared_transcripts
from witness.core.refusals import CoreError, StaleOldSize
from witness.front.endpoints import STATUS
from witness.tlog.checkpoint import origin_hash
from witness.tlog.note import VerifierKey, parse_note


@dataclass
class CoreDoor:
    running: Running

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        return self.running.vkeys

    async def call(self, verb: str, body: bytes) -> Answer:
        witness = self.running.witness
        try:
            lines = await (witness.add_checkpoint(body) if verb == ADD else witness.sign_subtree(body))
        except StaleOldSize as error:
            return Answer(STATUS[StaleOldSize], "text/x.tlog.size", f"{error.known}\n".encode())
        except CoreError as error:
            return Answer(STATUS[type(error)], "text/plain; charset=utf-8", f"{error}\n".encode())
        return Answer(200, "text/plain; charset=utf-8", lines)


async def through_the_core(transcript: Transcript, folder: Path) -> None:
    layout = make_state(folder, name=transcript.witness_name, ed25519_seed=transcript.ed25519_seed)
    add_logs(layout, transcript.logs)
    async with core(layout) as running:
        await play(transcript, CoreDoor(running))
        for origin, size in transcript.sizes.items():
            stored = running.store.cosigned(origin_hash(origin))
            assert stored is not None
            assert stored.head.size == size
            # What is served to monitors is a note of the log's verified lines and ours.
            parse_note(stored.note + stored.cosignatures)


@pytest.mark.parametrize("transcript", own_transcripts(), ids=lambda t: t.name)
async def test_own(transcript: Transcript, tmp_path: Path) -> None:
    await through_the_core(transcript, tmp_path)


async def test_shared(testdata: Path, tmp_path: Path) -> None:
    for number, transcript in enumerate(shared_transcripts(testdata)):
        await through_the_core(transcript, tmp_path / str(number))
