"""What the configuration says about continuity, as the core is told."""

from __future__ import annotations

from pathlib import Path

from witness.cli.config import Config, beside
from witness.core.continuity.settings import ContinuitySettings
from witness.core.layout import StateLayout


def record_path(layout: StateLayout, config: Config) -> Path:
    """Where the high-water record is, without its suffixes."""
    configured = config.continuity.high_water
    return beside(layout.config, configured) if configured is not None else layout.high_water


def continuity_settings(layout: StateLayout, config: Config) -> ContinuitySettings:
    """What the core is told."""
    continuity, authority = config.continuity, config.authority
    asked = bool(config.distributors or continuity.look)
    return ContinuitySettings(
        high_water=str(record_path(layout, config)) if continuity.high_water is not None else None,
        interval=continuity.interval,
        wait=continuity.wait if asked else 0.0,
        recent=continuity.remember,
        record_cosignatures=continuity.record_cosignatures,
        record_days=continuity.record_days,
        counter_interval=continuity.counter_interval,
        needed=authority.needed,
        operators=authority.operators,
    )
