"""The untrusted process: it talks to the world and holds no cosigning key."""
