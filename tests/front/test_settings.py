"""Settings cross to the front's process unchanged, and what cannot work is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from witness.front.settings import (
    About,
    FrontSettings,
    InvalidSettings,
    TcpAddress,
    UnixAddress,
    parse_address,
)

FULL = FrontSettings(
    name="witness.example/w1",
    core_socket="/state/core.sock",
    operator_socket="/state/front.sock",
    listen=("127.0.0.1:7380", "[::1]:7380", "unix:/run/w.sock"),
    operator_listen=(":9100",),
    prefix="/w/1",
    body_limit=1000,
    body_timeout=1.5,
    keep_alive=90.0,
    max_in_flight=3,
    max_reading=4,
    drain_timeout=2.0,
    max_origins=5,
    page_logs=6,
    about=About(
        operator="Näme",
        contact="a@b",
        submission_url="https://w.example",
        monitoring_url="https://m.example",
        lists=("https://lists.example/10qps",),
        cadence="hourly",
        more=(("Hardware", "two boxes"), ("Keys", "in a drawer")),
    ),
)


@pytest.mark.parametrize("settings", [FULL, FrontSettings(name="w", core_socket="s")])
def test_json_gives_the_settings_back(settings: FrontSettings) -> None:
    assert FrontSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("data", ["", "[]", "{}", '{"about": {}}', '{"about": 1}', "null"])
def test_other_json_is_refused(data: str) -> None:
    with pytest.raises(InvalidSettings):
        FrontSettings.from_json(data)


def test_an_unknown_setting_is_refused() -> None:
    fields = json.loads(FULL.to_json())
    with pytest.raises(InvalidSettings, match="bogus"):
        FrontSettings.from_json(json.dumps({**fields, "bogus": 1}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen", ()),
        ("listen", ("nowhere",)),
        ("operator_listen", ("host:x",)),
        ("prefix", "/w/"),
        ("prefix", "w"),
        ("prefix", "/a b"),
        ("prefix", "/"),
        ("body_limit", 0),
        ("body_limit", 128 * 1024 + 1),
        ("body_timeout", 0),
        ("keep_alive", -1),
        ("drain_timeout", 0),
        ("max_in_flight", 0),
        ("max_reading", 0),
        ("max_origins", -1),
        ("page_logs", -1),
    ],
)
def test_what_cannot_work_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(InvalidSettings) as caught:
        FrontSettings(**{"name": "w", "core_socket": "s", setting: value})
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7380", TcpAddress("127.0.0.1", 7380)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:7380", TcpAddress("::1", 7380)),
        ("[::]:65535", TcpAddress("::", 65535)),
        (":7380", TcpAddress(None, 7380)),
        ("*:7380", TcpAddress(None, 7380)),
        ("unix:/run/w.sock", UnixAddress("/run/w.sock")),
        ("unix:w.sock", UnixAddress("w.sock")),
    ],
)
def test_addresses(text: str, address: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "7380", "host", "host:", "h:65536", "h:-1", "h:1x", "h:٣", "::1:80", "unix:"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidSettings):
        parse_address(text)
