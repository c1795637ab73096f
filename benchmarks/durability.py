"""Proof from a trace: every 200 was sent after an fdatasync that covers its update.

The running server's system calls are recorded with strace. For each answer `HTTP/1.1 200` the request
before it on the same socket names the root hash it is about. The answer is covered when that root was
written to some file (raw or in base64), an fsync or fdatasync of that same file *began* after the write
had returned, and that sync had *returned*, with success, before the answer's send began. All times are
strace's, of one clock; ptrace stops a thread at both ends of a call, so the order is the true one.

The load must use distinct roots (`Load(..., distinct=True)`), or one log's write would pass for another's.
"""

from __future__ import annotations

import base64
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

READS = frozenset({"read", "recvfrom", "recvmsg", "readv"})
SENDS = frozenset({"write", "writev", "sendto", "sendmsg"})
WRITES = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2"})
SYNCS = frozenset({"fsync", "fdatasync"})
TRACED = ",".join(sorted(READS | SENDS | WRITES | SYNCS))
STRING_LIMIT = 9000

LINE = re.compile(r"^(?P<tid>\d+) +(?P<at>\d+\.\d+) (?P<rest>.*)$")
CALL = re.compile(r"^(?P<name>\w+)\((?P<fd>\d+)(?P<rest>.*)$")
RESUMED = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
RETURNED = re.compile(r"\) += (?P<value>-?\d+)[^<]*(?:<(?P<took>[\d.]+)>)?$")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One finished system call: when it began and ended (seconds), on which descriptor, with which bytes."""

    name: str
    process: int
    fd: int
    began: float
    ended: float
    result: int
    data: bytes


def calls(lines: Iterable[str], process_of: dict[int, int]) -> Iterator[Call]:
    """The calls of a `strace -f -ttt -T -xx` record, in the order in which they ended.

    `process_of` maps thread IDs to process IDs (descriptors belong to processes).
    """
    open_calls: dict[int, tuple[str, int, float, str]] = {}
    for line in lines:
        found = LINE.match(line)
        if found is None:
            continue
        tid, at, rest = int(found["tid"]), float(found["at"]), found["rest"]
        resumed = RESUMED.match(rest)
        if resumed is not None:
            if tid not in open_calls:
                continue
            name, fd, began, arguments = open_calls.pop(tid)
            arguments += resumed["rest"]
            ended: float | None = at
        else:
            call = CALL.match(rest)
            if call is None:
                continue
            name, fd, began, arguments = call["name"], int(call["fd"]), at, call["rest"]
            if arguments.endswith("<unfinished ...>"):
                open_calls[tid] = (name, fd, began, arguments.removesuffix("<unfinished ...>"))
                continue
            ended = None
        returned = RETURNED.search(arguments)
        if returned is None:
            continue
        if ended is None:
            ended = began + float(returned["took"] or 0)
        data = b"".join(bytes.fromhex(s.replace("\\x", "")) for s in STRING.findall(arguments))
        yield Call(name, process_of.get(tid, tid), fd, began, ended, int(returned["value"]), data)


@dataclass(frozen=True)
class Verdict:
    """How many 200s were covered. `unwritten`: no file write with their root was seen at all."""

    answers: int
    covered: int
    unwritten: int
    syncs: int

    @property
    def holds(self) -> bool:
        return self.answers > 0 and self.covered == self.answers


def _root_of(request: bytes) -> bytes | None:
    """The base64 root line of the last add-checkpoint request in `request`."""
    start = request.rfind(b"POST /add-checkpoint ")
    if start < 0:
        return None
    note = request[start:].partition(b"\r\n\r\n")[2].partition(b"\n\n")[2].split(b"\n")
    return note[2] if len(note) > 3 else None


def judge(record: Iterable[Call]) -> Verdict:
    """Finds each 200 and looks for the sync that covers it."""
    requests: dict[tuple[int, int], bytes] = {}
    writes: list[Call] = []
    syncs: dict[tuple[int, int], list[Call]] = {}
    answers: list[tuple[bytes, float]] = []
    for call in sorted(record, key=lambda call: call.began):
        where = (call.process, call.fd)
        if call.name in READS and call.result > 0:
            requests[where] = requests.get(where, b"") + call.data
        elif call.name in SYNCS and call.result == 0:
            syncs.setdefault(where, []).append(call)
        elif call.name in SENDS and call.data.startswith(b"HTTP/1.1 200"):
            root = _root_of(requests.pop(where, b""))
            if root is not None:
                answers.append((root, call.began))
        elif call.name in WRITES and call.result > 0:
            writes.append(call)
    # Only files that are ever synced can make anything durable; sockets fall out here.
    durable = [write for write in writes if (write.process, write.fd) in syncs]
    covered = unwritten = 0
    for root, sent in answers:
        raw = base64.b64decode(root)
        holding = [w for w in durable if w.ended <= sent and (raw in w.data or root in w.data)]
        unwritten += not holding
        covered += any(
            w.ended <= sync.began and sync.ended <= sent for w in holding for sync in syncs[(w.process, w.fd)]
        )
    return Verdict(len(answers), covered, unwritten, sum(map(len, syncs.values())))


class Tracer:
    """strace attached to running processes. `reason` says why it cannot be used here, if so."""

    def __init__(self, pids: Iterable[int], output: Path) -> None:
        self.reason = "" if shutil.which("strace") else "strace is not installed"
        self._pids = list(pids)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._process_of: dict[int, int] = {}

    def attach(self) -> bool:
        """True once all threads are being recorded; else `reason` is set."""
        if self.reason:
            return False
        argv = ["strace", "-f", "-ttt", "-T", "-xx", "-s", str(STRING_LIMIT), "-e", f"trace={TRACED}"]
        argv += ["-o", str(self._output), *(part for pid in self._pids for part in ("-p", str(pid)))]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            if all(self._is_traced(pid) for pid in self._pids):
                return True
            time.sleep(0.02)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self.reason = (
            self._process.communicate()[1].decode(errors="replace").strip()[-200:] or "no attachment"
        )
        return False

    @staticmethod
    def _is_traced(pid: int) -> bool:
        for task in Path(f"/proc/{pid}/task").iterdir():
            if "\nTracerPid:\t0\n" in (task / "status").read_text():
                return False
        return True

    def detach(self) -> Verdict:
        for pid in self._pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                self._process_of[int(task.name)] = pid
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.communicate(timeout=30)
        with self._output.open(errors="replace") as lines:
            return judge(calls(lines, self._process_of))
