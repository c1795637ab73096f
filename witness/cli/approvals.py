"""`witness approvals …`: dangerous actions, decided by k of n operators with their SSH keys."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from witness.cli.authority import configured
from witness.cli.errors import Failure, TheAnswerIsNo, WrongUsage
from witness.cli.logs import json_option
from witness.cli.output import when
from witness.cli.state import existing, pass_layout
from witness.core.continuity import authority as deciding
from witness.core.continuity.authority import Action, NotApproved, Proposal
from witness.core.continuity.sshsig import NAMESPACE
from witness.core.layout import StateLayout
from witness.core.store.desk import Desk


@click.group()
def approvals() -> None:
    """Propose, list, approve and deny what needs several operators (authority in witness.yaml)."""


@approvals.command()
@click.argument("action", type=click.Choice([action.value for action in Action]))
@click.option("--subject", default="{}", metavar="JSON", help="What it is about, where the action has that.")
@click.option("--hours", default=24, type=click.IntRange(1, 720), show_default=True, help="Until it expires.")
@pass_layout
def propose(layout: StateLayout, action: str, subject: str, hours: int) -> None:
    """Propose an action; prints the proposal's name."""
    try:
        about = json.loads(subject)
    except ValueError as error:
        raise WrongUsage(f"--subject is not JSON: {error}") from error
    with Desk(existing(layout).database) as desk:
        name, identity = desk.connection.execute("SELECT name, identity FROM identity").fetchone()
        made = deciding.propose(
            desk, name, identity, Action(action), about, now=int(time.time()), hours=hours
        )  # fmt: skip
    click.echo(made.number)


@approvals.command(name="list")
@json_option
@pass_layout
def list_(layout: StateLayout, *, as_json: bool) -> None:
    """List the proposals, the latest first."""
    authority = configured(existing(layout))
    now = int(time.time())
    with Desk(layout.database) as desk:
        found = deciding.proposals(desk, authority)
    if as_json:
        click.echo(json.dumps([_facts(each, now) for each in found], ensure_ascii=False, indent=1))
        return
    for each in found:
        votes = f"{len(each.approvals)} of {authority.needed} approve, {len(each.denials)} deny"
        click.echo(
            f"{each.number} {each.action} {each.subject} {_state(each, now)}: {votes},"
            f" until {when(each.expires)}"
        )


@approvals.command()
@click.argument("proposal")
@click.option("--deny", is_flag=True, help="The statement of a denial.")
@pass_layout
def statement(layout: StateLayout, proposal: str, deny: bool) -> None:  # noqa: FBT001 - click's
    """Print the statement that an operator signs, for `ssh-keygen -Y sign` on another machine."""
    with Desk(existing(layout).database) as desk:
        found = _find(layout, desk, proposal)
    sys.stdout.buffer.write(deciding.to_sign(found, approve=not deny))
    sys.stdout.flush()


def _vote(
    layout: StateLayout, proposal: str, key: Path | None, signature: Path | None, *, approve: bool
) -> None:
    if (key is None) == (signature is None):
        raise WrongUsage("give either --key or --signature")
    with Desk(existing(layout).database) as desk:
        found = _find(layout, desk, proposal)
        message = deciding.to_sign(found, approve=approve)
        if signature is not None:
            armored = signature.read_bytes()
        else:
            assert key is not None
            armored = _signed(key, message)
        try:
            operator = deciding.vote(
                desk, configured(layout), found, armored, approve=approve, now=int(time.time())
            )  # fmt: skip
        except NotApproved as error:
            raise TheAnswerIsNo(error.reason, error.hint) from error
    click.echo(f"{operator.name} {'approves' if approve else 'denies'} {found.number}")


_key_option = click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="Sign with this SSH key (or its agent's)."
)
_signature_option = click.option(
    "--signature", type=click.Path(path_type=Path), metavar="FILE", help="A signature made elsewhere."
)


@approvals.command()
@click.argument("proposal")
@_key_option
@_signature_option
@pass_layout
def approve(layout: StateLayout, proposal: str, key: Path | None, signature: Path | None) -> None:
    """Approve a proposal, by an operator's SSH key."""
    _vote(layout, proposal, key, signature, approve=True)


@approvals.command()
@click.argument("proposal")
@_key_option
@_signature_option
@pass_layout
def deny(layout: StateLayout, proposal: str, key: Path | None, signature: Path | None) -> None:
    """Deny a proposal, by an operator's SSH key."""
    _vote(layout, proposal, key, signature, approve=False)


def _signed(key: Path, message: bytes) -> bytes:
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key)]
    try:
        done = subprocess.run(command, input=message, capture_output=True, check=False)  # noqa: S603 - no shell
    except FileNotFoundError as error:
        raise Failure("ssh-keygen is not installed", "sign elsewhere, and give the signature") from error
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip() or "no reason given"
        raise Failure(f"{shlex.join(command)}: {reason}")
    return done.stdout


def _find(layout: StateLayout, desk: Desk, number: str) -> Proposal:
    for each in deciding.proposals(desk, configured(layout)):
        if each.number == number:
            return each
    raise TheAnswerIsNo(f"there is no proposal {number!r}", "witness approvals list shows them")


def _state(proposal: Proposal, now: int) -> str:
    if proposal.ended is not None:
        return proposal.ended
    return "expired" if now >= proposal.expires else "open"


def _facts(proposal: Proposal, now: int) -> dict[str, Any]:
    return {
        "proposal": proposal.number,
        "action": proposal.action,
        "subject": json.loads(proposal.subject),
        "state": _state(proposal, now),
        "made": proposal.made,
        "expires": proposal.expires,
        "approvals": list(proposal.approvals),
        "denials": list(proposal.denials),
    }
