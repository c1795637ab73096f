"""RFC 3161 timestamps: what is stamped, and when. Who stamped it is not judged here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_SEQUENCE, _SET, _OID, _OCTETS, _INTEGER, _TIME, _CONTEXT_0 = 0x30, 0x31, 0x06, 0x04, 0x02, 0x18, 0xA0
_SIGNED_DATA: Final = bytes.fromhex("2a864886f70d010702")
_TST_INFO: Final = bytes.fromhex("2a864886f70d0109100104")
_HASHES: Final = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
_WHEN: Final = re.compile(rb"([0-9]{14})(?:\.[0-9]{1,9})?Z")
_LONG: Final = 0x80


class MalformedTimestamp(Exception):
    """The bytes are no timestamp response of RFC 3161, or a refusal."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Timestamp:
    """What a timestamp says.

    Attributes:
        hash: the hash function's name.
        imprint: the hash of what was stamped.
        when: POSIX seconds.
    """

    hash: str
    imprint: bytes
    when: int

    def is_of(self, data: bytes) -> bool:
        """Whether this is what was stamped."""
        return hashlib.new(self.hash, data).digest() == self.imprint


class _Der:
    """Reads DER elements one after the other, and only where it is told to."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, tag: int) -> bytes:
        """The content of the next element, which must have this tag."""
        data, at = self._data, self._at
        if at + 2 > len(data) or data[at] != tag:
            raise MalformedTimestamp("not the DER of a timestamp")
        length, at = data[at + 1], at + 2
        if length >= _LONG:
            count = length - _LONG
            if not 1 <= count <= 4 or at + count > len(data):  # noqa: PLR2004 - 4 GiB are enough
                raise MalformedTimestamp("not the DER of a timestamp")
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + length > len(data):
            raise MalformedTimestamp("not the DER of a timestamp")
        self._at = at + length
        return data[at : at + length]


def parse_timestamp(data: bytes) -> Timestamp:
    """Parse a `TimeStampResp` (RFC 3161, section 2.4.2).

    Raises:
        MalformedTimestamp: it is none, or one without a token.
    """
    response = _Der(_Der(data).take(_SEQUENCE))
    status = _Der(response.take(_SEQUENCE)).take(_INTEGER)
    if status not in (b"\x00", b"\x01"):
        raise MalformedTimestamp("the timestamp was refused")
    token = _Der(response.take(_SEQUENCE))
    if token.take(_OID) != _SIGNED_DATA:
        raise MalformedTimestamp("the token is not signed data")
    signed = _Der(_Der(token.take(_CONTEXT_0)).take(_SEQUENCE))
    signed.take(_INTEGER)
    signed.take(_SET)
    content = _Der(signed.take(_SEQUENCE))
    if content.take(_OID) != _TST_INFO:
        raise MalformedTimestamp("the token is no timestamp")
    info = _Der(_Der(_Der(content.take(_CONTEXT_0)).take(_OCTETS)).take(_SEQUENCE))
    info.take(_INTEGER)
    info.take(_OID)
    imprint = _Der(info.take(_SEQUENCE))
    found = _HASHES.get(_Der(imprint.take(_SEQUENCE)).take(_OID))
    if found is None:
        raise MalformedTimestamp("an unknown hash algorithm")
    value = imprint.take(_OCTETS)
    info.take(_INTEGER)
    when = _WHEN.fullmatch(info.take(_TIME))
    if when is None:
        raise MalformedTimestamp("not a time")
    try:
        moment = datetime.strptime(when[1].decode("ascii"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise MalformedTimestamp("not a time") from error
    return Timestamp(found, value, int(moment.timestamp()))
