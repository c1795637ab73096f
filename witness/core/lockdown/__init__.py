"""Giving up what a process does not need, step by step, and saying which steps were taken.

The core locks itself down with it (`sequence`), and so does the front (`confinement`, called by
`witness.cli`). It reaches the kernel through ctypes, and imports nothing of ours but the wire's
`LockdownStep` and the state folder's layout.
"""
