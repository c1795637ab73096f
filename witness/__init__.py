"""A transparency-log witness."""
