"""A hundred random histories in CI, and proof that they would notice; `make histories` plays thousands."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.histories.many import first_failure, play_many
from tests.histories.sabotage import SABOTAGE

AT_ONCE = 4
"""They wait more than they compute."""


@pytest.mark.slow
def test_a_hundred_random_histories() -> None:
    counts, alarms = Counter[str](), Counter[str]()
    for outcome in play_many(range(100), AT_ONCE):
        again = f"python -m tests.histories --seed {outcome.seed}"
        assert not outcome.failure, "\n".join([again, *outcome.log, outcome.failure])
        counts += outcome.counts
        alarms.update(outcome.alarms)
    # Not harmless: signatures, harm of every kind, and a way out of each.
    assert counts["released"] > 300
    assert counts["led_out"] > 50
    assert {"state-behind", "audit-behind", "restored", "record-lost", "record-invalid"} <= alarms.keys()


@pytest.mark.campaign
@pytest.mark.parametrize("name", SABOTAGE)
def test_the_histories_notice(name: str) -> None:
    assert first_failure(range(400), AT_ONCE, name) is not None
