"""The Retry-After header of HTTP (RFC 9110, section 10.2.3), pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

_MAX_DIGITS = 9  # 30 years: beyond that a number of seconds is nonsense, not patience


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from either form of the header.

    Args:
        value: the header's value, delay-seconds or an HTTP-date; None when there is no header.
        now: POSIX seconds, which a date is counted from.

    Returns:
        Seconds, never negative; None when there is no header or it has neither form.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= _MAX_DIGITS else None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:  # HTTP dates are GMT by definition, also where the zone reads "-0000"
        moment = moment.replace(tzinfo=UTC)
    try:
        return max(0.0, moment.timestamp() - now)
    except OverflowError:  # a zone that carries the first or last year out of range
        return None
