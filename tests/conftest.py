"""Fixtures every room's tests share, and the switch for the long forms of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign", action="store_true", help="run the long forms of tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--campaign"):
        return
    skip = pytest.mark.skip(reason="the long form of a test: give --campaign")
    for item in items:
        if item.get_closest_marker("campaign") is not None:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def testdata() -> Path:
    """The shared test data beside the checkout; tests that read it skip where it is absent."""
    path = ROOT.parent / "shared" / "testdata"
    if not path.is_dir():
        pytest.skip("the shared test data is not beside this checkout (../shared/testdata)")
    return path
