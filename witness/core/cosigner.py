"""The program that authorises each signature: it signs cosignatures, and nothing else.

https://c2sp.org/tlog-cosignature

The signers behind it would sign any bytes; this file decides what those bytes are. They are always a
cosignature message of a checkpoint or subtree that was understood, under our own name, and are built here
from its fields. So no caller, and no bug above, can have bytes of its choosing signed.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Collection, Sequence

from witness.core.keystore.base import KeyBusy, KeystoreError, PacedSigner, Signer
from witness.core.refusals import KeyUnavailable, Overloaded, SubtreesUnsupported
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message, encode_timestamped
from witness.tlog.note import Signature, SignatureType, VerifierKey


class _Hand:
    """The keys that sign at one moment, and how many cosignatures are being made with them."""

    def __init__(self, signers: Sequence[Signer]) -> None:
        self.signers = tuple(signers)
        self.vkeys = tuple(signer.vkey for signer in signers)
        self.for_subtrees = tuple(
            signer for signer in signers if signer.vkey.type == SignatureType.COSIGNATURE_MLDSA44
        )
        self.paced = [(s.vkey, s) for s in signers if isinstance(s, PacedSigner)]
        self.users = 0


class Cosigner:
    """All keys of one witness identity, used together: every answer carries every key's cosignature.

    Keys can be dropped, and never come back: a generation that is retired.
    """

    def __init__(self, signers: Sequence[Signer]) -> None:
        names = {signer.vkey.name for signer in signers}
        if len(names) != 1:
            raise ValueError("the keys of a witness share one name")
        self.name = names.pop()
        self._hand = _Hand(signers)
        self._former: list[_Hand] = []
        self._change = threading.Condition()

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        """The keys that sign now, in the order of their cosignatures."""
        return self._hand.vkeys

    def drop(self, vkeys: Collection[VerifierKey], *, patience: float = 60.0) -> bool:
        """Lets keys sign no more, and waits until none of them does.

        Blocks; for a thread of its own. What was being signed when it was called ends with all keys.

        Returns:
            False where a key was still being used after `patience` seconds.
        """
        with self._change:
            gone = set(vkeys)
            if not gone.isdisjoint(self._hand.vkeys):
                self._former.append(self._hand)
                self._hand = _Hand([each for each in self._hand.signers if each.vkey not in gone])
            return self._change.wait_for(self._former_unused, patience)

    def _former_unused(self) -> bool:
        self._former = [hand for hand in self._former if hand.users]
        return not self._former

    def _take(self) -> _Hand:
        with self._change:
            hand = self._hand
            hand.users += 1
        return hand

    def _let_go(self, hand: _Hand) -> None:
        with self._change:
            hand.users -= 1
            if hand is not self._hand:
                self._change.notify_all()

    def cosign(self, checkpoint: Checkpoint, text: bytes, timestamp: int) -> bytes:
        """The cosignature lines of a checkpoint, one for each key.

        Args:
            checkpoint: what was understood and judged.
            text: its own re-encoding (`checkpoint.text()`), passed in because the caller has it.
            timestamp: POSIX seconds, positive.

        Raises:
            KeyUnavailable: one of the keys cannot sign; then none of the signatures is given out.
            Overloaded: more waits for a key's devices than they can answer in time.
        """
        # SPEC tlog-witness: "The cosignature MUST NOT omit the timestamp, i.e. the timestamp MUST NOT be
        # zero."
        if timestamp <= 0:
            raise ValueError("a checkpoint's cosignature has a timestamp")
        hand = self._take()
        try:
            return self._cosign(hand, checkpoint, text, timestamp)
        finally:
            self._let_go(hand)

    def _cosign(self, hand: _Hand, checkpoint: Checkpoint, text: bytes, timestamp: int) -> bytes:
        if not hand.signers:
            raise KeyUnavailable(self.name, "every key that is here was retired")
        lines = []
        for signer in hand.signers:
            if signer.vkey.type == SignatureType.COSIGNATURE_ED25519:
                # SPEC tlog-cosignature: extension lines "if present MUST be included in the cosigned
                # message".
                message = cosignature_v1_message(timestamp, text)
            else:
                # SPEC tlog-witness: "the cosignature returned by the witness MUST be for the entire tree in
                # the submitted checkpoint, i.e. start MUST be zero and end MUST be the checkpoint size."
                message = cosigned_message(
                    self.name, timestamp, checkpoint.origin, 0, checkpoint.size, checkpoint.root
                )
            lines.append(self._line(signer, timestamp, message))
        return "".join(lines).encode()

    def cosign_subtree(self, origin: str, start: int, end: int, root: bytes) -> bytes:
        """The cosignature lines of a subtree, one for each key whose format covers subtrees.

        Args:
            origin: the log's origin.
            start: index of the subtree's first leaf.
            end: index after its last leaf.
            root: its root hash, 32 bytes.

        Raises:
            SubtreesUnsupported: no key's format covers subtrees.
            KeyUnavailable: one of the keys cannot sign.
        """
        hand = self._take()
        try:
            if not hand.for_subtrees:
                raise SubtreesUnsupported
            # SPEC tlog-witness: "If the cosignature format supports timestamps, the timestamp MUST be zero."
            message = cosigned_message(self.name, 0, origin, start, end, root)
            return "".join(self._line(signer, 0, message) for signer in hand.for_subtrees).encode()
        finally:
            self._let_go(hand)

    @property
    def signs_subtrees(self) -> bool:
        """Whether any key's cosignature format covers subtrees."""
        return bool(self._hand.for_subtrees)

    # --- keys that take their time --------------------------------------------------------------------------

    @property
    def is_paced(self) -> bool:
        """Whether a cosignature waits for a device, so that it is made where nobody else waits for it."""
        return bool(self._hand.paced)

    @property
    def is_paced_for_subtrees(self) -> bool:
        """The same of a subtree's cosignature."""
        return any(isinstance(signer, PacedSigner) for signer in self._hand.for_subtrees)

    @property
    def most_lanes(self) -> int:
        """Cosignatures that may ever be made side by side; 1 where no key is in a device."""
        return max((signer.most_lanes for _, signer in self._hand.paced), default=1)

    def capacity(self, seconds: float) -> int:
        """Cosignatures that the devices make in so many seconds, as measured lately; at least one a lane."""
        paces = [signer.pace for _, signer in self._hand.paced]
        if not paces:  # those in devices were retired, and the others keep nobody waiting
            return sys.maxsize
        lanes = min(pace.lanes for pace in paces)
        each = sum(pace.seconds / pace.lanes for pace in paces)
        return max(lanes, math.ceil(seconds / each)) if each else lanes

    def unavailable(self) -> KeyUnavailable | None:
        """Why no cosignature can be made now, or None: one key that is away is enough."""
        for vkey, signer in self._hand.paced:
            error = signer.error
            if error is not None:
                return KeyUnavailable(f"{vkey.name}+{vkey.key_id.hex()}", error.reason)
        return None

    @staticmethod
    def _line(signer: Signer, timestamp: int, message: bytes) -> str:
        vkey = signer.vkey
        try:
            signature = signer.sign(message)
        except KeyBusy as error:
            raise Overloaded(retry_after=1) from error
        except KeystoreError as error:
            raise KeyUnavailable(f"{vkey.name}+{vkey.key_id.hex()}", error.reason) from error
        return Signature(vkey.name, vkey.key_id, encode_timestamped(timestamp, signature)).line()
