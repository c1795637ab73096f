"""Cosignatures on record, as the operator wants them, until they are too old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from witness.core.continuity.records import Records
from witness.core.continuity.settings import ContinuitySettings
from witness.core.store import cosignatures
from witness.core.witness import Witness

_DAY: Final = 86400
_MOST: Final = 200
"""Transactions of one round of pruning; what is left is for the next."""


class Recording:
    """Records heads, where heads are wanted, and prunes. All cosignatures are recorded by their commits."""

    def __init__(
        self, records: Records, witness: Witness, settings: ContinuitySettings, now: Callable[[], float]
    ) -> None:
        self._records = records
        self._witness = witness
        self._heads = settings.record_cosignatures == "heads"
        self._days = settings.record_days
        self._now = now
        self._recorded = witness.book.sequence

    async def heads(self) -> None:
        """Records the heads that moved since the last time, as they are now."""
        if not self._heads:
            return
        book = self._witness.book
        origins, sequence = book.moved_since(self._recorded), book.sequence
        if origins:
            numbers = [state.log_id for origin in origins if (state := book.get(origin)) is not None]
            await self._records.do(cosignatures.record_heads, self._records.desk, numbers)
            self._recorded = sequence

    async def prune(self) -> None:
        """Deletes what is too old, some at a time. Also where nothing is recorded any more."""
        before = int(self._now()) - self._days * _DAY
        for _ in range(_MOST):
            if not await self._records.do(cosignatures.prune, self._records.desk, before):
                break
