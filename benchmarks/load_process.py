"""The load generator in a process of its own, so that it and the server are told apart."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

from benchmarks.load_result import Result
from benchmarks.loadgen import Load
from benchmarks.measure import Probe


def _serve(pipe: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """The child: makes a `Load` and calls its methods as the parent asks."""
    load = Load(*arguments, **options)
    pipe.send(None)
    while True:
        try:
            method, args, kwargs = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(load, method)(*args, **kwargs))


class LoadProcess:
    """A `Load` in a process of its own; same methods, same results."""

    def __init__(self, address: tuple[str, int], logs: int, connections: int, **options: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        arguments: Sequence[Any] = (address, logs, connections)
        self._process = spawn.Process(target=_serve, args=(theirs, arguments, options), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError("the load generator ended; its traceback is above") from None

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self._pipe.send((method, args, kwargs))
        return self._answer()

    def prime(self, logs: int | None = None) -> Result:
        return self._ask("prime", logs)

    def closed(
        self, seconds: float, budget: int, probe: Probe | None = None, logs: int | None = None
    ) -> Result:
        return self._ask("closed", seconds, budget, probe, logs)

    def scheduled(
        self, rate: float, seconds: float, probe: Probe | None = None, logs: int | None = None
    ) -> Result:
        return self._ask("scheduled", rate, seconds, probe, logs)

    def connect(self, connections: int) -> None:
        self._ask("connect", connections)

    def take_samples(self) -> list[tuple[bytes, bytes]]:
        return self._ask("take_samples")

    def stop(self) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
