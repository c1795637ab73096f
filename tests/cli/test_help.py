"""The contract with users: which commands there are, and that each explains itself."""

import click
import pytest

import witness as package
from tests.cli.command import witness
from witness.cli.main import main


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


ALL = commands(main)


def test_the_commands_are_those_of_the_contract():
    assert {" ".join(path) for path, _ in ALL} == {
        "init",
        "run",
        "logs",
        "logs add",
        "logs import",
        "logs list",
        "logs show",
        "logs disable",
        "logs enable",
        "logs keys",
        "lists",
        "lists preview",
        "lists pull",
        "lists status",
        "feed",
        "checkpoint",
        "keys",
        "keys list",
        "keys show",
        "keys unlock",
        "keys register",
        "keys test",
        "keys attest",
        "keys import",
        "keys rotate",
        "keys statement",
        "keys retire",
        "keys serve",
        "keys counter",
        "status",
        "probe",
        "recover",
        "audit",
        "audit verify",
        "audit head",
        "audit show",
        "audit export",
        "audit cosignatures",
        "evidence",
        "evidence list",
        "evidence export",
        "approvals",
        "approvals propose",
        "approvals list",
        "approvals statement",
        "approvals approve",
        "approvals deny",
        "backup",
        "restore",
        "bundle",
        "bundle make",
        "bundle convert",
        "monitor",
        "verify",
    }


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_and_option_has_help(path, command):
    outcome = witness(*path, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_the_options_of_the_contract_are_there():
    options = {
        " ".join(path): {name for parameter in command.params for name in parameter.opts}
        for path, command in ALL
    }
    assert options["init"] >= {"--name", "--logs"}
    assert options["run"] >= {"--listen"}
    assert options["logs add"] >= {"--origin", "--feeder", "--url", "--interval", "--qpd", "--contact"}
    assert "--json" in options["logs list"] & options["logs show"] & options["keys list"] & options["status"]


def test_version():
    assert witness("--version").out == f"witness {package.__version__}\n"


@pytest.mark.parametrize(
    "args", [("nonsense",), ("logs", "nonsense"), ("logs", "add"), ("run", "--nonsense")]
)
def test_wrong_usage_is_one_error_line_a_hint_and_code_2(args):
    outcome = witness(*args)
    assert outcome.code == 2
    outcome.error()
    assert "--help shows how it is called" in outcome.err


@pytest.mark.parametrize("args", [(), ("logs",), ("keys",)])
def test_a_group_alone_shows_its_help(args):
    outcome = witness(*args)
    assert outcome.code == 2
    assert "Commands:" in outcome.err
