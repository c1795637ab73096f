"""`python -m tests.lockdown.asker SOCKET`: asks the core for its status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.core.processes import SocketClient
from witness.core.wire import Verb


def main() -> int:
    with SocketClient(Path(sys.argv[1])) as client:
        sys.stdout.write(json.dumps({"answered": isinstance(client.ask(Verb.STATUS), bytes)}))
    return 0
