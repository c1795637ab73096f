"""What key devices cost: `python -m benchmarks.key_devices`.

Each device that is installed here is started as the tests start it, and signed with through
the same processes as in a running core. And 70 callers ask a device of ten signatures a second.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import pytest

from tests.core.keystore.rigs import RIGS
from tests.core.keystore.test_slow_devices import ask, slow_witness
from witness.core.keystore.authorise import trial_message
from witness.core.keystore.keychain import Keychain
from witness.core.refusals import Overloaded

SIGNATURES = 300
SECONDS = 5.0


def device(kind: str, folder: Path) -> str:
    """One line about one kind of device."""
    rig = RIGS[kind](folder / "rig")
    try:
        try:
            rig.setup()
        except pytest.skip.Exception as skipped:
            return f"{kind:15} {skipped}"
        layout = rig.state(folder / "state")
        began = time.perf_counter()
        keychain = Keychain.prepare(layout, passphrase=rig.secret())
        keychain.open()
        opened = time.perf_counter() - began
        try:
            parts = [f"{kind:15} open {1000 * opened:6.0f} ms"]
            for signer in keychain.signers():
                message = trial_message(signer.vkey, int(time.time()))
                times = []
                for _ in range(SIGNATURES):
                    began = time.perf_counter()
                    signer.sign(message)
                    times.append(time.perf_counter() - began)
                median = statistics.median(times)
                parts.append(f"{signer.vkey.type.name}: {1000 * median:6.2f} ms, {1 / median:6.0f}/s")
            return "  ".join(parts)
        finally:
            keychain.close()
    finally:
        rig.end()


async def ten_a_second(folder: Path) -> str:
    """70 callers at a device that signs ten times a second."""
    async with slow_witness(folder, seconds=0.1) as slow:
        good: list[float] = []
        shed: list[float] = []
        until = time.perf_counter() + SECONDS

        async def caller(number: int) -> None:
            log, old = slow.logs[number], 0
            while time.perf_counter() < until:
                began = time.perf_counter()
                answer = await ask(slow.witness, log.add_checkpoint(old=old))
                took = time.perf_counter() - began
                if isinstance(answer, Overloaded):
                    shed.append(took)
                    await asyncio.sleep(0.05)
                elif isinstance(answer, bytes):
                    good.append(took)
                    old = log.size

        began = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(len(slow.logs))))
        rate = len(good) / (time.perf_counter() - began)
        shed.sort()
        return (
            f"10/s device, 70 callers: {rate:.1f} answered a second (slowest {max(good):.2f} s),"
            f" {len(shed)} shed, half within {1000 * shed[len(shed) // 2]:.1f} ms, 99 of 100 within"
            f" {1000 * shed[99 * len(shed) // 100]:.0f} ms, the slowest after {1000 * shed[-1]:.0f} ms"
        )


def main() -> None:
    for kind in RIGS:
        with tempfile.TemporaryDirectory(prefix="bench") as folder:
            print(device(kind, Path(folder)), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        print(asyncio.run(ten_a_second(Path(folder))))


if __name__ == "__main__":
    main()
