"""What is gathered: who cosigned one checkpoint, the newest of each, and never two roots at one size."""

from __future__ import annotations

import pytest

from tests.reading.world import cosigned, entry_log, trust_of, witness_key
from witness.reading.heads import BadHead, Forked, Gathering
from witness.tlog.note import parse_note
from witness.tlog.signature import cosignature_timestamp

KEYS = [witness_key(f"witness.example/w{number}") for number in range(3)]


def test_two_roots_at_one_size_are_a_fork() -> None:
    log = entry_log(9)
    fork = log.fork(5)
    fork.append(4)
    gathering = Gathering(trust_of(log, KEYS, 2))
    gathering.add(log.checkpoint())
    with pytest.raises(Forked, match="two roots at size 9"):
        gathering.add(cosigned(fork, KEYS[0]))


def test_of_each_witness_the_newest_cosignature() -> None:
    log = entry_log(9)
    key = KEYS[0]
    for times in ((1000, 2000), (2000, 1000)):
        gathering = Gathering(trust_of(log, KEYS, 1))
        for time in times:
            head = gathering.add(cosigned(log, key, timestamp=time))
        log_line, line = parse_note(head.note).signatures
        assert log_line.name == log.keys[0].name
        assert cosignature_timestamp(key.vkey, line.value) == 2000


def test_the_largest_that_the_policy_accepts() -> None:
    log = entry_log(12)
    gathering = Gathering(trust_of(log, KEYS, 2))
    gathering.add(log.checkpoint())
    assert gathering.best() is None
    for size, keys in ((5, KEYS[:2]), (9, KEYS[1:]), (12, KEYS[:1])):
        gathering.add(cosigned(log, *keys, size=size))
    best = gathering.best()
    assert best is not None
    assert best.size == 9
    assert gathering.best(9) is None
    gathering.add(cosigned(log, KEYS[2], size=12))  # merged with what another has
    best = gathering.best(9)
    assert best is not None
    assert best.size == 12


def test_lines_that_do_not_count() -> None:
    log = entry_log(9)
    gathering = Gathering(trust_of(log, KEYS, 1))
    head = gathering.add(log.checkpoint())
    for line in (KEYS[0].sign(log.value(), wrongly=True), witness_key("stranger.example").sign(log.value())):
        with pytest.raises(BadHead):
            gathering.add_lines(head, [line])
        assert gathering.best() is None
    gathering.add_lines(head, [KEYS[0].sign(log.value())])
    assert gathering.best() is not None


@pytest.mark.parametrize(("threshold", "fewest"), [(0, 0), (1, 1), (3, 3)])
def test_the_fewest_that_can_do(threshold: int, fewest: int) -> None:
    trust = trust_of(entry_log(1), KEYS, threshold)
    assert (trust.fewest(), trust.most()) == (fewest, 3)
