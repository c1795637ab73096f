"""Which state folder a command works on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from witness.cli.errors import Failure
from witness.core.layout import StateLayout

if TYPE_CHECKING:
    from witness.cli.config import Config

MAX_SOCKET_PATH: Final = 107
"""Bytes of a Unix socket's path on Linux, without the final zero byte (unix(7))."""


def resolve(flag: Path | None, environ: Mapping[str, str], home: Path) -> Path:
    """The state folder: `--state`, else WITNESS_STATE, else systemd's STATE_DIRECTORY, else the XDG one.

    Args:
        flag: the value of `--state`, if given.
        environ: the environment.
        home: the user's home folder.

    Returns:
        An absolute path; nothing need stand there.
    """
    if flag is not None:
        return flag.absolute()
    if named := environ.get("WITNESS_STATE"):
        return Path(named).absolute()
    # systemd.exec: several folders of one unit are separated by colons; ours is the first.
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given).absolute()
    # XDG Base Directory Specification: relative paths are to be ignored.
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    return (xdg if xdg.is_absolute() else home / ".local" / "state") / "witness"


def is_present(layout: StateLayout) -> bool:
    """Whether a witness's state stands in the folder, or a part of one."""
    return any(path.exists() for path in (layout.config, layout.database, layout.keys))


def check_path(layout: StateLayout) -> None:
    """Makes sure that sockets can be made in the folder.

    Raises:
        Failure: its path is too long for them.
    """
    size = len(os.fsencode(layout.front_socket))
    if size > MAX_SOCKET_PATH:
        raise Failure(
            f"the path of the state folder is too long by {size - MAX_SOCKET_PATH} bytes for a socket in it",
            f"Unix sockets have paths of at most {MAX_SOCKET_PATH} bytes: choose a shorter --state",
        )


def existing(layout: StateLayout) -> StateLayout:
    """The layout, once it is sure that a state stands there.

    Raises:
        Failure: there is none, or it may not be read.
    """
    if not is_present(layout):
        raise Failure(
            f"there is no witness state in {layout.root}",
            "witness init --name NAME makes one; --state DIR or WITNESS_STATE names another folder",
        )
    return layout


def read_config(layout: StateLayout) -> Config:
    """The state's `witness.yaml`.

    Raises:
        Failure: it is missing, or not what it must be.
    """
    from witness.cli.config import ConfigError, load

    try:
        return load(layout.config)
    except FileNotFoundError as error:
        raise Failure(
            f"{layout.config} is missing", "restore it; it needs no more than a line name: NAME"
        ) from error
    except ConfigError as error:
        raise Failure(str(error), "config/witness.yaml explains every key") from error


pass_layout = click.make_pass_decorator(StateLayout)
"""Hands a command the layout that the top group resolved."""
