"""While an alarm stands nothing is handed out for publication: it could take the place of what is newer."""

from __future__ import annotations

from pathlib import Path

from tests.core.state import core, make_state, trust
from tests.simulated_log import SimulatedLog
from witness.core.refusals import InternalError
from witness.core.server import CoreServer
from witness.core.wire import decode_changes


async def test_a_stopped_log_is_not_named_and_others_are(tmp_path: Path) -> None:
    logs = [SimulatedLog(f"changes.example/{n}", size=3) for n in range(3)]
    layout = make_state(tmp_path)
    trust(layout, *logs)
    async with core(layout) as running:
        for log in logs:
            await running.witness.add_checkpoint(log.add_checkpoint(0))
        book = running.witness.book
        assert book.changes(None).origins == tuple(log.origin for log in logs)
        stopped = book.get(logs[1].origin)
        assert stopped is not None
        stopped.stopped = InternalError()
        assert book.changes(None).origins == (logs[0].origin, logs[2].origin)
        stopped.stopped = None
        book.moved(stopped, stopped.head)  # what leads out of an alarm moves the head
        assert logs[1].origin in book.changes(None).origins


async def test_nothing_is_named_while_everything_is_stopped(tmp_path: Path) -> None:
    log = SimulatedLog("changes.example/halted", size=3)
    layout = make_state(tmp_path)
    trust(layout, log)
    async with core(layout) as running:
        await running.witness.add_checkpoint(log.add_checkpoint(0))
        server = CoreServer(running.witness, running.store, reporter=None)  # type: ignore[arg-type]
        assert decode_changes(await server._changes(b"")).origins == (log.origin,)
        running.witness.halted = InternalError()
        for _ in range(2):
            try:
                await server._changes(b"")
            except InternalError:
                continue
            raise AssertionError("changes were handed out under an alarm")
        running.witness.halted = None
        assert decode_changes(await server._changes(b"")).origins == (log.origin,)
