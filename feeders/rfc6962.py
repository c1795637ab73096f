"""Certificate Transparency logs with the API of RFC 6962, their tree heads turned into checkpoints.

Specification: RFC 6962, sections 4.3 (get-sth) and 4.4 (get-sth-consistency); and
https://c2sp.org/static-ct-api, which says that "a RFC 6962 get-sth response can be converted to a checkpoint
(with knowledge of the origin line) and vice-versa without access to the private key".

The signature covers neither the origin nor the key's name; both come from our own configuration.
"""

from __future__ import annotations

from typing import Final

from feeders.answers import MAX_PROOF_SIZE, base64_bytes, json_object, number, text, texts
from feeders.proofs import checked_proof
from feeders.protocol import BadLogData, FeedLog, LogSource
from feeders.tools import Tools
from witness.tlog.checkpoint import Checkpoint
from witness.tlog.merkle import MAX_TREE_SIZE
from witness.tlog.note import MalformedNote, Signature, SignatureType, format_note
from witness.tlog.rfc6962 import encode_note_signature
from witness.tlog.signature import verify_signature
from witness.tlog.submission import MAX_PROOF_LINES

MAX_STH_SIZE: Final = 8 * 1024
"""Bytes of a get-sth answer: a few hundred, with the largest RSA signature two thousand."""

_MAX_UINT64: Final = 2**64 - 1


class Rfc6962Log:
    """A `LogSource` over the RFC 6962 API.

    Args:
        log: its URL is the log's address, before `/ct/v1/`.
        tools: the GET.
    """

    def __init__(self, log: FeedLog, tools: Tools) -> None:
        self._log = log
        self._tools = tools
        self._prefix = log.url.rstrip("/") + "/ct/v1/"
        self._keys = [key for key in log.vkeys if key.type is SignatureType.RFC6962]

    async def fetch_checkpoint(self) -> bytes:
        """See `LogSource.fetch_checkpoint`: the signed tree head with a signature line of type 0x05."""
        url = self._prefix + "get-sth"
        fields = json_object(url, await self._tools.latest(url, MAX_STH_SIZE))
        checkpoint = Checkpoint(
            self._log.origin,
            number(url, fields, "tree_size", MAX_TREE_SIZE),
            base64_bytes(url, "sha256_root_hash", text(url, fields, "sha256_root_hash")),
        )
        signed = base64_bytes(
            url, "tree_head_signature", text(url, fields, "tree_head_signature"), length=None
        )
        try:
            value = encode_note_signature(number(url, fields, "timestamp", _MAX_UINT64), signed)
        except MalformedNote as error:
            raise BadLogData(url, f"tree_head_signature: {error}") from error
        return self._note(url, checkpoint, value)

    def _note(self, url: str, checkpoint: Checkpoint, value: bytes) -> bytes:
        """The note, its line named after the key that made it; of one key alone that is not asked."""
        if not self._keys:
            raise BadLogData(url, "no key of type 0x05 is configured for this log")
        text_ = checkpoint.text()
        key = self._keys[0]
        if len(self._keys) > 1:
            key = next((each for each in self._keys if verify_signature(each, text_, value)), key)
        return format_note(text_, [Signature(key.name, key.key_id, value)])

    async def fetch_consistency_proof(
        self, old_size: int, checkpoint: Checkpoint, old_root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """See `LogSource.fetch_consistency_proof`."""

        async def ask(first: int) -> tuple[bytes, ...]:
            url = f"{self._prefix}get-sth-consistency?first={first}&second={checkpoint.size}"
            fields = json_object(url, await self._tools.fetch(url, MAX_PROOF_SIZE))
            lines = texts(url, fields, "consistency", MAX_PROOF_LINES)
            return tuple(base64_bytes(url, "consistency", line) for line in lines)

        return await checked_proof(self._prefix, old_size, checkpoint, old_root, ask)


def rfc6962_source(log: FeedLog, tools: Tools) -> LogSource:
    """A Certificate Transparency log with the API of RFC 6962."""
    return Rfc6962Log(log, tools)
