"""The attested head: how far the record of events goes, said under the device's own key.

Whoever keeps such a note can tell later that the record was cut, brought back or written anew, even by
somebody who has the keys that its entries are MACed with (`witness audit verify --head`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from witness.core.keystore.attestation import AttestationKey
from witness.core.store.base import Identity
from witness.core.store.desk import Desk
from witness.tlog.record_head import RecordHead

ATTESTED_HEAD: Final = "attested-head"
"""The fact that has the latest attested head, for the time in which no core runs."""
HEAD_SECONDS: Final = 10.0
"""How often the head is attested, at most; it is when it has moved."""


class HeadKeeper:
    """Attests the head when it has moved. `attest` is for the guard's thread.

    Attributes:
        note: the latest attested head, a signed note; empty before the first.
    """

    def __init__(
        self, identity: Identity, key: Callable[[], AttestationKey | None], now: Callable[[], float]
    ) -> None:
        """`key` gives the attestation key, or None while there is none: a locked one may come later."""
        self.note = b""
        self._identity = identity
        self._key = key
        self._now = now
        self._attested = (0, "")
        self._last = -HEAD_SECONDS

    def due(self, head: tuple[int, str], *, at_once: bool = False) -> bool:
        """Whether the head has moved, and the time has come; `at_once` does not ask for the time."""
        if head == self._attested or head[0] == 0 or self._key() is None:
            return False
        return at_once or time.monotonic() - self._last >= HEAD_SECONDS

    def attest(self, desk: Desk, head: tuple[int, str]) -> None:
        """Attests the head, and keeps the note in the database.

        Args:
            desk: the database.
            head: number and hash of the last entry.

        Raises:
            sqlite3.Error: the note cannot be kept.
        """
        number, digest = head
        key, identity = self._key(), self._identity
        if key is None:
            return
        told = RecordHead(identity.name, identity.identity, number, digest, max(0, int(self._now())))
        note = key.attest_head(told)
        desk.set_fact(ATTESTED_HEAD, note.decode())
        self.note, self._attested, self._last = note, head, time.monotonic()
