"""`python -m tests.lockdown.as_user UID … -m MODULE`: the module, as another user. Root calls it.

Everything is imported before the user changes: here and there only root may read Python's own library.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable


def main() -> int:
    uid, module = int(sys.argv[1]), sys.argv[sys.argv.index("-m") + 1]
    name = f"{module}.__main__" if module == "witness.core" else module
    entry: Callable[[], int] = importlib.import_module(name).main
    "".encode("idna")
    sys.argv = sys.argv[sys.argv.index("-m") + 1 :]
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as after the execve that others start with
    return entry()


if __name__ == "__main__":
    sys.exit(main())
