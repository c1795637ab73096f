"""`witness bundle …`: proof bundles made, and written in other formats."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

import click

from witness.bundles import MalformedBundle
from witness.bundles.formats import MAX_BUNDLE_SIZE
from witness.cli.errors import TheAnswerIsNo, WrongUsage, say_warning
from witness.cli.logs import json_option
from witness.cli.trusting import (
    STDIN,
    Asked,
    duration,
    leaf_hash_of,
    log_options,
    read_asked,
    read_file,
    read_trust,
    trust_options,
)

TARGETS: Final = ("tlog-proof", "spicy", "sigsum-proof", "sumdb-lookup", "checkpoint")
"""`witness.reading.converting.TARGETS`, without loading it for the help."""

_MAX_EXTRA: Final = 1 << 20


@click.group()
def bundle() -> None:
    """Make proof bundles, and convert them."""


@bundle.command()
@log_options
@click.option("--index", type=click.IntRange(min=0), metavar="N", help="The entry's index.")
@click.option("--entry", "entry_file", metavar="FILE", help="The entry, found by its content.")
@click.option("--leaf-hash", metavar="HEX", help="The same by its leaf hash.")
@click.option(
    "--search",
    type=click.IntRange(min=0),
    default=1 << 16,
    show_default=True,
    metavar="N",
    help="How many of the newest entries to look through, where the log tells no index.",
)
@click.option("--extra", "extra_file", metavar="FILE", help="What to put on the proof's extra line.")
@click.option("--no-submit", is_flag=True, help="Ask witnesses for what they have, not to cosign.")
@click.option("--wait", metavar="DURATION", default="0", help="How long to wait for the policy to hold.")
@click.option("--save-entry", metavar="FILE", help="Write the entry itself, as the log serves it.")
@click.option("-o", "--output", metavar="FILE", default=STDIN, help="Where the proof goes; - is stdout.")
@json_option
def make(
    *,
    index: int | None,
    entry_file: str | None,
    leaf_hash: str | None,
    search: int,
    extra_file: str | None,
    no_submit: bool,
    wait: str,
    save_entry: str | None,
    output: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Make a tlog-proof for an entry of a log.

    The entry is named by --index, --entry or --leaf-hash. Cosignatures are taken from the log's checkpoint,
    from distributors, and from witnesses, until the policy holds. The proof is verified as witness verify
    would, and only then written, whole or not at all.
    """
    if as_json and output == STDIN:
        raise WrongUsage("--json and the proof cannot both go to standard output", "give -o FILE")
    from witness.reading.making import ROUND, Wanted

    entry = read_file(entry_file, MAX_BUNDLE_SIZE) if entry_file is not None else None
    extra = read_file(extra_file, _MAX_EXTRA) if extra_file is not None else None
    try:
        wanted = Wanted(index, entry, leaf_hash_of(leaf_hash) if leaf_hash else None, extra, search)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    rounds = 1 + math.ceil(duration("--wait", wait) / ROUND)
    facts = asyncio.run(_make(read_asked(**asked), wanted, rounds, save_entry, output, submit=not no_submit))
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    elif output != STDIN:
        click.echo(f"{output}: entry {facts['index']} of {facts['size']}, verified: {facts['witnesses']}")


async def _make(
    asked: Asked, wanted: Any, rounds: int, save_entry: str | None, output: str, *, submit: bool
) -> dict[str, Any]:
    from witness.cli.reading import answers, world
    from witness.reading.heads import Forked, Trust
    from witness.reading.making import Maker, read_entry
    from witness.reading.place import write_durably

    with answers():
        async with world(asked, "bundle make", submit=submit) as opened:
            try:
                made = await Maker(opened.reader, Trust(asked.options), opened.sources, wanted).make(rounds)
            except Forked as fork:
                raise Forked(f"{fork.reason}; {_kept(fork, output)}", fork.evidence) from fork
            entry = await read_entry(opened.reader, made) if save_entry is not None else None
    for line in made.told:
        say_warning(line)
    if entry is not None and save_entry is not None:
        write_durably(Path(save_entry), entry)
    if output == STDIN:
        sys.stdout.buffer.write(made.proof)
        sys.stdout.buffer.flush()
    else:
        write_durably(Path(output), made.proof)
    seen = [check.detail for check in made.report.checks if check.name.startswith("witness")]
    return {
        "file": output,
        "index": made.index,
        "leaf_hash": made.leaf_hash.hex(),
        "size": made.size,
        "witnesses": "; ".join(seen) or "no witness was asked for",
    }


def _kept(fork: Any, output: str) -> str:
    """Keeps the evidence beside where the proof would be; a phrase that says where."""
    from witness.bundles.evidence import format_evidence
    from witness.reading.place import write_durably

    path = Path("evidence.json" if output == STDIN else f"{output}.evidence.json")
    write_durably(path, format_evidence(fork.evidence))
    return f"the evidence is in {path}"


@bundle.command()
@click.argument("file")
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="The format to write.")
@trust_options
@click.option("--entry", "entry_file", metavar="FILE", help="The log's leaf, where the bundle has it not.")
@click.option("--tiles", "folder", metavar="DIR", help="The tiles of a checksum database, under its paths.")
@click.option("--lossy", is_flag=True, help="Write it even if something is lost, and say what.")
@click.option("-o", "--output", metavar="FILE", default=STDIN, help="Where it goes; - is stdout.")
def convert(
    file: str,
    target: str,
    entry_file: str | None,
    folder: str | None,
    output: str,
    *,
    lossy: bool,
    **trust: Any,
) -> None:
    """Write a proof bundle in another format, if nothing is lost.

    What is written is converted back and compared: a difference is told, and nothing is written without
    --lossy. Keys are only needed where one format names them and the other has their hashes (Sigsum).
    Nothing is verified: use witness verify.
    """
    from witness.reading.converting import CannotConvert, Lossy, Means, convert, needed_tiles
    from witness.reading.place import write_durably

    data = read_file(file, MAX_BUNDLE_SIZE)
    entry = read_file(entry_file, MAX_BUNDLE_SIZE) if entry_file is not None else None
    artifacts = _tiles(Path(folder), needed_tiles(data)) if folder is not None else {}
    try:
        result = convert(data, target, Means(read_trust(**trust), entry, artifacts))
    except MalformedBundle as error:
        raise TheAnswerIsNo(f"{file}: {error}") from error
    except CannotConvert as error:
        raise TheAnswerIsNo(f"{file}: {error.reason}") from error
    except Lossy as error:
        if not lossy:
            reason = f"{file}: as {target} it would lose {'; '.join(error.lost)}"
            raise TheAnswerIsNo(reason, "--lossy writes it all the same") from error
        for lost in error.lost:
            say_warning(f"lost: {lost}")
        result = error.result
    if output == STDIN:
        sys.stdout.buffer.write(result)
        sys.stdout.buffer.flush()
    else:
        write_durably(Path(output), result)


def _tiles(folder: Path, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Those that the folder has; a full one where there is no partial one."""
    found: dict[str, bytes] = {}
    for path in paths:
        for each in (path, path.partition(".p/")[0]):
            if (folder / each).is_file():
                found[each] = read_file(str(folder / each), 1 << 16)
                break
    return found
