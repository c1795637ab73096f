"""The guard around the keys."""
