"""The core's settings as a line of JSON."""

from __future__ import annotations

import json

import pytest

from witness.core.lockdown.steps import Account, LockdownSettings
from witness.core.settings import BadSettings, CoreSettings


def test_round_trip() -> None:
    settings = CoreSettings("/state", max_batch=7, front_uids=(1, 2), passphrase_file="/p", log_level="DEBUG")
    assert CoreSettings.from_json(settings.to_json()) == settings
    assert "\n" not in settings.to_json()


def test_the_lockdown_goes_round_too() -> None:
    lockdown = LockdownSettings(("seccomp",), ("landlock",), Account("witness", 990, 991))
    settings = CoreSettings("/state", lockdown=lockdown, front_account=Account("front", 992, 993))
    assert CoreSettings.from_json(settings.to_json()) == settings


def test_defaults_are_filled_in() -> None:
    assert CoreSettings.from_json('{"state_dir": "/s"}') == CoreSettings("/s")


@pytest.mark.parametrize(
    "line",
    [
        "", "\n", "x", "[]", "null", "1", '"text"', "{}", '{"state_dir": "/s", "unknown": 1}',
        '{"state_dir": "/s", "front_uids": 5}',
        '{"state_dir": "/s", "lockdown": {"off": ["cellar"], "require": [], "account": null}}',
        '{"state_dir": "/s", "lockdown": {"off": []}}', '{"state_dir": "/s", "lockdown": 1}',
        '{"state_dir": "/s", "front_account": 1}', '{"state_dir": "/s", "front_account": {"name": "x"}}',
        "[" * 100_000, json.dumps({"max_batch": 1}),
    ],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(BadSettings):
        CoreSettings.from_json(line)
