"""A witness whose word survives loss, rollback, rotation and its own operator."""
