"""Loopback servers for the real daemon's tests: a log's folder, and a distributor."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit


class LogFolder:
    """A log's files, some of them replaced meanwhile; `asked` are the paths requested."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.replaced: dict[str, bytes] = {}
        self.asked: list[str] = []

    def read(self, path: str) -> bytes | None:
        self.asked.append(path)
        if path in self.replaced:
            return self.replaced[path]
        file = self._folder / path
        return file.read_bytes() if file.is_file() else None


class Distributor:
    """What was PUT, by path; answers as the real one does."""

    def __init__(self) -> None:
        self.notes: dict[str, list[bytes]] = {}
        self._changed = threading.Condition()

    def put(self, path: str, body: bytes) -> None:
        with self._changed:
            self.notes.setdefault(path, []).append(body)
            self._changed.notify_all()


@contextmanager
def serve(site: LogFolder | Distributor) -> Iterator[str]:
    """Serves a log or a distributor on loopback; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            assert isinstance(site, LogFolder)
            body = site.read(unquote(urlsplit(self.path).path).lstrip("/"))
            self._answer(404 if body is None else 200, body or b"")

        def do_PUT(self) -> None:
            assert isinstance(site, Distributor)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            site.put(self.path, body)
            self._answer(200, b"")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
