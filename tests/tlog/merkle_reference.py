"""Merkle trees by the letter of RFC 6962, section 2.1, and the draft's section 4: slow and recursive.

Written from the texts, not from `witness.tlog.merkle`, of which it uses nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def largest_power_below(n: int) -> int:
    """K, the largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def bit_ceil(n: int) -> int:
    k = 1
    while k < n:
        k *= 2
    return k


def valid_subtree(start: int, end: int) -> bool:
    """0 <= start <= end, and start is a multiple of BIT_CEIL(end - start)."""
    return 0 <= start <= end and start % bit_ceil(end - start) == 0


class Reference:
    """The definitions over one list of leaf inputs; D[a:b] is written as the pair (a, b)."""

    def __init__(self, inputs: Sequence[bytes]) -> None:
        self.inputs = inputs
        self._known: dict[tuple[int, int], bytes] = {}

    def mth(self, a: int, b: int) -> bytes:
        """MTH(D[a:b])."""
        if (a, b) not in self._known:
            self._known[a, b] = self._mth(a, b)
        return self._known[a, b]

    def _mth(self, a: int, b: int) -> bytes:
        n = b - a
        if n == 0:
            return hashlib.sha256().digest()
        if n == 1:
            return hashlib.sha256(b"\x00" + self.inputs[a]).digest()
        k = largest_power_below(n)
        return hashlib.sha256(b"\x01" + self.mth(a, a + k) + self.mth(a + k, b)).digest()

    def path(self, m: int, a: int, b: int) -> list[bytes]:
        """PATH(m, D[a:b])."""
        n = b - a
        if n == 1:
            return []
        k = largest_power_below(n)
        if m < k:
            return [*self.path(m, a, a + k), self.mth(a + k, b)]
        return [*self.path(m - k, a + k, b), self.mth(a, a + k)]

    def proof(self, m: int, n: int) -> list[bytes]:
        """PROOF(m, D[0:n]), 0 < m <= n."""
        return self._subproof(m, 0, n, whole=True)

    def _subproof(self, m: int, a: int, b: int, *, whole: bool) -> list[bytes]:
        n = b - a
        if m == n:
            return [] if whole else [self.mth(a, b)]
        k = largest_power_below(n)
        if m <= k:
            return [*self._subproof(m, a, a + k, whole=whole), self.mth(a + k, b)]
        return [*self._subproof(m - k, a + k, b, whole=False), self.mth(a, a + k)]

    def subtree_proof(self, start: int, end: int, n: int) -> list[bytes]:
        """SUBTREE_PROOF(start, end, D[0:n])."""
        return [] if start == end else self._subtree_subproof(start, end, 0, n, whole=True)

    def _subtree_subproof(self, start: int, end: int, a: int, b: int, *, whole: bool) -> list[bytes]:
        n = b - a
        if (start, end) == (0, n):
            return [] if whole else [self.mth(a, b)]
        k = largest_power_below(n)
        if end <= k:
            return [*self._subtree_subproof(start, end, a, a + k, whole=whole), self.mth(a + k, b)]
        if k <= start:
            return [*self._subtree_subproof(start - k, end - k, a + k, b, whole=whole), self.mth(a, a + k)]
        return [*self._subtree_subproof(0, end - k, a + k, b, whole=False), self.mth(a, a + k)]


def shape(start: int, end: int, n: int, *, whole: bool = True) -> tuple[str, ...]:
    """What each hash of SUBTREE_PROOF(start, end, D_n) is for: where it stands, and in which trees.

    Sizes are not hashed into a root. So a proof also verifies for other indices exactly if their proof
    has the same shape; for any other it must fail.
    """
    if (start, end) == (0, n):
        return () if whole else ("first",)
    k = largest_power_below(n)
    if end <= k:
        return (*shape(start, end, k, whole=whole), "right")
    if k <= start:
        return (*shape(start - k, end - k, n - k, whole=whole), "left")
    return (*shape(0, end - k, n - k, whole=False), "left of both")
