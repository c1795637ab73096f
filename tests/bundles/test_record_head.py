"""Attested heads of a witness's record of events, verified offline."""

from __future__ import annotations

from dataclasses import replace

from tests.bundles.test_attestation import DEVICE
from tests.bundles.world import LOG, W1, W3, outcome, signed
from tests.simulated_log import SimulatedKey
from witness.bundles import Options, trust_in, verify
from witness.tlog.record_head import RecordHead

OPTIONS = Options(manifest_keys=(DEVICE.vkey,))
IDENTITY = "0123456789abcdef"


def record_head(number: int = 12, key: SimulatedKey = DEVICE, name: str = W1.vkey.name) -> bytes:
    head = RecordHead(name, IDENTITY, number, "ab" * 32, 1_800_000_000)
    return signed(head.text(), key)


def test_it_verifies_with_the_devices_key_alone() -> None:
    report = verify(record_head(), OPTIONS)
    assert report.verified
    assert report.format == "record-head"
    assert any("audit verify" in sentence for sentence in report.unchecked)
    # No other key will do, be it a log's or the witness's own.
    stranger = SimulatedKey("AW-ID-Attestation-0123456789ABCDEE")
    assert outcome(record_head(key=stranger), OPTIONS) == {"device signature"}
    assert outcome(record_head(key=LOG), Options(manifest_keys=(LOG.vkey,))) == {"device signature"}
    assert outcome(record_head(key=LOG), Options(logs=(LOG.vkey,))) == {"device signature"}
    assert outcome(record_head(), Options()) == {"device signature"}
    development = SimulatedKey("DEV:AW-ID-Attestation-0123456789ABCDEF")
    assert not outcome(record_head(key=development), Options(manifest_keys=(development.vkey,)))


def test_a_record_does_not_become_shorter() -> None:
    kept = replace(OPTIONS, previous=trust_in(record_head(12)))
    assert not outcome(record_head(12), kept)
    assert not outcome(record_head(13), kept)
    assert outcome(record_head(11), kept) == {"version"}


def test_whose_it_is() -> None:
    assert not outcome(record_head(), replace(OPTIONS, witnesses=(W1.vkey,)))
    assert outcome(record_head(name="other"), replace(OPTIONS, witnesses=(W1.vkey, W3.vkey))) == {"identity"}
