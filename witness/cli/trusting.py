"""Options of commands that read logs: whom to believe, which log, and who is asked for cosignatures."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

import witness
from witness.bundles import Options, parse_log_key, parse_witness_key
from witness.cli.errors import Failure, WrongUsage
from witness.tlog.note import MalformedVKey
from witness.tlog.policy import MAX_POLICY_SIZE, Dialect, MalformedPolicy, Policy, parse_policy

STDIN: Final = "-"
KINDS: Final = ("tiles", "sumdb", "serverless")
"""`witness.reading.families.FAMILIES`, without loading it for the help."""

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options' values.

    Attributes:
        options: whom to believe.
        url: the log's prefix.
        kind: its family.
        distributors: URLs of distributors.
        witnesses: URLs of witnesses, the policy's among them.
    """

    options: Options
    url: str
    kind: str
    distributors: tuple[str, ...]
    witnesses: tuple[str, ...]


_TRUST: Final = (
    click.option("--policy", "policy_file", metavar="FILE", help="A trust policy: logs, witnesses, quorum."),
    click.option(
        "--dialect",
        type=click.Choice([each.value for each in Dialect]),
        default=Dialect.C2SP.value,
        show_default=True,
        help="How the policy is written.",
    ),
    click.option("--log", "logs", multiple=True, metavar="VKEY", help="A log's key."),
    click.option("--witness", "witnesses", multiple=True, metavar="VKEY", help="A witness's key, required."),
    click.option("--origin", metavar="ORIGIN", help="The log's origin; --log may then have another name."),
)
_LOG: Final = (
    click.option("--max-age", metavar="DURATION", help="Count cosignatures of this age at most: 15m, 24h."),
    click.option("--url", metavar="URL", help="The log's prefix; without it, that of the policy's only log."),
    click.option(
        "--kind",
        type=click.Choice(KINDS),
        default=KINDS[0],
        show_default=True,
        help="How the log is laid out.",
    ),
    click.option("--distributor", "distributors", multiple=True, metavar="URL", help="Has cosignatures."),
    click.option(
        "--witness-url",
        "witness_urls",
        multiple=True,
        metavar="URL",
        help="A witness to ask; the policy's own URLs are asked too.",
    ),
)


def trust_options(command: _Command) -> _Command:
    """Adds the options that say whom to believe; `read_trust` takes their values."""
    return _with(_TRUST, command)


def log_options(command: _Command) -> _Command:
    """Adds those and the ones that say which log, and who is asked; `read_asked` takes their values."""
    return _with((*_TRUST, *_LOG), command)


def _with(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def read_trust(
    *,
    policy_file: str | None,
    dialect: str,
    logs: tuple[str, ...],
    witnesses: tuple[str, ...],
    origin: str | None,
    max_age: str | None = None,
) -> Options:
    """Whom to believe.

    Raises:
        WrongUsage: a value is not what it must be.
        Failure, OSError: the policy cannot be read.
    """
    known = Dialect(dialect)

    return Options(
        policy=read_policy(policy_file, known),
        logs=tuple(read_key("--log", parse_log_key, text) for text in logs),
        witnesses=tuple(
            read_key("--witness", lambda key: parse_witness_key(key, known), each) for each in witnesses
        ),
        origin=origin,
        max_age=duration("--max-age", max_age) if max_age is not None else None,
        now=int(time.time()),
    )


def read_asked(
    *,
    url: str | None,
    kind: str,
    distributors: tuple[str, ...],
    witness_urls: tuple[str, ...],
    **trust: Any,
) -> Asked:
    """Whom to believe, which log, and who is asked.

    Raises:
        WrongUsage: a value is not what it must be, or no key of the log is known.
        Failure, OSError: the policy cannot be read.
    """
    from witness.cli.config import wrong_url

    options = read_trust(**trust)
    policy = options.policy
    of_logs = policy.logs if policy is not None else ()
    if not options.logs and not of_logs:
        raise WrongUsage("no log is known", "give --log VKEY, or a --policy with a log line")
    if url is None:
        urls = [log.url for log in of_logs if log.url]
        if len(urls) != 1:
            raise WrongUsage("where the log is has to be said", "give --url URL")
        url = urls[0]
    of_witnesses = policy.witnesses if policy is not None else ()
    asked = (*witness_urls, *(each.url for each in of_witnesses if each.url))
    for each in (url, *distributors, *asked):
        wrong = wrong_url(each)
        if wrong is not None:
            raise WrongUsage(f"{each}: {wrong}")
    return Asked(options, url, kind, distributors, tuple(dict.fromkeys(asked)))


def duration(option: str, text: str) -> int:
    """Seconds of a text such as 90s, 15m, 24h, 7d; raises WrongUsage."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise WrongUsage(f"{option} {text}: not a duration", "a number with s, m, h, d or w: 90s, 15m, 24h")
    return int(match[1]) * _SECONDS[match[2]]


def leaf_hash_of(text: str) -> bytes:
    """The 32 bytes of `--leaf-hash`; raises WrongUsage."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise WrongUsage("--leaf-hash: not 64 hex digits")
    return bytes.fromhex(text)


def read_file(name: str, limit: int) -> bytes:
    """A file, or standard input for `-`.

    Raises:
        Failure: it is longer than `limit` bytes.
        OSError: it cannot be read.
    """
    if name == STDIN:
        data = sys.stdin.buffer.read(limit + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(limit + 1)
    if len(data) > limit:
        raise Failure(f"{name}: more than {limit} bytes")
    return data


def read_policy(name: str | None, dialect: Dialect) -> Policy | None:
    """The policy in a file, or None for no file.

    Raises:
        WrongUsage: it is none of the dialect.
        Failure: it is too long.
        OSError: it cannot be read.
    """
    if name is None:
        return None
    try:
        return parse_policy(read_file(name, MAX_POLICY_SIZE), dialect)
    except MalformedPolicy as error:
        raise WrongUsage(f"{name}: {error}", "the policy may be of another --dialect") from error


def read_key(option: str, parse: Callable[[str], _Key], text: str) -> _Key:
    """The key that an option gives.

    Raises:
        WrongUsage: it is none.
    """
    try:
        return parse(text)
    except MalformedVKey as error:
        raise WrongUsage(f"{option} {text}: {error.reason}") from error


def user_agent(what: str) -> str:
    """Who asks."""
    return f"tlog-witness/{witness.__version__} ({what})"
