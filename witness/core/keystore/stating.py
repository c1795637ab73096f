"""The program that authorises succession statements: old and new keys sign who follows whom.

Like the cosigner it builds the message itself, from the vkeys of the signers that it is given. It runs in the
command's process that makes the new keys; no core has a verb for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from witness.core.keystore.base import KeyInvalid, KeystoreError, Signer
from witness.tlog.note import format_note, parse_note
from witness.tlog.succession import Succession, is_stated_by, statement_line


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement: the signed note, and what kept old keys from signing it, a line each."""

    note: bytes
    unsigned: tuple[str, ...]


def state_succession(old: Sequence[Signer], new: Sequence[Signer], now: int) -> Stated:
    """Has the old keys name the new ones, and both sign it.

    Every new key must sign. Of the old ones each should, and one must: a reader holds the statement against
    the old key that it trusts.

    Args:
        old: what signs now.
        new: what is to follow.
        now: POSIX seconds.

    Raises:
        KeystoreError: a new key does not sign, or none of the old does.
    """
    said = Succession(
        old[0].vkey.name, tuple(each.vkey for each in old), tuple(each.vkey for each in new), now
    )
    text = said.text()
    lines, unsigned = [], []
    for signer in old:
        try:
            lines.append(statement_line(signer.vkey, signer.sign(text)))
        except KeystoreError as error:
            unsigned.append(f"{signer.vkey.name}+{signer.vkey.key_id.hex()}: {error.reason}")
    if not lines:
        raise KeyInvalid(
            f"no old key signs who follows it: {'; '.join(unsigned)}",
            "keys behind a key door are rotated where they are kept",
        )
    lines += [statement_line(signer.vkey, signer.sign(text)) for signer in new]
    note = format_note(text, lines)
    parsed = parse_note(note)
    for key in (*said.old, *said.new):
        if is_stated_by(parsed, key) is False:
            raise KeyInvalid(f"the signature by {key.name}+{key.key_id.hex()} does not verify")
    return Stated(note, tuple(unsigned))
