"""The load generator: raw sockets under epoll, one request in flight a connection, bytes made before.

Two shapes of load, both with keep-alive connections:

- `closed`: every connection sends its next request as soon as the last one is answered (saturation).
- `scheduled`: requests are due at a fixed rate; one that finds no free connection waits, and its
  latency counts from the moment it was due, so a stalled server cannot hide its stall.

A `Load` runs in a process of its own (`load_process.py`), so that what it costs is known: every result
carries the generator's own CPU per request, and how late it sent when a connection was free.
"""

from __future__ import annotations

import contextlib
import gc
import re
import select
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.chains import Chains
from benchmarks.load_result import Result, percentiles
from benchmarks.measure import Probe, Sample

now = time.perf_counter_ns
RECEIVE = 65536
DRAIN_SECONDS = 10.0
LENGTH = re.compile(rb"\r\n(content-length: )(\d+)", re.IGNORECASE)


class BrokenAnswer(Exception):
    """The server's bytes are no HTTP/1.1 answer with a content length, or it closed half-way."""


@dataclass(slots=True)
class Job:
    log: int
    step: int
    request: bytes


class Connection:
    """One keep-alive connection and the request in flight on it."""

    __slots__ = ("address", "buffer", "fd", "job", "queue", "receive", "send", "since", "sock")

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.queue: deque[Job] = deque()
        self.job: Job | None = None
        self.since = 0
        self.open()

    def open(self) -> None:
        self.sock = socket.create_connection(self.address, timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.send = self.sock.send
        self.receive = self.sock.recv
        self.buffer = b""

    def start(self, job: Job, since: int) -> None:
        self.job = job
        self.since = since
        try:
            sent = self.send(job.request)
        except OSError:
            return  # the server closed: epoll reports it, and the answer counts as broken
        if sent != len(job.request):
            # One request of a few kB in flight never fills a loopback socket's buffer.
            raise BrokenAnswer(f"the socket took {sent} of {len(job.request)} bytes")


class Load:
    """The logs, how far each has come, and the connections; the methods are the load's shapes."""

    def __init__(
        self, address: tuple[str, int], logs: int, connections: int, *, distinct: bool = False
    ) -> None:
        self.chains = Chains(logs, distinct=distinct)
        self.next_step = array("i", bytes(4 * logs))  # per log, the step to submit next
        self._address = address
        self._head = (
            b"POST /add-checkpoint HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: text/plain\r\nContent-Length: "
            % (address[0].encode(), address[1])
        )
        self._epoll = select.epoll()
        self._by_fd: dict[int, Connection] = {}
        self._connections: list[Connection] = []
        self._length_header = b"\r\nContent-Length: "
        self._turn = 0
        self._reconnects = 0
        self.samples: list[tuple[bytes, bytes]] = []  # (checkpoint text, answer) of some 200s
        self.connect(connections)

    def connect(self, connections: int) -> None:
        """Closes what is open and opens `connections` anew."""
        self.close()
        self._connections = [Connection(self._address) for _ in range(connections)]
        for connection in self._connections:
            self._watch(connection)

    def close(self) -> None:
        for connection in self._connections:
            self._epoll.unregister(connection.fd)
            connection.sock.close()
        self._connections = []
        self._by_fd = {}

    def _watch(self, connection: Connection) -> None:
        self._by_fd[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)

    def _reopen(self, connection: Connection) -> None:
        self._reconnects += 1
        with contextlib.suppress(KeyError, OSError):
            del self._by_fd[connection.fd]
            self._epoll.unregister(connection.fd)
        connection.sock.close()
        connection.open()
        self._watch(connection)

    def _refresh(self) -> None:
        """Opens anew what the server closed while it was idle: its right, and no failed request."""
        for fd, _event in self._epoll.poll(0):
            self._receive(self._by_fd[fd])
        self._reconnects = 0

    def _request(self, body: bytes) -> bytes:
        return self._head + b"%d\r\n\r\n" % len(body) + body

    def _job(self, log: int, step: int) -> Job:
        return Job(log, step, self._request(self.chains.body(log, step)))

    # -- answers ---------------------------------------------------------------------------------

    def _whole(self, data: bytes) -> int:
        """The status of the answer that `data` is, or 0 while bytes are missing."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        mark = data.find(self._length_header, 0, end + 2)
        if mark < 0:
            found = LENGTH.search(data, 0, end + 2)
            if found is None:
                raise BrokenAnswer(f"no content length in {data[:end]!r}")
            self._length_header = b"\r\n" + found[1]
            mark = found.start()
        start = mark + len(self._length_header)
        length = int(data[start : data.find(b"\r", start)])
        if len(data) < end + 4 + length:
            return 0
        return int(data[9:12])

    def _settle(self, job: Job, status: int, data: bytes) -> None:
        """Moves the log to where the witness says that it is."""
        if status == 200:
            self.next_step[job.log] = job.step + 1
            if len(self.samples) < 64 and (job.step * 31 + job.log) % 97 == 0:
                text = self.chains.checkpoint_text(job.log, job.step)
                self.samples.append((text, data[data.index(b"\r\n\r\n") + 4 :]))
        elif status == 409:
            known = data[data.index(b"\r\n\r\n") + 4 :].strip()
            if known.isdigit():
                self.next_step[job.log] = self.chains.step_of_size(int(known)) + 1

    def _fresh(self, job: Job) -> Job:
        """The job, or after a refusal of this log the one that its state asks for now."""
        step = self.next_step[job.log]
        return job if step == job.step else self._job(job.log, step)

    # -- shapes of load --------------------------------------------------------------------------

    def prime(self, logs: int | None = None) -> Result:
        """First contact of the first `logs` logs (all by default), untimed by intention."""
        todo = [log for log in range(logs or self.chains.logs) if self.next_step[log] == 0]
        result = self._empty()
        for start in range(0, len(todo), 20_000):  # memory: one slice of bodies at a time
            part = todo[start : start + 20_000]
            self._spread(self._job(log, 0) for log in part)
            result = self._run_closed(None, None)
        return result

    def _spread(self, jobs: Iterable[Job]) -> None:
        """Deals jobs out; a log always to the same connection, so that its steps stay in order."""
        for connection in self._connections:
            connection.queue.clear()
        count = len(self._connections)
        for job in jobs:
            self._connections[job.log % count].queue.append(job)

    def _upcoming(self, count: int, logs: int) -> Iterable[Job]:
        """The next `count` jobs, round robin over the first `logs` logs, from where the last call ended."""
        ahead: Counter[int] = Counter()
        logs = min(logs, self.chains.logs)
        for _ in range(count):
            log = self._turn % logs
            self._turn += 1
            yield self._job(log, self.next_step[log] + ahead[log])
            ahead[log] += 1

    def closed(
        self, seconds: float, budget: int, probe: Probe | None = None, logs: int | None = None
    ) -> Result:
        """Saturation for `seconds`, or until `budget` precomputed requests are used up (`ran_dry`)."""
        self._spread(self._upcoming(budget, logs or self.chains.logs))
        return self._run_closed(seconds, probe)

    def _run_closed(self, seconds: float | None, probe: Probe | None) -> Result:
        latencies: array[int] = array("q")
        statuses: Counter[int] = Counter()
        poll = self._epoll.poll
        by_fd = self._by_fd
        in_flight = 0
        self._refresh()
        ran_dry = False
        gc.collect()
        gc.freeze()
        before = probe.sample() if probe else Sample()
        cpu = time.process_time()
        begun = now()
        deadline = begun + int(seconds * 1e9) if seconds is not None else 1 << 62
        for connection in self._connections:
            if connection.queue:
                connection.start(connection.queue.popleft(), now())
                in_flight += 1
        while in_flight:
            events = poll(1.0, len(by_fd))
            if now() > deadline:
                break
            for fd, _event in events:
                connection = by_fd[fd]
                job = connection.job
                status, data = self._receive(connection)
                at = now()
                if not status or job is None:
                    continue
                latencies.append(at - connection.since)
                statuses[status] += 1
                self._settle(job, status, data)
                connection.buffer = b""
                connection.job = None
                if connection.queue:
                    connection.start(self._fresh(connection.queue.popleft()), now())
                else:
                    in_flight -= 1
                    # One connection without work would make the rest of a timed slice lighter load.
                    if seconds is not None:
                        ran_dry, deadline = True, 0
        ended = now()
        cpu = time.process_time() - cpu
        server = probe.sample() - before if probe else Sample()
        gc.unfreeze()
        self._drain()
        return Result(
            seconds=(ended - begun) / 1e9,
            statuses=dict(statuses),
            latency_ms=percentiles(latencies),
            generator_us=cpu * 1e6 / max(1, len(latencies)),
            reconnects=self._reconnects,
            ran_dry=ran_dry,
            server=server,
        )

    def _receive(self, connection: Connection) -> tuple[int, bytes]:
        """(status, all bytes) of a finished answer, (599, b"") of a broken one, (0, b"") otherwise."""
        try:
            data = connection.receive(RECEIVE)
        except BlockingIOError:
            return 0, b""
        except OSError:
            data = b""
        if not data:
            # Closed while idle (no job) is the server's right; closed in the middle is a failure.
            self._reopen(connection)
            return 599, b""
        if connection.buffer:
            data = connection.buffer + data
        status = self._whole(data)
        if not status:
            connection.buffer = data
        return status, data

    def _drain(self) -> None:
        """Takes the answers still on their way, so that every log's state is known again."""
        until = time.monotonic() + DRAIN_SECONDS
        while any(c.job for c in self._connections) and time.monotonic() < until:
            for fd, _event in self._epoll.poll(0.1):
                connection = self._by_fd[fd]
                job = connection.job
                status, data = self._receive(connection)
                if status:
                    if job is not None:
                        self._settle(job, status, data)
                    connection.job = None
                    connection.buffer = b""
        for connection in self._connections:
            if connection.job is not None:
                connection.job = None
                self._reopen(connection)

    def scheduled(
        self, rate: float, seconds: float, probe: Probe | None = None, logs: int | None = None
    ) -> Result:
        """`rate` requests a second for `seconds`, each at its own moment, round robin over the logs."""
        total = int(rate * seconds)
        jobs = list(self._upcoming(total, logs or self.chains.logs))
        interval = 1e9 / rate
        # A sleeping processor wakes some 0.2 ms late. At low rates the generator wakes early and spins.
        early = 0.0004 if rate <= 500 else 0.0
        latencies: array[int] = array("q")
        lags: array[int] = array("q")
        statuses: Counter[int] = Counter()
        idle = list(self._connections)
        sent = done = skipped = 0
        self._refresh()
        gc.collect()
        gc.freeze()
        before = probe.sample() if probe else Sample()
        cpu = time.process_time()
        begun = now()
        give_up = begun + int((seconds + DRAIN_SECONDS) * 1e9)
        while done + skipped < total:
            at = now()
            if at > give_up:
                break
            had_to_wait = not idle
            while idle and sent < total and begun + sent * interval <= at:
                job = jobs[sent]
                due = begun + int(sent * interval)
                sent += 1
                if self.next_step[job.log] != job.step:
                    skipped += 1  # an earlier refusal of this log: this body has become stale
                    continue
                if not had_to_wait:
                    lags.append(now() - due)
                idle.pop().start(job, due)
            wait = 0.5
            if idle and sent < total:
                wait = max(0.0, (begun + sent * interval - now()) / 1e9 - early)
            # select() waits to the microsecond where epoll's timeout rounds up to milliseconds.
            select.select([self._epoll], [], [], wait)
            for fd, _event in self._epoll.poll(0):
                connection = self._by_fd[fd]
                job_done = connection.job
                status, data = self._receive(connection)
                if not status or job_done is None:
                    continue
                latencies.append(now() - connection.since)
                statuses[status] += 1
                self._settle(job_done, status, data)
                connection.job = None
                connection.buffer = b""
                idle.append(connection)
                done += 1
        ended = now()
        cpu = time.process_time() - cpu
        server = probe.sample() - before if probe else Sample()
        gc.unfreeze()
        self._drain()
        if done + skipped < total:
            statuses[598] += total - done - skipped  # never answered
        return Result(
            seconds=(ended - begun) / 1e9,
            statuses=dict(statuses),
            latency_ms=percentiles(latencies),
            generator_us=cpu * 1e6 / max(1, len(latencies)),
            lag_ms=percentiles(lags),
            skipped=skipped,
            reconnects=self._reconnects,
            server=server,
        )

    def take_samples(self) -> list[tuple[bytes, bytes]]:
        """(checkpoint text, answer body) of some answers since the last call."""
        taken, self.samples = self.samples, []
        return taken

    def _empty(self) -> Result:
        return Result(1.0, {}, {}, 0.0)
