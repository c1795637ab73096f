"""Leaving the network: a namespace with no interface but a loopback that is down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from witness.core.lockdown.kernel import CLONE_NEWNET, CLONE_NEWUSER, NotHere, threads, unshare

_OWN: Final = Path("/proc/self")


def enter_user_namespace() -> None:
    """Enters a user namespace in which our own user and group keep their numbers, and nobody else has one.

    Inside, a process of any user may make a network namespace. Whoever is not of our user is shown as the
    overflow user (65534) from then on. It is tried in a child of ours first: a process that is left without
    its mapping would not find its own files.

    Raises:
        NotHere, OSError: not allowed here; nothing has changed.
    """
    if threads() != 1:  # unshare(2): CLONE_NEWUSER, EINVAL
        raise NotHere("a process of several threads cannot enter a user namespace")
    child = os.fork()
    if child == 0:
        os._exit(_try_enter())
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        reason = os.strerror(code) if code > 0 else f"signal {-code}"
        raise NotHere(f"user namespaces are not allowed here ({reason})")
    _enter()


def leave_network() -> None:
    """Leaves the network that others share.

    Raises:
        NotHere, OSError: not allowed here.
    """
    unshare(CLONE_NEWNET)


def _try_enter() -> int:
    try:
        _enter()
        unshare(CLONE_NEWNET)
    except NotHere:
        return 1
    except OSError as error:
        return error.errno or 1
    return 0


def _enter() -> None:
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    # user_namespaces(7): an unprivileged process may map its group only once setgroups is denied.
    (_OWN / "setgroups").write_bytes(b"deny")
    (_OWN / "uid_map").write_bytes(b"%d %d 1" % (uid, uid))
    (_OWN / "gid_map").write_bytes(b"%d %d 1" % (gid, gid))
