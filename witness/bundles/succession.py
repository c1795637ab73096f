"""Succession statements: a witness's old keys name the new ones (`witness.tlog.succession`).

Whoever trusts an old key learns from it which keys the witness signs with next, offline and from nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from witness.bundles.judge import Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.tlog.note import MalformedNote, Note, VerifierKey, parse_note
from witness.tlog.succession import (
    FIRST_LINE,
    MalformedSuccession,
    Succession,
    is_stated_by,
    parse_succession,
)

FORMAT: Final = "witness-succession"
_OLD: Final = "old key"


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed statement and the note it came in."""

    note: Note
    said: Succession
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """That every old key the reader trusts signed it, and every new key agreed."""
        said = self.said
        judge.check("succession", True, f"{said.name}, stated at {said.time} by its own clock")
        trusted = self._trusted(judge)
        if not trusted:
            judge.check(_OLD, False, "no old key is trusted here: --witness VKEY names one")
        for key in trusted:
            self._judge_old(judge, key)
        for key in said.old:
            if key not in trusted and is_stated_by(self.note, key) is False:
                judge.check(_OLD, False, f"the signature by {_short(key)} is not valid")
        for key in said.new:
            signed = is_stated_by(self.note, key)
            words = "" if signed else ": it did not sign the statement, or not rightly"
            judge.check("new key", signed is True, f"{key}{words}")
        self._judge_age(judge)
        judge.say_unchecked("whether the old keys were still the witness's own when they signed")

    def _trusted(self, judge: Judge) -> tuple[VerifierKey, ...]:
        """The keys given by name, and those old keys that the policy knows."""
        policy = judge.options.policy
        known = [each.public_key for each in policy.witnesses] if policy is not None else []
        by_policy = [key for key in self.said.old if key.public_key in known]
        return tuple(dict.fromkeys([*judge.options.witnesses, *by_policy]))

    def _judge_old(self, judge: Judge, key: VerifierKey) -> None:
        if key not in self.said.old:
            what = "one of the new keys" if key in self.said.new else "none of its keys"
            judge.check(_OLD, False, f"{_short(key)} is {what}: only an old key can name its successor")
            return
        signed = is_stated_by(self.note, key)
        words = {True: "signed by", False: "not a valid signature by", None: "expected a signature by"}[
            signed
        ]
        judge.check(_OLD, signed is True, f"{words} {_short(key)}")

    def _judge_age(self, judge: Judge) -> None:
        most, now = judge.options.max_age, judge.options.now
        if most is not None and now is not None:
            age = now - self.said.time
            judge.check("age", age <= most, f"stated {age} s ago, expected at most {most} s")

    def learned(self) -> Learned:
        """Nothing about any log."""
        return Learned((), {})


def recognises(data: bytes) -> bool:
    """Whether the first line is a statement's."""
    return data.partition(b"\n")[0] == FIRST_LINE.encode()


def parse(data: bytes) -> Statement:
    """Parse a statement; raises MalformedBundle."""
    try:
        note = parse_note(data)
        return Statement(note, parse_succession(note.text))
    except (MalformedNote, MalformedSuccession) as error:
        raise MalformedBundle(FORMAT, error.reason) from error


def _short(key: VerifierKey) -> str:
    return f"{key.name}+{key.key_id.hex()}"
