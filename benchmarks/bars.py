"""The bars, what was measured beside them, and the two files a run leaves.

A bar has an "at least" that must hold and a "stretch" to aim for; the texts are those of the project's
performance reference. A figure that could not be taken here is said to be missing, with the reason.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass
class Bar:
    """One row. `limit` and `stretch` bound `value` from above when `most`, else from below."""

    name: str
    limit: float
    stretch: float | None
    unit: str = ""
    most: bool = False
    value: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        if self.stretch is not None and self._holds(self.stretch):
            return "stretch met"
        return "met" if self._holds(self.limit) else "MISSED"

    def _holds(self, bound: float) -> bool:
        assert self.value is not None
        return self.value <= bound if self.most else self.value >= bound

    def shown(self, number: float | None) -> str:
        if number is None:
            return ""
        text = f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"
        return f"{text} {self.unit}".strip()

    def row(self) -> list[str]:
        sign = "≤" if self.most else "≥"
        stretch = "" if self.stretch is None else f"{sign} {self.shown(self.stretch)}"
        return [
            self.name,
            f"{sign} {self.shown(self.limit)}",
            stretch,
            "—" if self.value is None else self.shown(self.value),
            self.verdict,
            self.note,
        ]


def all_bars() -> dict[str, Bar]:
    """Every bar by a short key, nothing measured yet."""
    mib = "MB"
    return {
        "covered": Bar("200s preceded by a covering fdatasync (traced)", 100, None, "%"),
        "syncs": Bar("fsyncs per update, 50 in flight", 0.15, 0.05, most=True),
        "single-0": Bar("against one commit per request, native fsync", 2, 3.5, "×"),
        "single-2": Bar("against one commit per request, +2 ms", 8, 12, "×"),
        "single-10": Bar("against one commit per request, +10 ms", 15, 21, "×"),
        "cpu-ed25519": Bar("CPU per request over the floor, Ed25519", 3.0, 2.0, "×", most=True),
        "cpu-both": Bar("CPU per request over the floor, both algorithms", 1.6, 1.2, "×", most=True),
        "cpu-ed25519-named": Bar("CPU per request over 103 µs, Ed25519", 3.0, 2.0, "×", most=True),
        "cpu-both-named": Bar("CPU per request over 793 µs, both algorithms", 1.6, 1.2, "×", most=True),
        "isolation-ed25519": Bar("locked-down processes against one process, Ed25519", 0.9, None, "×"),
        "isolation-both": Bar("locked-down processes against one process, both algorithms", 0.9, None, "×"),
        "refusals": Bar("refusals at 80 % of saturation, distinct logs", 0, None, most=True),
        "many-rate": Bar("100k logs against 1k logs, throughput", 0.75, 0.95, "×"),
        "many-memory": Bar("memory a log", 1.5, 0.7, "KB", most=True),
        "start": Bar("start with 100k logs", 3, None, "s", most=True),
        "idle": Bar("idle memory of all processes", 150, None, mib, most=True),
        "verify-signatures": Bar(
            "verifying a tlog-proof with 16 cosignatures, over its signature checks",
            1.5,
            None,
            "×",
            most=True,
        ),
        "verify-memory": Bar("peak memory verifying sumdb look-ups in one call", 150, None, mib, most=True),
        "verify-growth": Bar("its growth over the second 50,000 of 100,000", 5, None, mib, most=True),
        "verify-start": Bar("start of `witness verify`, with one proof", 250, None, "ms", most=True),
    }


@dataclass
class Report:
    """Everything one run found."""

    machine: Mapping[str, str]
    mode: str
    bars: dict[str, Bar] = field(default_factory=all_bars)
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def measured(self, key: str, value: float, note: str = "") -> None:
        self.bars[key].value = value
        self.bars[key].note = note

    def missing(self, keys: Sequence[str], reason: str) -> None:
        for key in keys:
            self.bars[key].note = reason

    @property
    def missed(self) -> list[str]:
        return [bar.name for bar in self.bars.values() if bar.verdict == "MISSED"]

    def markdown(self) -> str:
        head = "; ".join(f"{name} {value}" for name, value in self.machine.items())
        header = ["bar", "at least", "stretch", "measured", "verdict", "how"]
        parts = [
            f"# Benchmark of {self.facts.get('date', '')} ({self.mode})",
            head + ".",
            "Both sides of every ratio ran alternately in this one run; ratios are medians over the rounds.",
            _table(header, [bar.row() for bar in self.bars.values()]),
        ]
        for title, columns, rows in self.tables:
            parts += [f"## {title}", _table(columns, rows)]
        if self.notes:
            parts += ["## Notes", "\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path = RESULTS) -> Path:
        """Writes <date>-<machine>.json and .md; returns the latter's path."""
        folder.mkdir(parents=True, exist_ok=True)
        self.facts.setdefault("date", dt.datetime.now(dt.UTC).date().isoformat())
        cpu = re.sub(r"[^a-z0-9]+", "-", self.machine["cpu"].lower()).strip("-")
        stem = f"{self.facts['date']}-{cpu}-{self.machine['cores']}-cores" + (
            "-short" if self.mode == "short" else ""
        )
        document = {
            "machine": dict(self.machine),
            "mode": self.mode,
            "bars": {key: {**asdict(bar), "verdict": bar.verdict} for key, bar in self.bars.items()},
            "tables": [{"title": t, "columns": c, "rows": r} for t, c, r in self.tables],
            "notes": self.notes,
            "facts": self.facts,
        }
        (folder / f"{stem}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        path = folder / f"{stem}.md"
        path.write_text(self.markdown())
        return path


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
