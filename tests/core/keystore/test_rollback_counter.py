"""A rollback counter on a simulated TPM: made, read, moved, never set back, and asked with deadlines."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.keystore.rigs import NAME, Rig
from witness.cli.key_devices import DeviceKeys, Wishes, opened, provide, with_counter
from witness.core.keystore import keyring, softkey
from witness.core.keystore.base import (
    DeviceLost,
    KeyAbsent,
    KeyHung,
    KeyInvalid,
    KeyLocked,
    KeyRefused,
    KeystoreError,
)
from witness.core.keystore.devices import Deadlines
from witness.core.keystore.keychain import Keychain
from witness.core.keystore.keyring import SOFT, WITNESS, DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.rollback import DeviceCounter
from witness.core.layout import StateLayout

INDEX = 0x01807849
DEADLINES = Deadlines(open=15.0, sign=2.0, counter=1.0)


def made(rig: Rig, **options: str) -> DeviceKeys:
    """Keys and counter, as `witness init` has them made."""
    wishes = Wishes(rig.backend, rig.settings(), options, {}, rig.algorithms, NAME, counter=True)
    return provide(wishes, rig.secret())


@contextlib.contextmanager
def counting(keys: DeviceKeys, folder: Path, secret: str | None = None) -> Iterator[DeviceCounter]:
    """The counter as a core has it."""
    layout = StateLayout(folder)
    folder.mkdir(exist_ok=True)
    keyring.write(layout, Ring(NAME, "00112233445566778899aabbccddeeff", (keys.device,), keys.keys))
    keychain = Keychain.prepare(layout, passphrase=secret, deadlines=DEADLINES)
    try:
        keychain.open()
        counter = keychain.rollback_counter()
        assert counter is not None
        yield counter
    finally:
        keychain.close()


def test_it_counts_and_the_identity_stays(tpm: Rig, folder: Path) -> None:
    keys = made(tpm)
    assert keys.device.counter == {"index": f"{INDEX:#010x}"}
    assert keyring.parse(ring_bytes(keys, folder), Path("ring")).devices[0].counts
    for _ in range(
        2
    ):  # the identity's own counter does not move with it: its keys are derived anew each time
        with counting(keys, folder / "state") as counter:
            value = counter.read()
            assert value >= (keys.counter or 0) > 0
            assert counter.increment() == value + 1
            counter.close()
            assert counter.read() == value + 1
            counter.close()


def ring_bytes(keys: DeviceKeys, folder: Path) -> bytes:
    layout = StateLayout(folder / "ring")
    layout.root.mkdir()
    keyring.write(layout, Ring(NAME, "00112233445566778899aabbccddeeff", (keys.device,), keys.keys))
    return layout.keyring.read_bytes()


def test_a_device_that_only_counts_is_asked(tpm: Rig, folder: Path) -> None:
    """Its keys are elsewhere by now: the counter is none the less held, and not forgotten."""
    keys = made(tpm)
    layout = StateLayout(folder / "state")
    layout.keys.mkdir(parents=True)
    identity = "00112233445566778899aabbccddeeff"
    (soft,) = softkey.create(
        layout.softkey, name=NAME, identity=identity, passphrase=None, algorithms=("ed25519",)
    )
    entries = (KeyEntry(soft, WITNESS, "soft", (Place(SOFT),)),)
    keyring.write(layout, Ring(NAME, identity, (keys.device, DeviceEntry(SOFT, SOFT)), entries))
    keychain = Keychain.prepare(layout, passphrase=None, deadlines=DEADLINES)
    try:
        keychain.open()
        counter = keychain.rollback_counter()
        assert counter is not None
        assert counter.read() == keys.counter
        assert [state.state for state in keychain.states()] == ["ready"]
        assert not any("stand in" in line for line in keychain.warnings())
    finally:
        keychain.close()


def test_nothing_is_taken_over_and_nothing_left_behind(tpm: Rig) -> None:
    first = made(tpm)
    with pytest.raises(KeyRefused, match="an identity hangs on it"):
        made(tpm, rollback_index="0x01807a00")
    with pytest.raises(KeyRefused, match="another witness may count with it"):
        made(tpm, counter_index="0x01807750", rollback_index=f"{INDEX:#x}")
    assert tpm.run_tool("tpm2_getcap", "handles-nv-index").decode().count("0x18") == 2, (
        "what was refused is not there"
    )
    # A second witness on the same TPM has both counters of its own.
    second = made(tpm, counter_index="0x01807750")
    assert second.device.counter != first.device.counter
    # The operator goes on with the TPM's identity, or retires it: no earlier state is believed any more.
    kept = made(tpm, counter="keep")
    assert kept.device.counter == first.device.counter
    assert (kept.counter or 0) > (first.counter or 0)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"rollback_index": "0x01807749"}, "the identity's own counter"),
        ({"rollback_index": "0x81000000"}, "not in the owner's range"),
        ({"rollback_index": "seven"}, "is no number"),
    ],
)
def test_what_cannot_be_is_refused(tpm: Rig, options: dict[str, str], fault: str) -> None:
    with pytest.raises(KeyInvalid, match=fault):
        made(tpm, **options)
    assert b"0x18" not in tpm.run_tool("tpm2_getcap", "handles-nv-index")


def test_no_hand_sets_it_back(tpm: Rig, folder: Path) -> None:
    """The owner may remove the counter and make it again: it goes on from there."""
    keys = made(tpm)
    with counting(keys, folder / "state") as counter:
        value = [counter.increment() for _ in range(3)][-1]
        counter.close()
        tpm.run_tool("tpm2_nvundefine", "-C", "owner", f"{INDEX:#x}")
        with pytest.raises(DeviceLost, match="it was wiped, or cleared"):
            counter.read()
        entry = dataclasses.replace(keys.device, counter={})
        with opened(entry, None) as device:
            _, anew = with_counter(device, entry, {"counter": "beside"})
        assert anew is not None
        assert anew > value
        assert counter.read() == anew


def test_an_index_that_is_no_counter(tpm: Rig) -> None:
    tpm.run_tool("tpm2_nvdefine", "-C", "owner", "-s", "8", f"{INDEX:#x}")
    with pytest.raises(KeyInvalid, match="in use, and no counter"):
        made(tpm)


def test_away_hung_and_back(tpm: Rig, folder: Path) -> None:
    keys = made(tpm)
    with counting(keys, folder / "state") as counter:
        value = counter.read()
        tpm.stop()
        with pytest.raises(KeyHung, match="within 1 s"):
            counter.increment()
        tpm.resume()
        counter.close()
        # What the TPM was told before it hung, it may have done.
        assert counter.read() in (value, value + 1)
        counter.close()
        tpm.take_away()
        with pytest.raises(KeyAbsent):
            counter.read()
        tpm.bring_back()
        assert counter.read() in (value, value + 1)


def test_another_device_is_not_asked(tpm: Rig, folder: Path) -> None:
    keys = made(tpm)
    with counting(keys, folder / "state") as counter:
        tpm.exchange()
        with pytest.raises(DeviceLost, match="another device answers as tpm2"):
            counter.read()


def test_the_owners_authorisation_is_needed_to_move_it(tpm: Rig, folder: Path) -> None:
    keys = made(tpm)
    with counting(keys, folder / "state") as counter:
        value = counter.read()
        counter.close()
        tpm.lock()
        assert counter.read() == value
        with pytest.raises(KeyLocked, match="wants an authorisation value"):
            counter.increment()


def test_a_device_without_counters_says_so(agent: Rig) -> None:
    held = agent.provide()
    with opened(held.device, agent.secret()) as device, pytest.raises(KeystoreError, match="no counters"):
        device.call("counter-read", locator={})
