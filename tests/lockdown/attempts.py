"""What a process that was taken over would try. Each try says "worked", or the name of the error it met."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

WORKED = "worked"


def attempt(what: Callable[[], object]) -> str:
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return WORKED


def call(number: int, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def ptrace(pid: int) -> None:
    """Attaches, which stops the other, and lets it go again."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    attach, detach = 16, 17
    if libc.ptrace(attach, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    os.waitpid(pid, 0x40000000)  # __WALL
    libc.ptrace(detach, pid, None, None)


def _mapped(pid: int) -> int:
    """An address that is mapped in our process and, forked from the same program, likely in the other."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if " r" in line and "[heap]" in line:
            return int(line.split("-")[0], 16)
    raise AssertionError("no heap")


def read_memory(pid: int) -> None:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(_mapped(pid))
        assert memory.read(16)


def read_remotely(pid: int) -> None:
    """process_vm_readv(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    into = ctypes.create_string_buffer(16)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(into), 16)
    try:
        address = _mapped(pid)
    except OSError:
        address = 0x1000  # the permission is asked before the address
    remote = (ctypes.c_size_t * 2)(address, 16)
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    if libc.process_vm_readv(pid, local, 1, remote, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def look_into(pid: int) -> dict[str, str]:
    """All ways into another process."""
    return {
        "mem": attempt(lambda: read_memory(pid)),
        "process_vm_readv": attempt(lambda: read_remotely(pid)),
        "ptrace": attempt(lambda: ptrace(pid)),
        "environ": attempt(lambda: Path(f"/proc/{pid}/environ").read_bytes()),
        "maps": attempt(lambda: Path(f"/proc/{pid}/maps").read_bytes()),
        "fd": attempt(lambda: list(Path(f"/proc/{pid}/fd").iterdir())),
        "root": attempt(lambda: list(Path(f"/proc/{pid}/root/").iterdir())),
        "signal": attempt(lambda: os.kill(pid, signal.SIGCONT)),
    }


def execute() -> None:
    """Runs a program in a child; whatever of it is refused counts."""
    child = os.fork()
    if child == 0:
        try:
            os.execv("/bin/true", ["true"])
        except OSError as error:
            os._exit(error.errno or 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, "refused")


def replace() -> None:
    """execve without a fork, on something that is no program: only the error differs, so nothing is lost."""
    os.execv("/dev/null", ["null"])


def connect(family: int, address: object) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(address)


def run_thread() -> None:
    ran = threading.Event()
    thread = threading.Thread(target=ran.set)
    thread.start()
    thread.join()
    assert ran.is_set()


def new_code() -> None:
    """Memory that is writable and executable; the object frees it."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def set_limit() -> None:
    """Sets a limit, to what it is: where that is refused, so is any other value."""
    limits = (ctypes.c_uint64 * 2)(*resource.getrlimit(resource.RLIMIT_NOFILE))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prlimit(0, resource.RLIMIT_NOFILE, limits, None) != 0:
        raise OSError(ctypes.get_errno(), "refused")


def dump() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(4, 1, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
        raise OSError(ctypes.get_errno(), "refused")


def from_inside(state: Path, tcp: int, unix: str, parent: int) -> dict[str, str]:
    """All that the core tries once it is locked down."""
    return {
        "open /etc/passwd": attempt(lambda: Path("/etc/passwd").read_bytes()),
        "list /": attempt(lambda: list(Path("/").iterdir())),
        "list /proc": attempt(lambda: list(Path("/proc").iterdir())),
        "write beside": attempt(lambda: (state.parent / "escaped").write_bytes(b"x")),
        "write witness.yaml": attempt(lambda: (state / "witness.yaml").write_bytes(b"x")),
        "write key file": attempt(lambda: (state / "keys" / "softkey.json").open("r+b").close()),
        "new file": attempt(lambda: (state / "new").write_bytes(b"x")),
        "rename": attempt(lambda: (state / "witness.yaml").rename(state / "other.yaml")),
        "link": attempt(lambda: (state / "link").symlink_to("/etc/passwd")),
        "connect tcp": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", tcp))),
        "connect unix": attempt(lambda: connect(socket.AF_UNIX, unix)),
        "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0)).close()),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()),
        "execute": attempt(execute),
        "replace": attempt(replace),
        "ptrace": attempt(lambda: ptrace(parent)),
        "read parent": attempt(lambda: read_memory(parent)),
        "signal parent": attempt(lambda: os.kill(parent, signal.SIGCONT)),
        "become root": attempt(lambda: os.setresuid(0, 0, 0)),
        "new code": attempt(new_code),
        "set a limit": attempt(set_limit),
        "be dumpable": attempt(dump),
        "io_uring": attempt(lambda: call(425, ctypes.c_uint(4), ctypes.create_string_buffer(120))),
        "user namespace": attempt(lambda: call(272, ctypes.c_int(0x10000000))),  # x86-64's unshare
        "bpf": attempt(lambda: call(321, 0, struct.pack("16x"), 16)),
        "thread": attempt(run_thread),
        "open database": attempt(lambda: (state / "witness.db").open("r+b").close()),
    }
