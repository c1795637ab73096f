"""The short form of the polling benchmark: that it runs, and that what it reports was so.

Nothing here depends on how fast the machine is; the bars are `python -m benchmarks.polling --check`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.polling import measure


@pytest.mark.slow
def test_polled_logs_beside_pushed_ones(tmp_path: Path) -> None:
    found = measure(tmp_path, logs=150, interval=3.0, rounds=1, rate=50.0, refresh=600.0)
    assert (found.logs, found.refused, found.not_current) == (150, 0, 0)
    assert found.least_polls_of_a_log >= 1
    assert found.polls_made >= 150
    assert found.missed == 0
