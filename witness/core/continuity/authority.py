"""Dangerous actions need operators: k of n, by signatures of the SSH keys they already have.

An action is proposed, with what it is about; operators sign a statement that holds the proposal and their
verdict; it can be carried out, once, while enough of them approve and it has not expired. Every step is on
the record. The core verifies the signatures itself before it believes that an alarm was settled.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from witness.core.continuity.sshsig import Operator, signer
from witness.core.store.audit import Event, leave
from witness.core.store.base import StoreError
from witness.core.store.desk import Desk


class Action(StrEnum):
    """What can be made to need approval."""

    RECOVER = "recover"
    ROTATE = "rotate"
    LOG_KEYS = "log-keys"


HOUR: Final = 3600


class NotApproved(StoreError):
    """The action needs more operators than have approved it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who decides: `needed` of `operators`."""

    needed: int
    operators: tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed action.

    Attributes:
        number: a random name of 16 hexadecimal digits.
        action: what is to be done.
        subject: what about, as JSON.
        statement: what operators sign, but for their verdict.
        made, expires: POSIX seconds.
        ended: "used", "denied" or None.
        ended_at: POSIX seconds, or None.
        approvals, denials: names of operators whose signatures verify.
    """

    number: str
    action: str
    subject: str
    statement: bytes
    made: int
    expires: int
    ended: str | None
    ended_at: int | None
    approvals: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()


def propose(
    desk: Desk, witness: str, identity: str, action: Action, subject: dict[str, Any], *, now: int, hours: int
) -> Proposal:
    """Proposes an action; it expires after so many hours."""
    number = secrets.token_hex(8)
    about = json.dumps(subject, sort_keys=True, ensure_ascii=False)
    expires = now + hours * HOUR
    statement = (
        f"tlog-witness approval v1\nwitness {witness}\nidentity {identity}\n"
        f"action {action}\nsubject {about}\nproposal {number}\nexpires {expires}\n"
    ).encode()
    with desk.transaction() as connection:
        connection.execute(
            "INSERT INTO proposals (id, action, subject, statement, made, expires) VALUES (?, ?, ?, ?, ?, ?)",
            (number, action, about, statement, now, expires),
        )
        facts = {"proposal": number, "action": action, "subject": subject}
        leave(connection, Event("proposed", facts), now)
    return Proposal(number, action, about, statement, now, expires, None, None)


def to_sign(proposal: Proposal, *, approve: bool) -> bytes:
    """The exact bytes that an operator signs."""
    return proposal.statement + (b"verdict approve\n" if approve else b"verdict deny\n")


def vote(
    desk: Desk, authority: Authority, proposal: Proposal, armored: bytes, *, approve: bool, now: int
) -> Operator:
    """Takes an operator's signature; the operator has one vote, the first.

    Raises:
        NotApproved: it is nobody's signature of this verdict on this proposal, or that is over.
    """
    operator = signer(armored, to_sign(proposal, approve=approve), authority.operators)
    if operator is None:
        raise NotApproved("the signature is by none of the operators, or not of this statement")
    if proposal.ended is not None or now >= proposal.expires:
        raise NotApproved(f"proposal {proposal.number} is over: {proposal.ended or 'expired'}")
    with desk.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO votes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (proposal.number, operator.name, "approve" if approve else "deny", now, armored),
        )
        if cursor.rowcount != 1:
            raise NotApproved(f"{operator.name} has voted on this proposal already")
        event = "approved" if approve else "denied"
        leave(connection, Event(event, {"proposal": proposal.number, "operator": operator.name}), now)
    # Once so many have denied that the others are too few, it is over.
    (voted,) = (each for each in proposals(desk, authority) if each.number == proposal.number)
    if len(authority.operators) - len(voted.denials) < authority.needed:
        _end(desk, voted, "denied", now)
    return operator


def proposals(desk: Desk, authority: Authority) -> tuple[Proposal, ...]:
    """All proposals, the latest first; only votes whose signatures verify count."""
    found = []
    rows = desk.connection.execute(
        "SELECT id, action, subject, statement, made, expires, ended, ended_at FROM proposals"
        " ORDER BY made DESC, id"
    ).fetchall()
    for row in rows:
        bare = Proposal(*row)
        votes: dict[str, list[str]] = {"approve": [], "deny": []}
        for verdict, signature in desk.connection.execute(
            "SELECT verdict, signature FROM votes WHERE proposal = ? ORDER BY cast_at", (bare.number,)
        ).fetchall():
            message = to_sign(bare, approve=verdict == "approve")
            operator = signer(signature, message, authority.operators)
            if operator is not None and operator.name not in votes[verdict]:
                votes[verdict].append(operator.name)
        found.append(replace(bare, approvals=tuple(votes["approve"]), denials=tuple(votes["deny"])))
    return tuple(found)


def use(desk: Desk, authority: Authority, action: Action, subject: dict[str, Any], now: int) -> None:
    """Takes the approval of an action that is about to be carried out. It serves once.

    Raises:
        NotApproved: there is none.
    """
    if not authority.needed:
        return
    about = json.dumps(subject, sort_keys=True, ensure_ascii=False)
    best = 0
    for proposal in proposals(desk, authority):
        if (proposal.action, proposal.subject, proposal.ended) != (action, about, None):
            continue
        if now >= proposal.expires:
            continue
        if _statement_fits(proposal) and len(set(proposal.approvals)) >= authority.needed:
            _end(desk, proposal, "used", now)
            return
        best = max(best, len(proposal.approvals))
    asked = f" --subject {shlex.quote(about)}" if subject else ""
    raise NotApproved(
        f"{action} needs {authority.needed} of {len(authority.operators)} operators, and {best} approved it",
        f"witness approvals propose {action}{asked}, and have operators approve it",
    )


def was_used(desk: Desk, authority: Authority, action: Action, since: int) -> bool:
    """Whether an action was carried out with enough approvals at or after a time."""
    return any(
        proposal.action == action
        and proposal.ended == "used"
        and (proposal.ended_at or 0) >= since
        and _statement_fits(proposal)
        and len(set(proposal.approvals)) >= authority.needed
        for proposal in proposals(desk, authority)
    )


def keys_subject(origin: str, vkeys: Iterable[str]) -> dict[str, Any]:
    """What a change of a log's keys is about: the log, and all keys that it is to have afterwards."""
    return {"origin": origin, "keys": sorted(vkeys)}


def keys_were_approved(desk: Desk, authority: Authority, origin: str, vkeys: Iterable[str]) -> bool:
    """Whether the last change of a log's keys that was approved is to these keys.

    The last by the expiry that operators signed: when it was used stands in the database alone.
    """
    if not authority.needed:
        return True
    wanted = json.dumps(keys_subject(origin, vkeys), sort_keys=True, ensure_ascii=False)
    approved = [
        proposal
        for proposal in proposals(desk, authority)
        if proposal.action == Action.LOG_KEYS
        and proposal.ended == "used"
        and json.loads(proposal.subject).get("origin") == origin
        and _statement_fits(proposal)
        and len(set(proposal.approvals)) >= authority.needed
    ]
    return bool(approved) and max(approved, key=lambda each: each.expires).subject == wanted


def _statement_fits(proposal: Proposal) -> bool:
    """Whether what was signed says what the row says: the row alone could have been changed."""
    lines = (
        f"action {proposal.action}", f"subject {proposal.subject}",
        f"proposal {proposal.number}", f"expires {proposal.expires}",
    )  # fmt: skip
    return all(line in proposal.statement.decode("utf-8", "replace").split("\n") for line in lines)


def _end(desk: Desk, proposal: Proposal, how: str, now: int) -> None:
    with desk.transaction() as connection:
        cursor = connection.execute(
            "UPDATE proposals SET ended = ?, ended_at = ? WHERE id = ? AND ended IS NULL",
            (how, now, proposal.number),
        )
        if cursor.rowcount != 1:
            raise NotApproved(f"proposal {proposal.number} is over")
        leave(connection, Event(f"proposal-{how}", {"proposal": proposal.number}), now)
