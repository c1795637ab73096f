"""The trace analyser tells an answer that waited for its fdatasync from one that did not."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from benchmarks.durability import Tracer, calls, judge

ROOT = hashlib.sha256(b"a root").digest()
REQUEST = (
    b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 9\r\n\r\nold 0\n\norigin\n5\n"
    + base64.b64encode(ROOT)
    + b"\n\n\xe2\x80\x94 origin AAAA\n"
)


def quoted(data):
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'


def line(at, call, result, took, thread=11):
    return f"{thread} {at:.6f} {call} = {result} <{took:.6f}>"


READ = line(1.0, f"read(9, {quoted(REQUEST)}, 65536)", len(REQUEST), 0.00001)
WRITE = line(2.0, f"pwrite64(5, {quoted(b'page ' + ROOT)}, 4096, 0)", 4096, 0.1, thread=21)
SYNC = line(3.0, "fdatasync(5)", 0, 0.5, thread=21)
SEND = line(4.0, f"write(9, {quoted(b'HTTP/1.1 200 OK')}, 15)", 15, 0.00001)


def verdict(*lines):
    return judge(calls(lines, {11: 10, 21: 20}))


def test_a_sync_between_write_and_answer_covers_it():
    found = verdict(READ, WRITE, SYNC, SEND)
    assert (found.answers, found.covered, found.holds) == (1, 1, True)


@pytest.mark.parametrize(
    "lines",
    [
        (READ, WRITE, SEND),
        (READ, SYNC, SEND),
        (READ, WRITE, line(3.0, "fdatasync(6)", 0, 0.5, thread=21), SYNC.replace("3.0", "9.0"), SEND),
        (READ, WRITE, line(3.0, "fdatasync(5)", -1, 0.5, thread=21).replace("-1", "-1 EIO (Input)"), SEND),
        (READ, WRITE, line(2.05, "fdatasync(5)", 0, 0.5, thread=21), SEND),
        (READ, WRITE, line(3.0, "fdatasync(5)", 0, 1.5, thread=21), SEND),
        (READ, WRITE, line(3.0, "fdatasync(5)", 0, 0.5, thread=31), SEND),
        (READ, WRITE.replace(quoted(ROOT)[1:-1], quoted(bytes(32))[1:-1]), SYNC, SEND),
    ],
    ids=[
        "none",
        "no write",
        "another file",
        "failed",
        "began before the write returned",
        "returned after the answer",
        "another process",
        "another root",
    ],
)
def test_any_other_order_does_not(lines):
    found = verdict(*lines)
    assert (found.answers, found.covered, found.holds) == (1, 0, False)


def test_calls_cut_in_two_by_other_threads_are_put_together():
    found = verdict(
        "11 1.000000 read(9,  <unfinished ...>",
        "21 1.100000 epoll_wait(3, <unfinished ...>",
        f"11 1.200000 <... read resumed>{quoted(REQUEST)}, 65536) = {len(REQUEST)} <0.200000>",
        f"21 2.000000 pwrite64(5, {quoted(ROOT)}, 4096, 0 <unfinished ...>",
        "21 2.100000 <... pwrite64 resumed>) = 4096 <0.100000>",
        "21 3.000000 fdatasync(5 <unfinished ...>",
        "21 3.500000 <... fdatasync resumed>) = 0 <0.500000>",
        f"11 3.600000 sendmsg(9, {{msg_iov=[{{iov_base={quoted(b'HTTP/1.1 200 OK')}, }}]}}, 0) = 15 <0.1>",
    )
    assert (found.answers, found.covered) == (1, 1)


def test_a_run_without_answers_proves_nothing():
    assert not verdict(READ, WRITE, SYNC).holds


SERVER = """
import os, socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
root, honest = bytes.fromhex(sys.argv[3]), sys.argv[4] == "honest"
file = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
connection = listener.accept()[0]
while connection.recv(65536):
    os.pwrite(file, b"row " + root, 0)
    if honest:
        os.fdatasync(file)
    connection.send(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    if not honest:
        os.fdatasync(file)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
@pytest.mark.parametrize("kind", ["honest", "hasty"])
def test_strace_of_a_real_server(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = [
            sys.executable,
            "-c",
            SERVER,
            str(listener.fileno()),
            str(tmp_path / "file"),
            ROOT.hex(),
            kind,
        ]
        server = subprocess.Popen(argv, pass_fds=[listener.fileno()])
        address = listener.getsockname()
    try:
        with socket.create_connection(address, timeout=5) as connection:
            tracer = Tracer([server.pid], tmp_path / "trace")
            if not tracer.attach():
                pytest.skip(tracer.reason)
            for _ in range(3):
                connection.sendall(REQUEST)
                assert connection.recv(100)
            threading.Event().wait(0.1)  # the last fdatasync of the hasty one
            found = tracer.detach()
    finally:
        server.kill()
        server.wait()
    assert found.answers == 3
    # The hasty server's second and third answer follow the sync of the one before, which wrote the same root.
    assert found.covered == (3 if kind == "honest" else 2)
