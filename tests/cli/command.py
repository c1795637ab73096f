"""The command line, called in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from witness.cli.main import main

NAME = "witness.example/test"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> str:
        """The one `error:` line; everything else on stderr must be hints and warnings."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert all(line.startswith(("error: ", "hint: ", "warning: ")) for line in lines), self.err
        return errors[0]


def witness(
    *args: str | Path, state: Path | None = None, env: dict[str, str | None] | None = None
) -> Outcome:
    """Calls `witness …`; a bug's exception passes through."""
    line = ["--state", str(state)] if state is not None else []
    clean = {"WITNESS_PASSPHRASE": None, "WITNESS_STATE": None, "STATE_DIRECTORY": None}
    result = CliRunner().invoke(main, [*line, *map(str, args)], env=clean | (env or {}), prog_name="witness")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def make(state: Path, *args: str | Path, env: dict[str, str | None] | None = None) -> Path:
    """A new state, with an Ed25519 key alone unless the arguments say otherwise."""
    outcome = witness("init", "--name", NAME, *(args or ("--algorithm", "ed25519")), state=state, env=env)
    assert outcome.code == 0, outcome.err
    return state
