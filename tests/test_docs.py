"""Documents that fail the build when they stop being true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = ["docs/conformance.md", "docs/architecture.md"]


def rows(document: str) -> list[str]:
    lines = (ROOT / document).read_text().splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith(("|---", "| ---"))]


def named(row: str) -> list[tuple[Path, list[str]]]:
    """The files a row names, each with the names in backquotes that follow it."""
    found = []
    pattern = r"`?((?:witness|feeders|distributor|tests)/[\w./*]+)`?((?:,? ?`[A-Za-z_]\w*`)*)"
    for path, names in re.findall(pattern, row):
        matches = sorted(ROOT.glob(path))
        assert matches, f"{path} is named in a document and does not exist"
        found.append((matches[0], re.findall(r"`(\w+)`", names)))
    return found


@pytest.mark.parametrize("document", TABLES)
def test_every_place_and_test_named_exists(document: str) -> None:
    checked = 0
    for row in rows(document):
        for path, names in named(row):
            text = path.read_text() if path.is_file() else ""
            for name in names:
                assert re.search(rf"\b{name}\b", text), f"{path} has no {name} (named in {document})"
                checked += 1
    assert checked


def test_transcripts_named_exist() -> None:
    from tests.transcripts import own_transcripts

    known = {transcript.name for transcript in own_transcripts()}
    for row in rows("docs/conformance.md"):
        for names in re.findall(r"T: ([^|;]*)", row):
            for name in names.split(","):
                told = name.strip()
                assert told.startswith("every 200") or any(k.startswith(told) for k in known), told


def test_no_two_decisions_share_a_number() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs/decisions").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers)) > 0


def test_every_dependency_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    declared = tomllib.loads("\n".join(lines))["project"]["dependencies"]
    for dependency in declared:
        line = next(line for line in lines if dependency in line)
        assert re.search(r"#\s+\S+", line), f"{dependency} has no reason beside it"
