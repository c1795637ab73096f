"""A user of one's own: who that is, what must belong to it, and becoming it. Only root can."""

from __future__ import annotations

import hashlib
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

OWN_IDS: Final = range(0x7800_0000, 0x7A00_0000)
"""User and group IDs that nobody gives to anybody: above those of containers (systemd, to 1879048191) and of
domains' users (sssd, to 2000200000), below those of foreign images (systemd, from 2147352576). Each witness
has two of them by its identity, so that two witnesses on one machine have nothing in common. `nobody` would
not do: other programs run as nobody."""
SPARE_IDS: Final = range(65520, 65534)
"""The same where there are no such numbers, in small containers: Debian Policy 9.2.2 reserves 65000 to 65533,
of which systemd's dynamic users take those up to 65519. There is room for seven witnesses; two of them may
meet, and the second is told to name its users."""
OVERFLOW_ID: Final = 65534
"""How the kernel shows a user that has no number in our user namespace."""


class UnknownAccount(Exception):
    """No user has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no user {name!r}")
        self.hint = f"make one: useradd --system --no-create-home --shell /usr/sbin/nologin {name}"


def core_account(named: str | None, layout: StateLayout, identity: str) -> Account:
    """Whom the core becomes: who was named, else whoever the database belongs to, else `witness`.

    Where there is no such user it is a number that nobody has, by the witness's identity.

    Raises:
        UnknownAccount: the one named does not exist.
    """
    if named is not None:
        return account(named)
    owner = layout.database.stat()
    if owner.st_uid != 0:
        return _of_uid(owner.st_uid, owner.st_gid)
    return _known("witness") or _spare(identity)[0]


def front_account(named: str | None, core: Account, identity: str) -> Account:
    """Whom the front becomes: who was named, else `witness-front`, else a number that nobody has.

    Raises:
        UnknownAccount: the one named does not exist.
    """
    if named is not None:
        return account(named)
    return _known("witness-front") or next(each for each in _spare(identity)[::-1] if each.uid != core.uid)


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


def _spare(identity: str) -> tuple[Account, Account]:
    """The two numbers of a witness: of those that exist here and nobody has, the same at every start."""
    chance = int.from_bytes(hashlib.sha256(f"users of {identity}".encode()).digest()[:8])
    for ids in (OWN_IDS, SPARE_IDS):
        pairs = len(ids) // 2
        for turn in range(min(pairs, len(SPARE_IDS) // 2)):
            first = ids[2 * ((chance + turn) % pairs)]
            if _mapped(first + 1) and not any(_known_id(uid) for uid in (first, first + 1)):
                core, front = (Account(f"user {uid}", uid, uid) for uid in (first, first + 1))
                return core, front
    raise UnknownAccount("witness")


def _known_id(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _mapped(uid: int) -> bool:
    """Whether a number exists here: a container's user namespace has as many as it was given."""
    for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= uid < first + count:
            return True
    return False


def others_of(account: Account, what: bytes) -> tuple[int, ...]:
    """Processes of a user whose command line has this in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid in {0, account.uid} and what in (process / "cmdline").read_bytes():
                status = (process / "status").read_text(encoding="utf-8", errors="replace")
                if f"\nUid:\t{account.uid}\t" in status:
                    found.append(int(process.name))
        except OSError:
            continue
    return tuple(found)


def written(layout: StateLayout) -> tuple[Path, ...]:
    """The files that a running core writes."""
    return (*database_files(layout), layout.core_lock)


def database_files(layout: StateLayout) -> tuple[Path, ...]:
    """The database and what SQLite keeps beside it."""
    database = layout.database
    return tuple(database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm"))


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


def become(who: Account, groups: Sequence[int] = ()) -> None:
    """Makes this process the user's, for good, in these groups. The capabilities of root are gone with it.

    Raises:
        OSError: not allowed here.
    """
    kernel.bound_capabilities()
    os.setgroups(groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
