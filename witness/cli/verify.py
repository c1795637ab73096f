"""`witness verify FILE…`: was this thing in the log, as the witnesses saw it?

Here are the files, the clock and the terminal; the judgement is `witness.bundles`'.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from witness.bundles import (
    Check,
    Learned,
    MalformedBundle,
    Options,
    RawKey,
    Report,
    merge_trust,
    parse_log_key,
    parse_manifest_key,
    parse_witness_key,
    trust_in,
)
from witness.bundles import verify as verify_bundle
from witness.bundles.formats import MAX_BUNDLE_SIZE
from witness.bundles.sumdb import needed_tiles
from witness.cli.durations import seconds
from witness.cli.errors import NO, WORLD, Failure, WrongUsage, one_line, say_error
from witness.cli.trust_store import TrustStore
from witness.cli.trusting import read_file, read_key, read_policy
from witness.tlog.note import MalformedVKey, VerifierKey
from witness.tlog.policy import Dialect

STDIN: Final = "-"
TILES: Final = "tiles"
"""The artifact that is a folder: the tiles of a checksum database, under the paths it serves them at."""

MAX_KEY_FILE: Final = 64 << 10

MAX_ARTIFACT_SIZE: Final = 1 << 30
"""Bytes of an artifact; each is read into memory."""


_LEAF_HASH: Final = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Question:
    """What every file is judged by.

    Attributes:
        options: the same for all, but for what depends on the file.
        tiles: where tiles lie; None where none were given.
        store: what is trusted, and grows with every file that verifies; None without one.
    """

    options: Options
    tiles: Path | None
    store: TrustStore | None


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option(
    "--policy", "policy_file", metavar="FILE", help="A trust policy: logs, witnesses and the quorum."
)
@click.option(
    "--dialect",
    type=click.Choice([each.value for each in Dialect]),
    default=Dialect.C2SP.value,
    show_default=True,
    help="How the policy is written.",
)
@click.option("--log", "logs", multiple=True, metavar="VKEY", help="A log's key.")
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="VKEY",
    help="The key of a witness that must have cosigned.",
)
@click.option("--origin", metavar="ORIGIN", help="The log's origin; --log may then have another name.")
@click.option("--entry", "entry_file", metavar="FILE", help="The entry that must be in the log.")
@click.option("--leaf-hash", metavar="HEX", help="The same, by its leaf hash.")
@click.option(
    "--artifact",
    "artifacts",
    multiple=True,
    metavar="NAME=FILE",
    help="What the bundle has the hash of: a release file, firmware, a tile, a look-up.",
)
@click.option(
    "--manifest-key",
    "manifest_keys",
    multiple=True,
    metavar="VKEY|@FILE",
    help="A key that must have signed the entry, or @ and the file that it stands in.",
)
@click.option("--trusted-root", metavar="FILE", help="A Sigstore trusted root.")
@click.option("--previous", metavar="FILE", help="A checkpoint or bundle that was trusted before.")
@click.option(
    "--trust-store",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="A folder that remembers what was trusted; updated when a file verifies.",
)
@click.option(
    "--max-age", metavar="DURATION", help="Count cosignatures of this age at most: 90s, 15m, 24h, 7d."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a file.")
@click.pass_context
def verify(  # noqa: PLR0917 - click's calling convention; the names are the options'
    context: click.Context,
    /,
    files: tuple[str, ...],
    policy_file: str | None,
    dialect: str,
    logs: tuple[str, ...],
    witnesses: tuple[str, ...],
    origin: str | None,
    entry_file: str | None,
    leaf_hash: str | None,
    artifacts: tuple[str, ...],
    manifest_keys: tuple[str, ...],
    trusted_root: str | None,
    previous: str | None,
    trust_store: Path | None,
    max_age: str | None,
    *,
    as_json: bool,
) -> None:
    """Verify proof bundles offline: was this in the log, as the witnesses saw it?

    Knows tlog-proof, signed checkpoints, Armory Drive and Armored Witness bundles, device attestations,
    succession statements, Sigsum proofs, Sigstore bundles, Go checksum database look-ups and go.sum, evidence
    of a log's misbehaviour, and heads of a witness's record, by their content. A FILE of - is standard input.
    Exits with 0 if every file verifies, 1 if one does not, 2 when called wrongly, 3 if one cannot be read.
    """
    if previous is not None and trust_store is not None:
        raise WrongUsage("--previous and --trust-store exclude each other")
    read_twice = [policy_file, entry_file, trusted_root, previous, *files].count(STDIN) > 1
    if read_twice:
        raise WrongUsage("standard input can be read once only")
    known = Dialect(dialect)
    contents, tiles = _artifacts(artifacts)
    policy = read_policy(policy_file, known)
    age = seconds("--max-age", max_age) if max_age is not None else None
    if age is not None and policy is None and not witnesses:
        raise WrongUsage("--max-age says nothing without witnesses", "give --policy or --witness")
    options = Options(
        policy=policy,
        logs=tuple(read_key("--log", parse_log_key, text) for text in logs),
        witnesses=tuple(
            read_key("--witness", lambda each: parse_witness_key(each, known), text) for text in witnesses
        ),
        origin=origin,
        entry=read_file(entry_file, MAX_BUNDLE_SIZE) if entry_file is not None else None,
        leaf_hash=_leaf_hash(leaf_hash),
        artifacts=contents,
        manifest_keys=tuple(read_key("--manifest-key", _manifest_key, text) for text in manifest_keys),
        trusted_root=read_file(trusted_root, MAX_BUNDLE_SIZE) if trusted_root is not None else None,
        previous=_previous(previous),
        max_age=age,
        now=int(time.time()),
    )
    with _opened(trust_store) as store:
        question = Question(options, tiles, store)
        codes = [_answer(question, name, as_json=as_json) for name in files]
    context.exit(max(codes, key=(0, NO, WORLD).index))


@contextmanager
def _opened(folder: Path | None) -> Iterator[TrustStore | None]:
    """The trust store, held against other processes from before it is read until after it is written."""
    if folder is None:
        yield None
        return
    with TrustStore.open(folder) as store:
        yield store


def _answer(question: Question, name: str, *, as_json: bool) -> int:
    """Judges one file and prints the answer; the exit code that it alone would have."""
    try:
        data = read_file(name, MAX_BUNDLE_SIZE)
    except (Failure, OSError) as error:
        reason = error.reason if isinstance(error, Failure) else f"{name}: {error.strerror or error}"
        say_error(reason)
        if as_json:
            _print_json(name, Report("", (Check("read", False, reason),)))
        return WORLD
    report = _judged(question, name, data)
    if report.verified and question.store is not None:
        # Only now is it trusted; and only once it is written down is it said to be verified.
        question.store.update(merge_trust(question.store.trusted, report.learned))
    if as_json:
        _print_json(name, report)
    else:
        _print(name, report)
    return 0 if report.verified else NO


def _judged(question: Question, name: str, data: bytes) -> Report:
    options = replace(question.options, file_name=None if name == STDIN else Path(name).name)
    if question.store is not None:
        options = replace(options, previous=question.store.trusted, previous_must_match=False)
    if question.tiles is not None:
        lookups = [data, *options.artifacts.values()]
        options = replace(options, artifacts={**options.artifacts, **_tiles(question.tiles, lookups)})
    try:
        # What a library has to say about an odd certificate is not for the reader of the answer.
        with warnings.catch_warnings(action="ignore"):
            return verify_bundle(data, options)
    except MalformedBundle as error:
        return Report(error.format, (Check("format", False, error.reason),))


def _print_json(name: str, report: Report) -> None:
    facts = {
        "file": name,
        "format": report.format or "unknown",
        "verified": report.verified,
        "checks": [{"name": each.name, "ok": each.ok, "detail": each.detail} for each in report.checks],
        "unchecked": list(report.unchecked),
    }
    click.echo(json.dumps(facts))  # in ASCII: what a bundle quotes may have no other form


def _print(name: str, report: Report) -> None:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def styled(text: str, colour: str) -> str:
        return click.style(text, fg=colour) if coloured else text

    click.echo(f"{one_line(name)}: {report.format or 'unknown format'}")
    for check in report.checks:
        mark = styled("✓", "green") if check.ok else styled("✗", "red")
        click.echo(f"  {mark} {one_line(check.name)}: {one_line(check.detail)}")
    for sentence in report.unchecked:
        click.echo(f"  {styled('-', 'yellow')} not checked: {one_line(sentence)}")
    click.echo(styled("verified", "green") if report.verified else styled("NOT VERIFIED", "red"))


def _manifest_key(text: str) -> VerifierKey | RawKey:
    """A key as it stands on the command line, or in the file that @ names (a device's .pub)."""
    if not text.startswith("@"):
        return parse_manifest_key(text)
    with suppress(MalformedVKey):  # a key's name may begin so too
        return parse_manifest_key(text)
    try:
        return parse_manifest_key(read_file(text[1:], MAX_KEY_FILE).decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise WrongUsage(f"--manifest-key {text}: the file is no text") from error


def _previous(name: str | None) -> Learned | None:
    if name is None:
        return None
    try:
        return trust_in(read_file(name, MAX_BUNDLE_SIZE))
    except MalformedBundle as error:
        raise WrongUsage(f"{name}: {error}") from error


def _leaf_hash(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not _LEAF_HASH.fullmatch(text):
        raise WrongUsage("--leaf-hash: not 64 hex digits")
    return bytes.fromhex(text)


def _artifacts(pairs: Sequence[str]) -> tuple[dict[str, bytes], Path | None]:
    """Contents by name, and the folder of tiles."""
    contents: dict[str, bytes] = {}
    tiles: Path | None = None
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not name or not equals or not file:
            raise WrongUsage(f"--artifact {pair}: not of the form NAME=FILE")
        if name in contents or (name == TILES and tiles is not None):
            raise WrongUsage(f"--artifact {name}: given twice")
        if name == TILES and Path(file).is_dir():
            tiles = Path(file)
        else:
            contents[name] = read_file(file, MAX_ARTIFACT_SIZE)
    return contents, tiles


def _tiles(folder: Path, lookups: Sequence[bytes]) -> Mapping[str, bytes]:
    """Those tiles that look-ups need and the folder has; a full tile where there is no partial one."""
    found: dict[str, bytes] = {}
    for path in dict.fromkeys(path for data in lookups for path in needed_tiles(data)):
        for each in (path, path.partition(".p/")[0]):
            if (folder / each).is_file():
                found[each] = read_file(str(folder / each), MAX_BUNDLE_SIZE)
                break
    return found
