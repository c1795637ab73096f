"""The least CPU a Python witness can spend on a request: verify, sign and check the proof, nothing else.

Measured on this machine in this run, because the bars are multiples of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import mldsa
from nacl import bindings

from benchmarks.chains import Chains, sizes
from witness.tlog import merkle
from witness.tlog.submission import parse_add_checkpoint


def _us(action: Callable[[], object], count: int) -> float:
    """The median of five runs of `count` calls, in CPU microseconds a call."""
    runs = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(count):
            action()
        runs.append((time.process_time() - begun) / count * 1e6)
    return statistics.median(runs)


def floor() -> dict[str, float]:
    """CPU microseconds: `verify`, `sign`, `proof`, `parse`, `mldsa`, and the sums `ed25519` and `both`."""
    chains = Chains(1)
    bodies = [parse_add_checkpoint(chains.body(0, step)) for step in (1000, 1001)]
    old, new = (body.checkpoint for body in bodies)
    public, secret = bindings.crypto_sign_seed_keypair(bytes(32))
    signed = bindings.crypto_sign(new.text(), secret)
    key = mldsa.MLDSA44PrivateKey.generate()
    assert (old.size, new.size) == sizes()[1000:1002]
    parts = {
        "verify": _us(lambda: bindings.crypto_sign_open(signed, public), 500),
        "sign": _us(lambda: bindings.crypto_sign(new.text(), secret), 1000),
        "proof": _us(
            lambda: merkle.verify_consistency(old.size, new.size, old.root, new.root, bodies[1].proof), 1000
        ),
        "parse": _us(lambda: parse_add_checkpoint(chains.body(0, 1001)), 1000)
        - _us(lambda: chains.body(0, 1001), 1000),
        "mldsa": _us(lambda: key.sign(signed), 100),
    }
    parts["ed25519"] = parts["verify"] + parts["sign"] + parts["proof"]
    parts["both"] = parts["ed25519"] + parts["mldsa"]
    return parts
