"""What a verification finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class MalformedBundle(Exception):
    """These bytes are no bundle of the form that its format gives, or of no known format.

    Attributes:
        format: the format's name; empty where none was recognised.
        reason: what is wrong.
    """

    def __init__(self, format_: str, reason: str) -> None:
        super().__init__(f"{format_}: {reason}" if format_ else reason)
        self.format = format_
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Check:
    """One step of a verification.

    Attributes:
        name: the step.
        ok: whether it held.
        detail: what was found, and where it failed, what was expected. May quote the bundle: other
            people's text, to be made printable before it is shown.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Learned:
    """What a verified bundle adds to what its reader trusts, and what an earlier one has added.

    Attributes:
        checkpoints: signed checkpoints, at most one an origin. Only the text was verified: of the
            signature lines, some may be strangers'.
        versions: the highest version seen of what comes in versions: a semantic version for a firmware
            component, a decimal count for a device's attestation and
            for a record of events.
    """

    checkpoints: tuple[bytes, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `verify`.

    Attributes:
        format: the bundle's format.
        checks: the steps in the order they were taken; at least one.
        unchecked: what a reader might think was verified and was not, a sentence each.
        learned: what to remember for next time; to be trusted only if `verified`.
    """

    format: str
    checks: tuple[Check, ...]
    unchecked: tuple[str, ...] = ()
    learned: Learned = field(default_factory=Learned)

    @property
    def verified(self) -> bool:
        """Whether every step held."""
        return bool(self.checks) and all(check.ok for check in self.checks)
