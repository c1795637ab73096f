"""A daemon whose whole folder is an hour old finds, at its distributor, what it has signed since."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from tests.cli.command import witness as command
from tests.cli.daemon import Daemon, eventually
from tests.core.processes import SocketClient, short_folder
from tests.simulated_log import SimulatedLog
from witness.core.layout import StateLayout
from witness.core.refusals import StateBehind
from witness.tlog.checkpoint import log_id
from witness.tlog.submission import format_add_checkpoint

NAME = "witness.example/look"


@contextmanager
def distributor() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The distributor's API, as much of it as keeps what is put and gives it back."""
    kept: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            before = kept.get(unquote(self.path), b"\n0")
            if int(body.split(b"\n")[1]) < int(before.split(b"\n")[1]):
                self._answer(400, b"")  # as the distributor does
                return
            kept[unquote(self.path)] = body
            self._answer(200, b"")

        def do_GET(self) -> None:
            body = kept.get(unquote(self.path))
            self._answer(200 if body is not None else 404, body or b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_folder_an_hour_old_with_only_a_distributor_to_know_better() -> None:
    log = SimulatedLog("look.example/log", size=4)
    with distributor() as (url, kept), short_folder() as folder:
        state = folder / "s"
        layout = StateLayout(state)
        assert command("init", "--name", NAME, "--algorithm", "ed25519", state=state).code == 0
        config = state / "witness.yaml"
        config.write_text(
            config.read_text() + f"distributors: [{{url: '{url}'}}]\ncontinuity: {{wait: 30}}\n"
            "feeders: {enabled: false}\nlockdown: {own_user: false}\n"
        )
        assert command("logs", "add", str(log.vkeys[0]), state=state).code == 0
        path = f"/distributor/v0/logs/{log_id(log.origin)}/byWitness/{NAME}/checkpoint"

        def answered(old: int) -> bool:
            with SocketClient(layout.core_socket) as client:
                return isinstance(client.add_checkpoint(log.add_checkpoint(old)), bytes)

        def cosign(old: int) -> None:
            eventually("it is cosigned", lambda: answered(old))
            eventually("it is published", lambda: f"\n{log.size}\n".encode() in kept.get(path, b""))

        daemon = Daemon(state).started()
        try:
            cosign(0)
            assert daemon.stop() == 0
            shutil.copytree(state, folder / "old")
            log.append(3)
            daemon = Daemon(state).started()
            cosign(4)
            assert daemon.stop() == 0
            shutil.rmtree(state)
            shutil.copytree(folder / "old", state)
            daemon = Daemon(state).started()

            def refused() -> bool:
                with SocketClient(layout.core_socket) as client:
                    answer = client.add_checkpoint(log.add_checkpoint(4))
                assert not isinstance(answer, bytes), "it signs what it cannot know to be right"
                return answer == StateBehind(log.origin, 4, 7, url)

            eventually("it finds out", refused)
            # Signing stops first; a moment later the alarm is durable.
            eventually("it is told", lambda: command("recover", state=state).code == 1)
            outcome = command("recover", state=state)
            assert (
                f"state-behind {log.origin!r}: size 4 here, size 7 was cosigned, seen in {url}" in outcome.out
            )
            log.append(2)
            files = []
            for size in (4, 7):
                file = folder / f"body-{size}"
                file.write_bytes(format_add_checkpoint(size, log.proof(size), log.checkpoint()))
                files += ["--file", file]
            assert command("recover", *files, state=state).code == 0
            eventually("it signs again", lambda: answered(9))
            assert command("audit", "verify", state=state).code == 0
        finally:
            daemon.end()
        shown = command("audit", "show", state=state).out
        assert all(kind in shown for kind in (" start ", " alarm ", " brought-forward "))
