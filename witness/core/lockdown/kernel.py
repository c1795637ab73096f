"""The kernel's calls that Python does not have, by ctypes. Linux only; elsewhere they raise `NotHere`.

Every function acts on the calling thread, and on the threads that it starts later, unless it says otherwise.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

_MCL_CURRENT: Final = 1
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_PR_SET_MDWE: Final = 65
_MDWE_REFUSE_EXEC_GAIN: Final = 1
_CAPABILITY_VERSION_3: Final = 0x20080522
CAP_DAC_OVERRIDE: Final = 1
CAP_KILL: Final = 5
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7


class NotHere(Exception):
    """This kernel or this process cannot do it; `reason` is one plain line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def libc() -> ctypes.CDLL:
    """The C library.

    Raises:
        NotHere: this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise NotHere("not on this operating system")
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """A system call by number; returns what it returns.

    Raises:
        OSError: it failed.
        NotHere: this kernel does not have it.
    """
    function = libc().syscall
    function.restype = ctypes.c_long
    result = int(function(ctypes.c_long(number), *arguments))
    if result < 0:
        raise _failed("syscall")
    return result


def unshare(flags: int) -> None:
    """Leaves namespaces that other processes share (unshare(2)).

    Raises:
        OSError, NotHere: it cannot.
    """
    if libc().unshare(ctypes.c_int(flags)) != 0:
        raise _failed("unshare")


def lock_memory() -> None:
    """Keeps the pages that the process has now out of swap (mlockall(2), MCL_CURRENT).

    MCL_FUTURE is left out: once the limit is reached, it fails allocations at random. The main thread's stack
    is released again for the same reason: a locked stack that must grow beyond the limit ends the process.

    Raises:
        OSError, NotHere: it cannot.
    """
    library = libc()
    if library.mlockall(ctypes.c_int(_MCL_CURRENT)) != 0:
        raise _failed("mlockall")
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        if line.endswith(b"[stack]"):
            start, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split(b"-"))
            library.munlock(ctypes.c_void_p(start), ctypes.c_size_t(end - start))


def set_undumpable() -> None:
    """No core dumps; no ptrace, /proc/PID/mem or process_vm_readv by others of the same user. Whole process.

    It holds until the next execve, and until the process changes its user: call it after that.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def is_dumpable() -> bool:
    """Whether this process can be attached to by others of its user."""
    return _prctl(_PR_GET_DUMPABLE) != 0


def set_no_new_privileges() -> None:
    """No execve gives this process a further privilege (set-user-ID files, file capabilities)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def refuse_new_code() -> None:
    """No memory becomes executable that was writable (PR_SET_MDWE, Linux 6.3). Whole process.

    Raises:
        NotHere: this kernel does not have it.
    """
    try:
        _prctl(_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NotHere("this kernel has no PR_SET_MDWE (Linux 6.3)") from error
        raise


def bound_capabilities(*, keep: Collection[int] = ()) -> None:
    """Empties the bounding set, out of which even a set-user-ID program gets nothing more; root's to do."""
    for capability in range(64):
        if capability in keep:
            continue
        try:
            present = _prctl(_PR_CAPBSET_READ, capability)
        except OSError:
            return  # past the last one that this kernel knows
        if present:
            try:
                _prctl(_PR_CAPBSET_DROP, capability)
            except PermissionError:  # without CAP_SETPCAP; no_new_privs holds in its place
                return


def drop_capabilities(*keep: int, inherited: bool = False) -> None:
    """Gives up all capabilities but for those to `keep`.

    Args:
        keep: numbers of capabilities.
        inherited: whether programs that root starts from here have these too.

    Raises:
        OSError: the kernel refuses.
    """
    bound_capabilities(keep=keep if inherited else ())
    try:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 4.3 there were none
            raise
    kept = sum(1 << capability for capability in set(keep)) & _permitted()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # effective, permitted, inheritable; first for capabilities 0 to 31, then for the others
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc().capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise _failed("capset")


def _permitted() -> int:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc().capget(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise _failed("capget")
    return int(data[1]) | int(data[4]) << 32


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - the count alone


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    result = int(libc().prctl(ctypes.c_int(option), *padded))
    if result < 0:
        raise _failed("prctl")
    return result


def _failed(call: str) -> OSError | NotHere:
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        return NotHere(f"this kernel has no {call}" if call != "syscall" else "this kernel does not have it")
    return OSError(number, f"{call}: {os.strerror(number)}")
