from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distributor.retry_after import parse_retry_after

NOW = 784_111_700.0  # Sun, 06 Nov 1994 08:48:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 77.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 77.0),  # a zone that leaves the time naive
        ("Sun, 06 Nov 1994 08:40:00 GMT", 0.0),  # passed already
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),  # a digit, and not one of HTTP's
        ("9" * 400, None),
        (None, None),
    ],
)
def test_both_forms(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,9} [A-Z][a-z]{2} \d{1,9} \d\d:\d\d:\d\d [+-]?\d{0,9}"))
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Sun, 06 Nov 1994 08:49:37 +999999999999")
def test_any_text_is_a_wait_or_nothing(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
