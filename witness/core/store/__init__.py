"""Durable state: logs, heads and what contradicts them."""
