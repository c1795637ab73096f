"""A transparency-log witness."""

__version__ = "0.1.0"
