"""C2SP tlog-proof (https://c2sp.org/tlog-proof), judged by its section "Verifying a tlog proof"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from witness.bundles.judge import INCLUSION, Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.proof import HEADER, MalformedProof, Proof, parse_proof

FORMAT: Final = "tlog-proof"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A parsed tlog-proof."""

    proof: Proof
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """Steps 1 to 4 of the specification; step 1, what the leaf is, is the given entry."""
        head = judge.head(self.proof.checkpoint)
        leaf = judge.entry_hash()
        if leaf is None:
            judge.check(INCLUSION, False, "no entry or leaf hash was given to look for")
        else:
            judge.inclusion(self.proof.index, leaf, self.proof.hashes, head)
        if self.proof.extra is not None:
            # SPEC tlog-proof: "Appications MUST NOT implicitly trust the extra data, as it is not
            # authenticated."
            judge.say_unchecked(f"the extra data ({len(self.proof.extra)} bytes) is signed by nobody")

    def learned(self) -> Learned:
        """The proof's checkpoint."""
        return Learned((self.proof.checkpoint,))


def recognises(data: bytes) -> bool:
    """Whether the bytes begin as a tlog-proof, of this version or of another."""
    return data.startswith(HEADER[:-1])


def parse(data: bytes) -> TlogProof:
    """Parse a tlog-proof; raises MalformedBundle."""
    try:
        return TlogProof(parse_proof(data))
    except MalformedProof as error:
        raise MalformedBundle(FORMAT, error.reason) from error
