"""Whose the files are that root makes in a state folder of somebody else's."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def leave_to_folder(descriptor: int, path: Path) -> None:
    """Gives a file that root made to the owner of its folder, as SQLite does with its own files.

    Else a witness that root ran once could not be run by its owner again. A file with a second name is left
    alone: that one may be anywhere.

    Args:
        descriptor: the open file; it must have been opened without following a link.
        path: where it is.

    Raises:
        OSError: not allowed here.
    """
    if os.geteuid() != 0:
        return
    found, owner = os.fstat(descriptor), path.parent.stat().st_uid
    if found.st_uid == 0 != owner and stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        os.fchown(descriptor, owner, -1)
