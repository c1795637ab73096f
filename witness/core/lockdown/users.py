"""A user of one's own: who that is, what must belong to it, and becoming it. Only root can."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from witness.core.layout import StateLayout
from witness.core.lockdown import kernel
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.steps import Account

SPARE_IDS: Final = range(65520, 65534)
"""User and group IDs that no distribution and no systemd gives to anybody (Debian Policy 9.2.2 reserves 65000
to 65533, of which systemd's dynamic users take those up to 65519), and that exist in small containers too.
`nobody` would not do: other programs run as nobody."""
OVERFLOW_ID: Final = 65534
"""How the kernel shows a user that has no number in our user namespace."""


class UnknownAccount(Exception):
    """No user has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no user {name!r}")
        self.hint = f"make one: useradd --system --no-create-home --shell /usr/sbin/nologin {name}"


def core_account(named: str | None, layout: StateLayout) -> Account:
    """Whom the core becomes: who was named, else whoever the database belongs to, else `witness`.

    Where there is no such user it is a number of ours that nobody has.

    Raises:
        UnknownAccount: the one named does not exist.
    """
    if named is not None:
        return account(named)
    owner = layout.database.stat()
    if owner.st_uid != 0:
        return _of_uid(owner.st_uid, owner.st_gid)
    return _known("witness") or _spare(())


def front_account(named: str | None, core: Account) -> Account:
    """Whom the front becomes: who was named, else `witness-front`, else a number that nobody has.

    Raises:
        UnknownAccount: the one named does not exist.
    """
    if named is not None:
        return account(named)
    return _known("witness-front") or _spare((core.uid,))


def account(name: str) -> Account:
    """The user of a name, or of a number.

    Raises:
        UnknownAccount: there is none of this name.
    """
    if name.isascii() and name.isdigit():
        return _of_uid(int(name), int(name))
    found = _known(name)
    if found is None:
        raise UnknownAccount(name)
    return found


def _known(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _of_uid(uid: int, gid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(f"user {uid}", uid, gid)
    return Account(entry.pw_name, uid, entry.pw_gid)


def _spare(taken: Sequence[int]) -> Account:
    for uid in SPARE_IDS:
        if uid in taken:
            continue
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return Account(f"user {uid}", uid, uid)
    raise UnknownAccount("witness")


def written(layout: StateLayout) -> tuple[Path, ...]:
    """The files that a running core writes."""
    database = layout.database
    beside = (database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm"))
    return (*beside, layout.core_lock)


def hand_over(layout: StateLayout, core: Account, front: Account | None) -> None:
    """Gives the core's user what the core writes, and nothing else.

    The folder and the database become the core's. `witness.yaml` and the keys stay whose they are: the core
    has read them when it becomes its user. The front's group may pass through the folder to the sockets.

    Raises:
        OSError: not allowed here.
    """
    root = layout.root
    group = core.gid if front is None else front.gid
    for path in (*written(layout), root):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        mine = group if path == root else core.gid
        if stat.S_ISLNK(found.st_mode):
            raise NotHere(f"{path} is a symbolic link")
        if (found.st_uid, found.st_gid) != (core.uid, mine):
            os.chown(path, core.uid, mine, follow_symlinks=False)
    root.chmod(0o700 if front is None else 0o710)


def check_reach(who: Account, passing: Sequence[Path] = (), writing: Sequence[Path] = ()) -> None:
    """Makes sure that a user can be become, pass through folders, and write in others.

    It is tried in a child of ours, by becoming the user there, so that whatever decides about access here is
    asked itself.

    Raises:
        NotHere: it cannot; the reason says what.
        OSError: no child can be started.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_try_reach(writer, who, passing, writing))
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        reason = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    if reason:
        raise NotHere(reason)


def _try_reach(writer: int, who: Account, passing: Sequence[Path], writing: Sequence[Path]) -> int:
    """In the child: writes the reason why not, or nothing."""
    reason = ""
    try:
        become(who)
        for path in passing:
            if not os.access(path, os.X_OK):
                reason = f"{who.name} cannot get into {path}: a folder above it is closed to others"
        for path in writing:
            if not os.access(path, os.W_OK | os.X_OK):
                reason = f"{who.name} cannot write in {path}: give it that folder (chown {who.uid} {path})"
    except OSError as error:
        reason = f"cannot become {who.name}: {error.strerror}"
    os.write(writer, reason.encode())
    return 0


def become(who: Account) -> None:
    """Makes this process the user's, for good. The capabilities of root are gone with it.

    Raises:
        OSError: not allowed here.
    """
    kernel.bound_capabilities()
    os.setgroups([])
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
