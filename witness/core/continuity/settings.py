"""What the core is told about continuity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContinuitySettings:
    """Plain values; see config/witness.yaml for what they mean to an operator.

    Attributes:
        high_water: path of the high-water record without its suffixes; None for the state folder's.
        interval: seconds between two writings of the record, and of the heads remembered.
        wait: seconds after a start in which nothing is signed until the front has brought what the world
            has of us; 0 where nobody is asked.
        recent: heads of each log that are remembered, at most; 0 for none.
        record_cosignatures: off, heads (what stands as a log's head every `interval`) or all.
        record_days: days after which a recorded cosignature is deleted.
        counter_interval: seconds between two moves of the hardware counter, where there is one.
        needed: operators whose signatures a dangerous action needs; 0 for none.
        operators: their SSH public keys, each `NAME TYPE BASE64`.
    """

    high_water: str | None = None
    interval: float = 5.0
    wait: float = 0.0
    recent: int = 16
    record_cosignatures: str = "off"
    record_days: int = 90
    counter_interval: float = 3600.0
    needed: int = 0
    operators: tuple[str, ...] = ()
