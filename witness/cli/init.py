"""`witness init`: makes a witness."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from witness.cli.config import ALGORITHMS, DEFAULT_LISTEN, wrong_name
from witness.cli.creation import NewWitness, create
from witness.cli.errors import Failure, WrongUsage, say_warning
from witness.cli.log_lists import BadList, ListedLog, parse
from witness.cli.output import tell_import, tell_skipped
from witness.cli.shipped import shipped
from witness.cli.state import pass_layout
from witness.core.layout import StateLayout
from witness.core.process import read_passphrase
from witness.core.settings import CoreSettings
from witness.tlog.note import MalformedSignerKey, parse_signer_key


@click.command()
@click.option("--name", required=True, help="The name in its vkeys: a host name of yours and a path.")
@click.option(
    "--logs",
    default="none",
    show_default=True,
    metavar="none|public|FILE",
    help="Logs to begin with: the shipped public ones, or a list as for `logs import`.",
)
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    type=click.Choice(ALGORITHMS),
    help="A key to make, repeatable; without it both, under one name.",
)
@click.option(
    "--import-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the Ed25519 key from a Go note signer key file (PRIVATE+KEY+NAME+…) instead of a fresh one.",
)
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Seal the key file with the passphrase in FILE; without it, with WITNESS_PASSPHRASE if set.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
@pass_layout
def init(
    layout: StateLayout,
    /,
    *,
    name: str,
    logs: str,
    algorithms: tuple[str, ...],
    import_key: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a witness: its state folder with configuration, database and keys.

    Prints the vkeys, one a line. Refuses a folder that holds a state already. Asks nothing: the key file is
    sealed with the passphrase in --passphrase-file or WITNESS_PASSPHRASE, and not sealed without one.
    """
    wrong = wrong_name(name)
    if wrong:
        raise WrongUsage(f"--name {name!r}: {wrong}")
    if "://" in name:
        say_warning(f"the name {name!r} looks like a URL; by convention a name has no https:// before it")
    chosen = tuple(dict.fromkeys(algorithms)) or ALGORITHMS
    seed = _imported_seed(import_key, name, chosen) if import_key else None
    passphrase = _passphrase(layout, passphrase_file)
    source, listed = _logs(logs)
    new = NewWitness(
        name=name,
        algorithms=chosen,
        passphrase=passphrase,
        ed25519_seed=seed,
        config=config_text(name, passphrase_file),
        logs=listed,
        source=source,
        now=int(time.time()),
    )
    created = create(layout, new)
    if passphrase is None:
        say_warning(
            "the key file is not sealed: whoever can read it can sign as this witness"
            " (WITNESS_PASSPHRASE or --passphrase-file seals it)"
        )
    tell_import(created.imported)
    if as_json:
        facts = {
            "name": name,
            "state": str(layout.root),
            "vkeys": [str(vkey) for vkey in created.vkeys],
            "sealed": passphrase is not None,
            "logs": len(created.imported.added),
        }
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    for vkey in created.vkeys:
        click.echo(str(vkey))
    count = len(created.imported.added)
    click.echo(
        f"made witness {name} with {count} {'log' if count == 1 else 'logs'} in {layout.root}", err=True
    )


def _passphrase(layout: StateLayout, file: Path | None) -> str | None:
    """The passphrase, read as the core will read it again; None for a key file that is not sealed."""
    settings = CoreSettings(str(layout.root), passphrase_file=str(file) if file else None)
    try:
        passphrase = read_passphrase(settings)
    except UnicodeDecodeError as error:
        raise Failure(f"the passphrase file {file} is not UTF-8 text") from error
    if passphrase == "":
        raise Failure(
            f"the passphrase in {file or settings.passphrase_env} is empty",
            "leave it out for a key file that is not sealed",
        )
    return passphrase


def config_text(name: str, passphrase_file: Path | None) -> str:
    """The short witness.yaml of a new state."""
    lines = [
        "# The configuration of this witness. Every key there is, explained:",
        f"# {shipped('witness.yaml')}",
        "",
        f"name: {json.dumps(name, ensure_ascii=False)}",  # a JSON string is a YAML string
        f"listen: {DEFAULT_LISTEN}",
    ]
    if passphrase_file is not None:
        path = json.dumps(str(passphrase_file.absolute()), ensure_ascii=False)
        lines += ["keys:", f"  passphrase_file: {path}"]
    return "\n".join(lines) + "\n"


def _logs(choice: str) -> tuple[str, list[ListedLog]]:
    """The source and the entries of what `--logs` names."""
    if choice == "none":
        return "", []
    file = shipped("logs.yaml") if choice == "public" else Path(choice)
    try:
        logs, skipped = parse(file.read_bytes())
    except BadList as error:
        raise Failure(f"{file}: {error.reason}") from error
    tell_skipped(skipped)
    return ("public" if choice == "public" else f"list {file.name}"), logs


def _imported_seed(file: Path, name: str, algorithms: tuple[str, ...]) -> bytes:
    if "ed25519" not in algorithms:
        raise WrongUsage("--import-key brings an Ed25519 key, and --algorithm leaves ed25519 out")
    try:
        key = parse_signer_key(file.read_text(encoding="utf-8").strip())
    except (MalformedSignerKey, UnicodeDecodeError) as error:
        raise Failure(f"{file} holds no Go note signer key: {error}") from error
    if key.name != name:
        raise Failure(
            f"the key in {file} has the name {key.name!r}, not {name!r}",
            "a key keeps its name: give that to --name",
        )
    return key.seed
