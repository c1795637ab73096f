"""Whether what stands in a state folder belongs together: what can be told before any process is started."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from witness.cli.config import Config, beside
from witness.cli.errors import Failure
from witness.cli.generations import signing
from witness.cli.state import check_path
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook

_NOT_THE_OWNER = stat.S_IRWXG | stat.S_IRWXO


def check_state(layout: StateLayout, config: Config) -> None:
    """Makes sure that configuration, keys and database are one witness's.

    Raises:
        Failure: they are not.
        StoreError, KeystoreError: one of them is missing or broken.
    """
    check_path(layout)
    with LogBook(layout.database):  # a missing or foreign database has its own words
        pass
    check_keys(layout, config)


def check_keys(layout: StateLayout, config: Config) -> None:
    """Makes sure that configuration and keys are one witness's.

    Raises:
        Failure: they are not.
        KeystoreError: the keys' public part is missing or broken.
    """
    public = signing(layout)
    if public.name != config.name:
        raise Failure(
            f"{layout.config} names the witness {config.name!r}, and its keys are {public.name!r}'s",
            f"write name: {public.name}; another name is another witness, made by witness init",
        )
    held = tuple(algorithm_of(vkey) for vkey in public.vkeys)
    wanted = config.keys.algorithms
    if wanted is not None and set(wanted) != set(held):
        raise Failure(
            f"keys.algorithms says {', '.join(wanted)}, and the key file holds {', '.join(held)}",
            "keys are made by witness init; make keys.algorithms say what the key file holds",
        )


def open_to_others(layout: StateLayout, config: Config | None) -> tuple[str, ...]:
    """Files with secrets that others than their owner may read or write, each as a line with its remedy."""
    return tuple(
        f"{path} is open to others than its owner (mode {mode:04o}): chmod go= {path}"
        for path, mode in _open_files(layout, config)
    )


def _open_files(layout: StateLayout, config: Config | None) -> Iterator[tuple[Path, int]]:
    files = [(layout.softkey, _NOT_THE_OWNER), (layout.records_key, _NOT_THE_OWNER)]
    if config is not None and config.keys.passphrase_file is not None:
        # Whoever hands it over may give it to a group (systemd does); never to everybody.
        files.append((beside(layout.config, config.keys.passphrase_file), stat.S_IRWXO))
    for path, forbidden in files:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:  # it is not there, or not for us: whoever opens it tells of that
            continue
        if mode & forbidden:
            yield path, mode
