"""Reading the answers of logs' APIs: JSON, hexadecimal and base64, strictly and bounded.

Whatever is wrong is `BadLogData`, with the URL and what was expected there.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from feeders.protocol import BadLogData
from witness.tlog.merkle import HASH_SIZE

MAX_PROOF_SIZE: Final = 16 * 1024
"""Bytes of a consistency proof's answer: 63 hashes in hexadecimal or base64, and words around them."""

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")


def json_object(url: str, body: bytes) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        BadLogData: it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadLogData(url, "the answer is not JSON") from error
    if not isinstance(value, dict):
        raise BadLogData(url, "the answer is not a JSON object")
    return value


def text(url: str, fields: dict[str, Any], name: str) -> str:
    """A field that must be text.

    Raises:
        BadLogData: it is absent, or something else.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadLogData(url, f"{name} is not there, or not text")
    return value


def number(url: str, fields: dict[str, Any], name: str, most: int) -> int:
    """A field that must be a whole number from 0 to `most`.

    Raises:
        BadLogData: it is absent, or something else.
    """
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadLogData(url, f"{name} is not there, or no number that it may be")
    return value


def texts(url: str, fields: dict[str, Any], name: str, most: int) -> list[str]:
    """A field that must be a list of at most `most` texts.

    Raises:
        BadLogData: it is absent, or something else.
    """
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadLogData(url, f"{name} is not there, or no list of texts")
    if len(value) > most:
        raise BadLogData(url, f"{name} has more than {most} entries")
    return value


def hex_bytes(url: str, name: str, value: str, length: int | None = HASH_SIZE) -> bytes:
    """Bytes out of hexadecimal of either case; `length` is how many, None for any number.

    Raises:
        BadLogData: it is not that.
    """
    if _HEX.fullmatch(value) is None or (length is not None and len(value) != 2 * length):
        raise BadLogData(url, f"{name} is not {length or 'some'} bytes in hexadecimal")
    return bytes.fromhex(value)


def base64_bytes(url: str, name: str, value: str, length: int | None = HASH_SIZE) -> bytes:
    """Bytes out of base64; `length` is how many, None for any number.

    Raises:
        BadLogData: it is not that.
    """
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadLogData(url, f"{name} is not base64") from error
    if length is not None and len(found) != length:
        raise BadLogData(url, f"{name} has {len(found)} bytes instead of {length}")
    return found
