"""Fixtures every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def testdata() -> Path:
    """The shared test data beside the checkout; tests that read it skip where it is absent."""
    path = ROOT.parent / "shared" / "testdata"
    if not path.is_dir():
        pytest.skip("the shared test data is not beside this checkout (../shared/testdata)")
    return path
