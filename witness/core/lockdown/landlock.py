"""Landlock: a process restricts itself to parts of the file system (landlock(7); Linux 5.13).

What is already open stays usable. What a rule does not allow beneath some path is refused with EACCES. The
restriction holds for the calling thread and those that it starts, for ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Final

from witness.core.lockdown.kernel import NotHere, syscall

_CREATE_RULESET: Final = 444  # the same numbers on every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1


class Access(IntFlag):
    """What may be done with files; the number of each bit is the kernel's."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = Access.READ_FILE | Access.READ_DIR
_ON_FILES: Final = (
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
)  # fmt: skip
_SINCE: Final = ((1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (5, 0xFFFF))
"""From which ABI on the kernel knows how many of the rights."""
_NET_SINCE: Final = 4
_NET_ALL: Final = 0b11  # bind and connect by TCP
_SCOPE_SINCE: Final = 6
_SCOPE_ALL: Final = 0b11  # abstract Unix sockets and signals


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed beneath a path, or with a file. A path that is not there gives no right."""

    path: Path
    access: Access


def abi() -> int:
    """The version of Landlock in this kernel, 1 or more.

    Raises:
        NotHere: it has none, or it was switched off at boot.
    """
    try:
        return syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    except NotHere as error:
        raise NotHere("this kernel has no Landlock (Linux 5.13)") from error
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotHere("Landlock was switched off when this kernel booted") from error
        raise


def restrict(rules: Iterable[Rule], *, network: bool) -> str:
    """Restricts this thread, and those it starts, to the rules.

    Args:
        rules: all that remains allowed.
        network: whether TCP remains allowed.

    Returns:
        What is in force, in words.

    Raises:
        NotHere, OSError: nothing was restricted.
    """
    version = abi()
    files = Access(max(bits for since, bits in _SINCE if since <= version))
    words = [f"ABI {version}"]
    attributes = struct.pack("=Q", files)
    if version >= _NET_SINCE:
        attributes += struct.pack("=Q", 0 if network else _NET_ALL)
        words += [] if network else ["no TCP"]
    if version >= _SCOPE_SINCE:
        attributes += struct.pack("=Q", _SCOPE_ALL)
        words += ["no signals to others"]
    ruleset = syscall(
        _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )  # fmt: skip
    try:
        for rule in rules:
            _add(ruleset, rule, files)
        syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return ", ".join(words)


def _add(ruleset: int, rule: Rule, known: Access) -> None:
    try:
        descriptor = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what cannot even be named cannot be allowed
    try:
        allowed = rule.access & known
        if not rule.path.is_dir():
            allowed &= _ON_FILES
        if allowed:
            attributes = struct.pack("=Qi", allowed, descriptor)
            syscall(
                _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), attributes,
                ctypes.c_uint32(0),
            )  # fmt: skip
    finally:
        os.close(descriptor)
