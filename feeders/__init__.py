"""Coroutines that poll logs, one module a log family."""
