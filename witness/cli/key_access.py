"""Who may use the keys at rest: whoever has the passphrase, and while no core uses them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from witness.cli.config import beside
from witness.cli.errors import Failure
from witness.cli.state import read_config
from witness.core.layout import StateLayout
from witness.core.process import AlreadyRunning, folder_lock, read_passphrase
from witness.core.settings import CoreSettings


def own_passphrase(layout: StateLayout) -> str | None:
    """The witness's passphrase, from wherever its configuration says."""
    keys = read_config(layout).keys
    file = str(beside(layout.config, keys.passphrase_file)) if keys.passphrase_file is not None else None
    return read_passphrase(
        CoreSettings(str(layout.root), passphrase_env=keys.passphrase_env, passphrase_file=file)
    )


@contextlib.contextmanager
def not_running(layout: StateLayout) -> Iterator[None]:
    """Holds the state folder's lock, so that no core uses the keys meanwhile.

    Raises:
        Failure: one does.
    """
    try:
        with folder_lock(layout.core_lock):
            yield
    except AlreadyRunning as error:
        raise Failure(str(error), "stop it first: the keys of a running witness are not changed") from error
