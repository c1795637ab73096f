"""`python -m tests.lockdown.peer PID`: another process, which tries to look into the core."""

from __future__ import annotations

import json
import sys

from tests.lockdown.attempts import look_into


def main() -> int:
    sys.stdout.write(json.dumps(look_into(int(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
