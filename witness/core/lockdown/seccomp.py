"""seccomp: which system calls remain, through libseccomp where it is installed (it is not required).

A refused call fails with EPERM, so that whatever tried it says so; nothing is killed but a process that uses
another architecture's calls, which only an attack does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from witness.core.lockdown.kernel import NotHere, set_no_new_privileges

LIBRARY: Final = "libseccomp.so.2"

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_ATTRIBUTE_BAD_ARCH: Final = 2
_ATTRIBUTE_NO_NEW_PRIVS: Final = 3
_ATTRIBUTE_ALL_THREADS: Final = 4
_ATTRIBUTE_OPTIMIZE: Final = 8
_UNKNOWN: Final = -1


class Compare(IntEnum):
    """How an argument is compared."""

    EQUAL = 4
    MASKED = 7


@dataclass(frozen=True, slots=True)
class When:
    """A condition on one argument: it equals `value`, or its bits under `mask` do."""

    argument: int
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A system call, under conditions that must all hold."""

    name: str
    when: tuple[When, ...] = ()


class _Argument(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("compare", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def keep_from_io_uring(*, privileges: bool) -> None:
    """Refuses the event loop, before there is one, its io_uring, which goes around every filter.

    It also has the library loaded before Landlock closes its folder. `uses_io_uring` tells whether it worked.

    Args:
        privileges: leave no_new_privs alone; without it only CAP_SYS_ADMIN may make a filter.
    """
    with contextlib.suppress(NotHere, OSError):
        if not privileges:
            set_no_new_privileges()
        refuse([Call("io_uring_setup")])


def uses_io_uring() -> bool:
    """Whether this process holds a ring; asked while /proc can be read."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # one of them is the listing's own
            if descriptor.readlink().name == "anon_inode:[io_uring]":
                return True
    return False


def allow_only(allowed: Iterable[Call], *, absent: Iterable[str] = ()) -> str:
    """Refuses every system call that is not named. Holds for all threads of the process, for ever.

    Args:
        allowed: what remains. Names that this kernel's architecture does not have are passed over.
        absent: calls that fail with ENOSYS, so that the C library takes another way.

    Returns:
        What is in force, in words.

    Raises:
        NotHere, OSError: nothing was refused.
    """
    with _Filter(_ERRNO | errno.EPERM) as filter_:
        count = sum(filter_.add(_ALLOW, call) for call in allowed)
        for name in absent:
            filter_.add(_ERRNO | errno.ENOSYS, Call(name))
        filter_.load()
    return f"{count} system calls remain, all others are refused"


def refuse(refused: Iterable[Call], *, absent: Iterable[str] = ()) -> str:
    """Refuses the system calls named and leaves the others; otherwise as `allow_only`."""
    with _Filter(_ALLOW) as filter_:
        count = sum(filter_.add(_ERRNO | errno.EPERM, call) for call in refused)
        for name in absent:
            filter_.add(_ERRNO | errno.ENOSYS, Call(name))
        filter_.load()
    return f"{count} system calls are refused"


def library() -> ctypes.CDLL:
    """The library. Once loaded it stays: called before a process restricts itself to files without it.

    Raises:
        NotHere: it is not installed.
    """
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NotHere(f"{LIBRARY} is not installed") from error


class _Filter:
    """A filter under construction."""

    def __init__(self, default: int) -> None:
        self._library = library()
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))
        if not self._context:
            raise NotHere("libseccomp knows no way here")
        self._set(_ATTRIBUTE_BAD_ARCH, _KILL_PROCESS)
        self._set(_ATTRIBUTE_NO_NEW_PRIVS, 0)  # a step of its own
        self._set(_ATTRIBUTE_ALL_THREADS, 1)
        self._library.seccomp_attr_set(
            self._context, _ATTRIBUTE_OPTIMIZE, ctypes.c_uint32(2)
        )  # 2.5 and later

    def __enter__(self) -> _Filter:
        return self

    def __exit__(self, *_error: object) -> None:
        self._library.seccomp_release(self._context)

    def add(self, action: int, call: Call) -> bool:
        """Adds a rule; False where the architecture has no such call."""
        number = self._library.seccomp_syscall_resolve_name(call.name.encode())
        if number <= _UNKNOWN:
            return False
        conditions = (_Argument * len(call.when))(*(_argument(when) for when in call.when))
        self._check(
            self._library.seccomp_rule_add_array(
                self._context, ctypes.c_uint32(action), ctypes.c_int(number),
                ctypes.c_uint(len(call.when)), conditions,
            )
        )  # fmt: skip
        return True

    def load(self) -> None:
        """Puts the filter in force."""
        try:
            self._check(self._library.seccomp_load(self._context))
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise NotHere("this kernel has no seccomp filters") from error
            raise

    def _set(self, attribute: int, value: int) -> None:
        self._check(
            self._library.seccomp_attr_set(self._context, ctypes.c_int(attribute), ctypes.c_uint32(value))
        )

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OSError(-result, f"libseccomp: {errno.errorcode.get(-result, -result)}")


def _argument(when: When) -> _Argument:
    if when.mask is None:
        return _Argument(when.argument, Compare.EQUAL, when.value, 0)
    return _Argument(when.argument, Compare.MASKED, when.mask, when.value)
