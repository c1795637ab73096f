"""Which format bytes are of: told by their content, never by a file's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from witness.bundles import (
    armored_witness,
    armory_drive,
    attestation,
    checkpoint,
    evidence,
    record_head,
    sigstore,
    sigsum,
    succession,
    sumdb,
    tlog_proof,
)
from witness.bundles.judge import Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.bundles.strict_json import MalformedJson, parse_object

MAX_BUNDLE_SIZE: Final = 64 << 20
"""Bytes of a bundle: firmware in base64 is the largest thing there is."""

MAX_TEXT_SIZE: Final = 8 << 20
"""Bytes of a bundle that is no JSON: nothing of that kind is large."""


class Bundle(Protocol):
    """A parsed bundle of some format."""

    @property
    def format(self) -> str:
        """The format's name."""

    def judge(self, judge: Judge) -> None:
        """Takes all the steps that the format has."""

    def learned(self) -> Learned:
        """What the bundle says, verified or not: for one that its reader already trusts."""


_TEXTS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Bundle]], ...]] = (
    (tlog_proof.recognises, tlog_proof.parse),
    (sigsum.recognises, sigsum.parse),
    (attestation.recognises, attestation.parse),
    (record_head.recognises, record_head.parse),
    (succession.recognises, succession.parse),
    (armored_witness.recognises_gob, armored_witness.parse_config),
    (sumdb.recognises_lookup, sumdb.parse_lookup),
    (sumdb.recognises_go_sum, sumdb.parse_go_sum),
)
_Members = dict[str, Any]
_OBJECTS: Final[tuple[tuple[Callable[[_Members], bool], Callable[[_Members], Bundle]], ...]] = (
    (evidence.recognises, evidence.parse),
    (sigstore.recognises, sigstore.parse),
    (armory_drive.recognises, armory_drive.parse),
    (armored_witness.recognises, armored_witness.parse),
)


def read(data: bytes) -> Bundle:
    """Recognise and parse a bundle.

    Raises:
        MalformedBundle: of no known format, or not of the form that its format gives.
    """
    if len(data) > MAX_BUNDLE_SIZE:
        raise MalformedBundle("", f"{len(data)} bytes, more than {MAX_BUNDLE_SIZE}")
    if armored_witness.recognises_manifest(data):
        return armored_witness.parse_bare_manifest(data)
    if data.lstrip(b" \t\r\n").startswith(b"{"):
        return _read_json(data)
    if len(data) > MAX_TEXT_SIZE:
        raise MalformedBundle("", f"{len(data)} bytes, more than {MAX_TEXT_SIZE}")
    return _read_text(data)


def _read_json(data: bytes) -> Bundle:
    try:
        members = parse_object(data)
    except MalformedJson as error:
        raise MalformedBundle("", error.reason) from error
    for recognises, parse in _OBJECTS:
        if recognises(members):
            return parse(members)
    raise MalformedBundle("", "JSON of no known format")


def _read_text(data: bytes) -> Bundle:
    for recognises, parse in _TEXTS:
        if recognises(data):
            return parse(data)
    try:
        return checkpoint.parse(data)
    except MalformedBundle as error:
        raise MalformedBundle("", f"no known format, nor a signed checkpoint: {error.reason}") from error
