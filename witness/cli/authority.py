"""What needs operators' approval, for the commands that carry it out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from witness.cli.errors import Failure, TheAnswerIsNo
from witness.cli.state import read_config
from witness.core.continuity.authority import Action, Authority, NotApproved, keys_subject, use
from witness.core.continuity.sshsig import MalformedKey, parse_operator
from witness.core.layout import StateLayout
from witness.core.store.desk import Desk
from witness.core.store.logs import LogBook
from witness.tlog.note import VerifierKey


def configured(layout: StateLayout) -> Authority:
    """Who decides, by the configuration."""
    authority = read_config(layout).authority
    try:
        return Authority(authority.needed, tuple(parse_operator(line) for line in authority.operators))
    except MalformedKey as error:
        raise Failure(f"{layout.config}: authority.operators: {error}") from error


def authorised(layout: StateLayout, desk: Desk, action: str, subject: dict[str, Any], now: int) -> None:
    """Passes an action that enough operators have approved, or that needs none; its approval is used up.

    Raises:
        TheAnswerIsNo: it was not approved.
    """
    try:
        use(desk, configured(layout), Action(action), subject, now)
    except NotApproved as error:
        raise TheAnswerIsNo(error.reason, error.hint) from error


def approved(
    layout: StateLayout, book: LogBook, origin: str, add: Sequence[VerifierKey], withdraw: Sequence[str]
) -> None:
    """Passes a change of a known log's keys that enough operators have approved, or that needs none.

    Raises:
        TheAnswerIsNo: it was not approved.
    """
    before = book.vkeys(origin)
    if before is None:
        return
    after = {*before, *map(str, add)} - set(withdraw)
    if after != set(before):
        with Desk(layout.database) as desk:
            authorised(layout, desk, Action.LOG_KEYS, keys_subject(origin, after), int(time.time()))
