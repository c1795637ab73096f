"""What every key device is held to, whatever it is: one suite, real devices."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.core.keystore.programs import eventually
from tests.core.keystore.rigs import IDENTITY, Rig, children_of
from witness.core.keystore import keyring
from witness.core.keystore.authorise import is_signed, trial_message
from witness.core.keystore.base import (
    KeyAbsent,
    KeyHung,
    KeyInvalid,
    KeyLocked,
    KeystoreError,
    Signer,
    WrongSecret,
)
from witness.core.keystore.devices import Deadlines
from witness.core.keystore.keychain import Keychain
from witness.core.layout import StateLayout

DEADLINES = Deadlines(open=15.0, sign=0.7)


@contextlib.contextmanager
def opened(layout: StateLayout, secret: str | None, deadlines: Deadlines = DEADLINES) -> Iterator[Keychain]:
    """The keychain of a state, its devices tried once."""
    keychain = Keychain.prepare(layout, passphrase=secret, wait=True, deadlines=deadlines)
    try:
        keychain.open()
        yield keychain
    finally:
        keychain.close()


def sign(signer: Signer) -> bool:
    """Has a signer sign a cosignature message, and verifies it."""
    message = trial_message(signer.vkey, int(time.time()))
    return is_signed(signer.vkey, message, signer.sign(message))


def states(keychain: Keychain) -> set[str]:
    return {state.state for state in keychain.states()}


def ready(keychain: Keychain) -> None:
    eventually("every key is ready again", lambda: states(keychain) == {"ready"})
    assert all(sign(signer) for signer in keychain.signers())


def test_the_same_keys_sign_after_a_restart_of_all(rig: Rig, folder: object) -> None:
    layout = rig.state(rig.root.parent / "state")
    registered = keyring.read(layout).vkeys
    for _ in range(2):
        with opened(layout, rig.secret()) as keychain:
            assert states(keychain) == {"ready"}
            assert tuple(signer.vkey for signer in keychain.signers()) == registered
            assert all(sign(signer) for signer in keychain.signers())
        rig.take_away()
        rig.bring_back()


def test_a_device_that_is_away_at_the_start_is_used_once_it_is_there(rig: Rig) -> None:
    layout = rig.state(rig.root.parent / "state")
    rig.take_away()
    if not rig.starts_without:
        with pytest.raises(KeyAbsent), opened(layout, rig.secret()):
            pass
        rig.bring_back()
        with opened(layout, rig.secret()) as keychain:
            ready(keychain)
        return
    with opened(layout, rig.secret()) as keychain:
        assert states(keychain) == {"absent"}
        assert keychain.ring.vkeys == keyring.read(layout).vkeys, "registered keys are listed all the same"
        for signer in keychain.signers():
            with pytest.raises(KeyAbsent):
                sign(signer)
        rig.bring_back()
        ready(keychain)


def test_a_device_that_is_taken_away_under_load_and_brought_back(rig: Rig) -> None:
    layout = rig.state(rig.root.parent / "state")
    with opened(layout, rig.secret()) as keychain:
        signer = keychain.signers()[0]
        stop = threading.Event()
        good, errors = [], []

        def load() -> None:
            while not stop.is_set():
                try:
                    good.append(sign(signer))
                except KeystoreError as error:
                    errors.append(error)
                    time.sleep(0.001)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            eventually("signatures come", lambda: len(good) > 20)
            rig.take_away()
            if rig.holds:
                eventually("its loss is told", lambda: errors and states(keychain) == {"absent"})
            rig.bring_back()
            ready(keychain)
            before = len(good)
            eventually("signatures come again", lambda: len(good) > before + 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert all(good), "a signature that was given out verifies"
        # An agent is back before its key is; between the two it looks like one that is locked.
        expected = {KeyAbsent, KeyLocked} if rig.backend == "ssh-agent" else {KeyAbsent}
        assert {type(error) for error in errors} <= expected
        assert bool(errors) is rig.holds


def test_a_locked_device_a_wrong_secret_and_the_right_one(rig: Rig) -> None:
    if not rig.lockable:
        pytest.skip("this device has no lock of its own")
    layout = rig.state(rig.root.parent / "state")
    rig.lock()
    with opened(layout, None) as keychain:
        assert states(keychain) == {"locked"}
        for signer in keychain.signers():
            with pytest.raises(KeyLocked):
                sign(signer)
        keychain.unlock(rig.backend, rig.wrong, "first")
        tried = eventually(
            "the try is answered", lambda: [s for s in keychain.states() if "[unlock first]" in s.detail]
        )
        assert {state.state for state in tried} == {"locked"}
        for signer in keychain.signers():
            with pytest.raises(WrongSecret):
                sign(signer)
        keychain.unlock(rig.backend, rig.right, "second")
        ready(keychain)
        assert all("[unlock second]" in state.detail for state in keychain.states())


def test_a_device_that_hangs(rig: Rig) -> None:
    layout = rig.state(rig.root.parent / "state")
    if not rig.holds:  # it is asked at the start only
        if not rig.stops:
            pytest.skip("a library or a file, asked once, at the start: there is nothing to stop")
        rig.stop()
        try:
            with opened(layout, rig.secret(), Deadlines(open=3.0, sign=0.7)) as keychain:
                assert states(keychain) == {"hung"}
                with pytest.raises(KeyHung):
                    sign(keychain.signers()[0])
                rig.resume()
                ready(keychain)
        finally:
            rig.resume()
        return
    with opened(layout, rig.secret()) as keychain:
        (worker,) = children_of(keychain.host_pid)
        rig.stop() if rig.stops else os.kill(worker, signal.SIGSTOP)
        try:
            with pytest.raises(KeyHung):
                sign(keychain.signers()[0])
            if rig.stops:
                eventually("it stays hung", lambda: "hung" in states(keychain))
        finally:
            if rig.stops:
                rig.resume()
        ready(keychain)
        assert children_of(keychain.host_pid) != [worker], "whoever hung was killed"


def test_another_device_in_its_place_is_refused(rig: Rig) -> None:
    layout = rig.state(rig.root.parent / "state")
    rig.exchange()
    if not rig.starts_without:  # its ring is in the file: the daemon compares that with the database
        with opened(layout, rig.secret()) as keychain:
            assert keychain.ring.identity != IDENTITY
        return
    with opened(layout, rig.secret()) as keychain:
        for signer in keychain.signers():
            with pytest.raises((KeyInvalid, KeyAbsent, KeyLocked)):
                sign(signer)
        assert "ready" not in states(keychain)


def test_another_device_in_its_place_while_it_runs_is_refused(rig: Rig) -> None:
    if not rig.holds:
        pytest.skip("it is asked at the start only")
    layout = rig.state(rig.root.parent / "state")
    with opened(layout, rig.secret()) as keychain:
        assert all(sign(signer) for signer in keychain.signers())
        rig.exchange()
        for signer in keychain.signers():
            with pytest.raises(KeystoreError):
                sign(signer)
        eventually("the keys are out of use", lambda: "ready" not in states(keychain))


def test_bytes_that_are_no_cosignature_are_not_signed(rig: Rig) -> None:
    if not rig.holds:
        pytest.skip("it signs nothing at all")
    layout = rig.state(rig.root.parent / "state")
    with opened(layout, rig.secret()) as keychain:
        for signer in keychain.signers():
            for message in (b"", b"go ahead", trial_message(signer.vkey, 5)[:-1]):
                with pytest.raises(KeystoreError):
                    signer.sign(message)
                ready(keychain)


def test_nothing_is_overwritten_in_the_device(rig: Rig) -> None:
    if rig.backend in {"ssh-agent", "remote"}:
        pytest.skip("nothing is ever made in it")
    if rig.backend == "softkey":
        pytest.skip("tests/core/test_softkey.py holds the key file to that")
    before = rig.provide()
    with pytest.raises(KeystoreError) as refused:
        rig.provide()
    assert refused.value.code == "refused"
    choice = "counter" if rig.backend == "tpm2" else "key"
    kept = rig.provide(**{choice: "keep" if rig.backend == "tpm2" else "existing"})
    assert [key.vkey for key in kept.keys] == [key.vkey for key in before.keys]
