"""`python -m tests.lockdown.without … -m witness.core`: the core on a kernel that has none of what it wants.

A filter of our own answers the calls in question as such a kernel, or a container's own filter, would.
"""

from __future__ import annotations

import errno
import resource
import sys

from tests.lockdown.as_user import main as as_user
from witness.core.lockdown import seccomp
from witness.core.lockdown.kernel import set_no_new_privileges
from witness.core.lockdown.seccomp import Call, When

MDWE, SECCOMP = 65, 22


def main() -> int:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    set_no_new_privileges()
    with seccomp._Filter(0x7FFF0000) as filter_:
        for name in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"):
            filter_.add(0x00050000 | errno.ENOSYS, Call(name))
        filter_.add(0x00050000 | errno.EPERM, Call("unshare"))
        filter_.add(0x00050000 | errno.EPERM, Call("mlockall"))
        filter_.add(0x00050000 | errno.EINVAL, Call("prctl", (When(0, MDWE),)))
        filter_.load()
    seccomp.LIBRARY = "libseccomp.so.none"  # type: ignore[misc]
    return as_user()


if __name__ == "__main__":
    sys.exit(main())
