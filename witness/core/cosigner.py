"""The program that authorises each signature: it signs cosignatures, and nothing else.

https://c2sp.org/tlog-cosignature

The signers behind it would sign any bytes; this file decides what those bytes are. They are always a
cosignature message of a checkpoint or subtree that was understood, under our own name, and are built here
from its fields. So no caller, and no bug above, can have bytes of its choosing signed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from witness.core.keystore.base import KeyBusy, KeystoreError, PacedSigner, Signer
from witness.core.refusals import KeyUnavailable, Overloaded, SubtreesUnsupported
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.cosignature import cosignature_v1_message, cosigned_message, encode_timestamped
from witness.tlog.note import Signature, SignatureType, VerifierKey


class Cosigner:
    """All keys of one witness identity, used together: every answer carries every key's cosignature."""

    def __init__(self, signers: Sequence[Signer]) -> None:
        names = {signer.vkey.name for signer in signers}
        if len(names) != 1:
            raise ValueError("the keys of a witness share one name")
        self.name = names.pop()
        self.vkeys: tuple[VerifierKey, ...] = tuple(signer.vkey for signer in signers)
        self._signers = tuple(signers)
        self._subtree_signers = tuple(
            signer for signer in signers if signer.vkey.type == SignatureType.COSIGNATURE_MLDSA44
        )
        self._paced = [(s.vkey, s) for s in signers if isinstance(s, PacedSigner)]

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
        lines = []
        for signer in self._signers:
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
        if not self._subtree_signers:
            raise SubtreesUnsupported
        # SPEC tlog-witness: "If the cosignature format supports timestamps, the timestamp MUST be zero."
        message = cosigned_message(self.name, 0, origin, start, end, root)
        return "".join(self._line(signer, 0, message) for signer in self._subtree_signers).encode()

    @property
    def signs_subtrees(self) -> bool:
        """Whether any key's cosignature format covers subtrees."""
        return bool(self._subtree_signers)

    # --- keys that take their time --------------------------------------------------------------------------

    @property
    def is_paced(self) -> bool:
        """Whether a cosignature waits for a device, so that it is made where nobody else waits for it."""
        return bool(self._paced)

    @property
    def is_paced_for_subtrees(self) -> bool:
        """The same of a subtree's cosignature."""
        return any(isinstance(signer, PacedSigner) for signer in self._subtree_signers)

    @property
    def most_lanes(self) -> int:
        """Cosignatures that may ever be made side by side; 1 where no key is in a device."""
        return max((signer.most_lanes for _, signer in self._paced), default=1)

    def capacity(self, seconds: float) -> int:
        """Cosignatures that the devices make in so many seconds, as measured lately; at least one a lane."""
        paces = [signer.pace for _, signer in self._paced]
        lanes = min((pace.lanes for pace in paces), default=1)
        each = sum(pace.seconds / pace.lanes for pace in paces)
        return max(lanes, math.ceil(seconds / each)) if each else lanes

    def unavailable(self) -> KeyUnavailable | None:
        """Why no cosignature can be made now, or None: one key that is away is enough."""
        for vkey, signer in self._paced:
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
