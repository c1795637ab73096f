"""Offline verification of proof bundles: was this thing in the log, as the witnesses saw it?

    report = verify(data, Options(policy=parse_policy(text), entry=entry))
    if report.verified: …

Pure: bytes in, a `Report` or `MalformedBundle` out, for any bytes whatsoever. Clock and files are the
caller's. One module a format; `formats.read` tells them apart by content.
"""

from __future__ import annotations

from witness.bundles.formats import read
from witness.bundles.judge import Judge
from witness.bundles.options import Options, RawKey, parse_log_key, parse_manifest_key, parse_witness_key
from witness.bundles.report import Check, Learned, MalformedBundle, Report
from witness.bundles.trust import decode_trust, encode_trust, merge_trust

__all__ = [
    "Check",
    "Learned",
    "MalformedBundle",
    "Options",
    "RawKey",
    "Report",
    "decode_trust",
    "encode_trust",
    "merge_trust",
    "parse_log_key",
    "parse_manifest_key",
    "parse_witness_key",
    "trust_in",
    "verify",
]


def verify(data: bytes, options: Options) -> Report:
    """Verify a bundle of any known format.

    Args:
        data: the bundle; its format is recognised by its content.
        options: what the reader trusts, and what the bundle must be about.

    Returns:
        Every step with its outcome; `Report.verified` is their conjunction. What the format leaves open is
        in `Report.unchecked`.

    Raises:
        MalformedBundle: the bytes are of no known format, or not of the form that theirs gives.
    """
    bundle = read(data)
    judge = Judge(bundle.format, options)
    bundle.judge(judge)
    return judge.report()


def trust_in(data: bytes) -> Learned:
    """What a bundle says that its reader trusts already: to compare later ones with (`Options.previous`).

    Nothing is verified.

    Raises:
        MalformedBundle: of no known format, or one that says nothing to compare with.
    """
    learned = read(data).learned()
    if not learned.checkpoints and not learned.versions:
        raise MalformedBundle("", "nothing in it can be compared with")
    return learned
