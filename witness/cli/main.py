"""The `witness` command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

import witness
from witness.cli import state
from witness.cli.errors import Commands
from witness.core.layout import StateLayout

_COMMANDS: Final = {
    "init": "witness.cli.init",
    "run": "witness.cli.run",
    "logs": "witness.cli.log_keys",
    "lists": "witness.cli.lists",
    "feed": "witness.cli.feed",
    "checkpoint": "witness.cli.checkpoint",
    "keys": "witness.cli.keys",
    "status": "witness.cli.status",
    "probe": "witness.cli.probe",
    "recover": "witness.cli.recover",
    "audit": "witness.cli.audit",
    "evidence": "witness.cli.evidence",
    "approvals": "witness.cli.approvals",
    "backup": "witness.cli.backup",
    "restore": "witness.cli.backup",
    "verify": "witness.cli.verify",
    "bundle": "witness.cli.bundle",
    "monitor": "witness.cli.monitor",
}
"""Every command and the module that has it under the same name, in the order of the help."""


class _LazyCommands(Commands):
    """Loads a command's module when it is called: `status` need not load what `run` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """Every command's name."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, or None."""
        import importlib

        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=_LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state",
    "folder",
    # Not click's to judge: a folder that cannot be read is the world's fault, and no wrong usage.
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="The state folder; else WITNESS_STATE, STATE_DIRECTORY, or the XDG state folder.",
)
@click.version_option(witness.__version__, prog_name="witness", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, folder: Path | None) -> None:
    """A transparency-log witness: cosigns checkpoints of logs that prove to be append-only."""
    home = Path(os.environ.get("HOME") or "/")
    context.obj = StateLayout(state.resolve(folder, os.environ, home))


if __name__ == "__main__":
    main()
