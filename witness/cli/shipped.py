"""The YAML files that come with the program."""

from __future__ import annotations

from pathlib import Path


def shipped(name: str) -> Path:
    """Where a shipped file stands: `witness.yaml` or `logs.yaml`.

    An installed package carries them as `witness/shipped/`; a source checkout has them in `config/`.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / "shipped" / name
    return installed if installed.is_file() else package.parent / "config" / name
