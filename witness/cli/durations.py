"""Durations as options give them."""

from __future__ import annotations

import re
from typing import Final

from witness.cli.errors import WrongUsage

_DURATION: Final = re.compile(r"([0-9]{1,12})([smhdw]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(option: str, text: str) -> int:
    """The seconds of a duration: a number with s, m, h, d or w.

    Raises:
        WrongUsage: it is none; `option` is named as the culprit.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise WrongUsage(
            f"{option} {text}: not a duration", "a number with s, m, h, d or w: 90s, 15m, 24h, 7d"
        )
    return int(match[1]) * _SECONDS[match[2]]
