"""The language of transparency logs: pure functions and frozen values, one module a specification."""
