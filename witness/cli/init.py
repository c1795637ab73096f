"""`witness init`: makes a witness."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from witness.cli.config import ALGORITHMS, DEFAULT_LISTEN, wrong_name
from witness.cli.creation import NewWitness, create, refuse_existing
from witness.cli.errors import Failure, WrongUsage, say_warning
from witness.cli.key_devices import DeviceKeys, Wishes, marked, parse_options, parse_secret, provide, warn_of
from witness.cli.log_lists import BadList, ListedLog, parse
from witness.cli.output import tell_import, tell_skipped
from witness.cli.shipped import shipped
from witness.cli.state import pass_layout
from witness.core.keystore.backend import BACKENDS
from witness.core.keystore.base import Algorithm
from witness.core.keystore.derivation import OUR_SCHEME, SCHEMES
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import DeviceEntry
from witness.core.layout import StateLayout
from witness.core.process import read_passphrase
from witness.core.settings import CoreSettings
from witness.tlog.note import MalformedSignerKey, parse_signer_key


@click.command()
@click.option("--name", help="The name in its vkeys: a host name of yours and a path.")
@click.option("--derived-name", is_flag=True, help="Take a readable name that the device derives, instead.")
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
@click.option(
    "--backend",
    type=click.Choice(("softkey", *BACKENDS)),
    default="softkey",
    show_default=True,
    help="Where the keys are: a file, or a device (docs/custody.md).",
)
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the backend is to know, repeatable: tcti=device:/dev/tpmrm0, or socket=PATH.",
)
@click.option(
    "--secret",
    metavar="env:NAME|file:PATH|credential:NAME",
    help="Where the device's PIN or authorisation value comes from; else it is the passphrase.",
)
@click.option(
    "--soft",
    multiple=True,
    type=click.Choice(ALGORITHMS),
    help="A key to keep in the key file, although there is a device; repeatable.",
)
@click.option("--dev", is_flag=True, help="An identity for development, marked DEV: in name and derivation.")
@click.option("--scheme", type=click.Choice(tuple(SCHEMES)), default=OUR_SCHEME, help="How keys are derived.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
@pass_layout
def init(
    layout: StateLayout,
    /,
    *,
    name: str | None,
    derived_name: bool,
    logs: str,
    algorithms: tuple[str, ...],
    import_key: Path | None,
    passphrase_file: Path | None,
    backend: str,
    options: tuple[str, ...],
    secret: str | None,
    soft: tuple[str, ...],
    dev: bool,
    scheme: str,
    as_json: bool,
) -> None:
    """Make a witness: its state folder with configuration, database and keys.

    Prints the vkeys, one a line. Refuses a folder that holds a state already. Asks nothing: the key file is
    sealed with the passphrase in --passphrase-file or WITNESS_PASSPHRASE, and not sealed without one.

    With --backend the keys are in a device: made there, derived by it, or found there. No key that a device
    has is ever overwritten.
    """
    name = _name(name, derived=derived_name, dev=dev)
    chosen = tuple(dict.fromkeys(algorithms)) or ALGORITHMS
    passphrase = _passphrase(layout, passphrase_file)
    source, listed = _logs(logs)
    held: DeviceKeys | None = None
    if backend != "softkey":
        refuse_existing(layout)  # before anything is made in the device
        settings, wanted = parse_options(backend, options)
        wishes = Wishes(
            backend=backend,
            settings=settings,
            options=wanted,
            secret=parse_secret(secret),
            algorithms=tuple(Algorithm(algorithm) for algorithm in chosen if algorithm not in soft),
            name=name,
            dev=dev,
            scheme=scheme,
            counter=True,
        )
        held = _in_device(wishes, passphrase)
        name = held.name
    elif options or secret or soft or derived_name:
        raise WrongUsage("--option, --secret, --soft and --derived-name are for a device: name its --backend")
    assert name is not None
    seed = _imported_seed(import_key, name, chosen) if import_key else None
    new = NewWitness(
        name=name,
        algorithms=chosen,
        passphrase=passphrase,
        ed25519_seed=seed,
        config=config_text(name, passphrase_file),
        logs=listed,
        source=source,
        now=int(time.time()),
        device_keys=held,
    )
    created = create(layout, new)
    in_file = held is None or any(algorithm in soft for algorithm in chosen)
    if passphrase is None and in_file:
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
            "backend": backend,
            "sealed": passphrase is not None if in_file else None,
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


def _name(name: str | None, *, derived: bool, dev: bool) -> str | None:
    """The witness's name as its keys will have it; None for one that is still to be derived."""
    if (name is None) != derived:
        raise WrongUsage("one of --name NAME and --derived-name is needed")
    if name is None:
        return None
    name = marked(name, dev=dev)
    wrong = wrong_name(name)
    if wrong:
        raise WrongUsage(f"--name {name!r}: {wrong}")
    if "://" in name:
        say_warning(f"the name {name!r} looks like a URL; by convention a name has no https:// before it")
    return name


def _in_device(wishes: Wishes, passphrase: str | None) -> DeviceKeys:
    if not wishes.algorithms:
        raise WrongUsage("no key is left for the device: --soft takes them all")
    entry = DeviceEntry(wishes.backend, wishes.backend, secret=wishes.secret)
    held = provide(wishes, secret_of(entry, passphrase))
    warn_of(held)
    return held


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
