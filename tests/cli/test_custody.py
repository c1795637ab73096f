"""Acceptance of custody, through the daemon: every backend in every trouble, asked by HTTP all the while.

What a device does in each case. Where a case does not exist for a backend, `ABSENT` says why; a test of its
own makes sure that each backend is in each case, here or there.

| case                  | tpm2, pkcs11 deriving   | pkcs11 signing, ssh-agent, remote | softkey              |
|-----------------------|-------------------------|-----------------------------------|----------------------|
| away while it runs    | signs on                | 503, signs again by itself        | signs on             |
| away at the start     | 503, then signs         | 503, then signs                   | does not start       |
| another in its place  | 503 (another identity)  | 503, for as long as it is there   | does not start       |
| wrong secret          | 503 until the right one | 503 until the right one           | 503 until the right  |
| hung                  | 503 at the start (tpm2) | 503 within the deadline           | –                    |
| retired               | 503 for good            | –                                 | –                    |
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.command import Outcome, witness
from tests.cli.daemon import Daemon, call, daemon, eventually
from tests.core.keystore.rigs import NAME, RIGS, Rig, children_of, in_use
from tests.core.processes import short_folder
from tests.simulated_log import SimulatedLog
from tests.transcripts import check_cosignatures
from witness.core.keystore import keyring
from witness.core.layout import StateLayout
from witness.core.refusals import NotCompared, SigningStopped
from witness.core.store.alarms import Kind
from witness.tlog.note import VerifierKey

SAME: Final = "pkcs11-hmac by another mechanism, which tests/core/keystore/test_contract.py tells apart"
ABSENT: Final[dict[str, dict[str, str]]] = {
    "life": {"pkcs11-aes-cbc": SAME},
    "secret": {
        "pkcs11-aes-cbc": SAME,
        "remote": "a door asks for no secret: who may connect is a matter of its socket's mode",
    },
    "hung": {
        "pkcs11-hmac": "a library that is called once, at the start: no process of a device can be stopped",
        "pkcs11-aes-cbc": SAME,
        "softkey": "a file that is read once, at the start",
    },
    "retired": {
        "pkcs11-aes-cbc": SAME,
        "pkcs11": "its key is in the token: the token's own tools destroy it, and it is absent then",
        "ssh-agent": "the same of a key in an agent",
        "remote": "it is retired where it is",
        "softkey": "a file has no memory: whoever has a copy has the key",
    },
}
"""Which case does not exist for which kind of device, and why."""

SECRET: Final = "DEVICE_SECRET"
CLIENT_DEADLINE: Final = 20.0
"""Seconds after which a caller has waited in vain. Far beyond the device's deadlines below."""
CONFIG: Final = "keys: {wait_for_unlock: true, deadline: 1, open_deadline: 3}\n"


REASONS: Final = (
    f"key {NAME}+",
    str(NotCompared("")),
    str(SigningStopped(Kind.DEVICE, "")),
    str(SigningStopped(Kind.RETIRED, "")),
)
"""How a 503 begins: the key that cannot sign; right after an unlock, that the records are compared; that the
device which counts for this witness is another; or that the identity was retired."""


def kinds(case: str) -> list[str]:
    return [kind for kind in RIGS if kind not in ABSENT[case]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    yield from in_use(request.param, folder)


class Callers:
    """Two clients, each with a log of its own, that never stop asking. Every answer is kept and judged."""

    def __init__(
        self, running: Daemon, vkeys: tuple[VerifierKey, ...], logs: list[SimulatedLog], *, cosigned: bool
    ) -> None:
        self._cosigned = cosigned
        self._address = running.url.removeprefix("http://")
        self._vkeys = vkeys
        self._stop = threading.Event()
        self._faults: list[BaseException] = []
        self.answers: list[tuple[int, str]] = []
        self._threads = [threading.Thread(target=self._run, args=(log,)) for log in logs]

    def _run(self, log: SimulatedLog) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=CLIENT_DEADLINE)
        body = log.add_checkpoint(log.size if self._cosigned else 0)
        try:
            while not self._stop.is_set():
                connection.request("POST", "/add-checkpoint", body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    # By exactly the registered keys, each signature verified: no other key's, ever.
                    check_cosignatures("add-checkpoint", body, text, self._vkeys)
                    body = log.add_checkpoint(log.size)
                self.answers.append((answer.status, "" if answer.status == 200 else text.decode()))
                self._stop.wait(0.01)
        except BaseException as fault:
            self._faults.append(fault)
        finally:
            connection.close()

    def met(self, status: int) -> str:
        """Waits until the clients meet this status anew; with which words."""
        seen = len(self.answers)

        def found() -> list[tuple[int, str]]:
            assert not self._faults, self._faults
            return [answer for answer in self.answers[seen:] if answer[0] == status]

        return str(eventually(f"the callers are answered {status}", found)[0][1])

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._faults, self._faults
        # 429 is what a device answers when more wait for it than it can sign for.
        assert {status for status, _ in self.answers} <= {200, 429, 503}
        for status, why in self.answers:
            if status == 503:
                assert why.startswith(REASONS), why


class World:
    """One witness with its keys in a rig, and two logs."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.state = folder / "state"
        self.layout = StateLayout(self.state)
        self.logs = [SimulatedLog(f"log.example/{number}", size=4) for number in range(2)]
        self.cosigned = False
        where: list[str] = []
        if rig.backend != "softkey":
            where = ["--backend", rig.backend, "--secret", f"env:{SECRET}"]
            for name, value in {**rig.settings(), **rig.options()}.items():
                where += ["-o", f"{name}={value}"]
            if len(rig.algorithms) == 1:
                where += ["--soft", "ml-dsa-44"]  # every answer needs the key in the file as well
        self.command("init", "--name", NAME, *where)
        with (self.state / "witness.yaml").open("a") as file:
            file.write(CONFIG)
        rig.adopt(self.layout)
        for log in self.logs:
            self.command("logs", "add", str(log.vkeys[0]))
        self.vkeys = keyring.read(self.layout).vkeys

    def command(self, *arguments: str | Path, code: int = 0) -> Outcome:
        """A `witness …` on the state, with the device's secret at hand."""
        outcome = witness(*arguments, state=self.state, env={**self.environ(self.rig.secret())})
        assert outcome.code == code, outcome.err
        return outcome

    def environ(self, secret: str | None) -> dict[str, str]:
        name = "WITNESS_PASSPHRASE" if self.rig.backend == "softkey" else SECRET
        return {} if secret is None else {name: secret}

    @contextlib.contextmanager
    def running(self, secret: str | None = None) -> Iterator[Daemon]:
        with daemon(self.state, **self.environ(secret or self.rig.secret())) as running:
            yield running

    def does_not_start(self) -> str:
        """What `witness run` says instead."""
        secret = self.environ(self.rig.secret())
        ended = call("--state", self.state, "run", "--listen", "127.0.0.1:0", **secret)
        assert ended.returncode == 3, ended.stderr
        return ended.stderr

    def works(self, running: Daemon) -> None:
        """It is ready, and cosigns every log by the very keys that it was made with."""
        eventually("it is ready", running.ready)
        for log in self.logs:
            body = log.add_checkpoint(log.size if self.cosigned else 0)
            status, lines = running.request("POST", "/add-checkpoint", body)
            assert status == 200, lines
            check_cosignatures("add-checkpoint", body, lines, self.vkeys)
        self.cosigned = True

    def callers(self, running: Daemon) -> Callers:
        return Callers(running, self.vkeys, self.logs, cosigned=self.cosigned)

    def worker(self, running: Daemon) -> int:
        """The process that drives the device: the only child of the core's device host."""
        (host,) = children_of(running.children()["core"])
        return int(eventually("there is a worker", lambda: children_of(host))[0])


def says(running: Daemon, words: str) -> None:
    """Waits until readyz answers 503 with these words."""

    def said() -> bool:
        status, body = running.get("/readyz")
        return status == 503 and words in body.decode()

    eventually(f"readyz says {words!r}", said)


def test_every_kind_of_device_is_in_every_case_or_it_is_said_why_not() -> None:
    for case, absent in ABSENT.items():
        assert set(absent) <= set(RIGS), case
        assert all(absent.values()), case
    for kind, rig in RIGS.items():
        if ABSENT["life"].get(kind) != SAME:
            assert rig.lockable is (kind not in ABSENT["secret"])
            assert (rig.holds or rig.stops) is (kind not in ABSENT["hung"])


@pytest.mark.slow
@pytest.mark.parametrize("rig", kinds("life"), indirect=True)
def test_a_life(rig: Rig, folder: Path) -> None:
    """init, run, cosign; the device killed under load and back; a restart; another device in its place."""
    world = World(rig, folder)
    with world.running() as running:
        world.works(running)
        with world.callers(running) as callers:
            callers.met(200)
            if rig.holds:
                os.kill(world.worker(running), signal.SIGKILL)
                callers.met(503)
                callers.met(200)
                rig.take_away()
                callers.met(503)
                says(running, " is absent: ")
                rig.bring_back()
            else:  # it was asked once, and is not missed
                rig.take_away()
                assert running.ready()
                rig.bring_back()
            callers.met(200)
        assert running.stop() == 0
    rig.take_away()
    if rig.starts_without:
        with world.running() as running:
            says(running, " is absent: ")
            assert world.command("keys", "list").out.split() == [str(vkey) for vkey in world.vkeys]
            with world.callers(running) as callers:
                callers.met(503)
                rig.bring_back()
                callers.met(200)
            world.works(running)
            if rig.holds:
                refuses_another(world, running)
    else:
        assert "there is no key file" in world.does_not_start()
        rig.bring_back()
        with world.running() as running:
            world.works(running)
    if not rig.holds:
        rig.exchange()
        if not rig.starts_without:
            assert "the database belongs to" in world.does_not_start()
            return
        with world.running() as running:
            refuses_another(world, running, changed=True)


def refuses_another(world: World, running: Daemon, *, changed: bool = False) -> None:
    """Another device answers where the registered one was: nothing is signed, by no key."""
    if not changed:
        world.rig.exchange()
    with world.callers(running) as callers:
        callers.met(503)
        asked = len(callers.answers)
        eventually("they go on asking", lambda: len(callers.answers) > asked + 20)
        assert {status for status, _ in callers.answers[asked:]} == {503}
    says(running, f"key {NAME}+")


@pytest.mark.slow
@pytest.mark.parametrize("rig", kinds("secret"), indirect=True)
def test_a_wrong_secret_and_the_right_one(rig: Rig, folder: Path) -> None:
    world = World(rig, folder)
    rig.lock()
    right, wrong = folder / "right", folder / "wrong"
    right.write_text(rig.right)
    wrong.write_text(rig.wrong)
    with world.running(rig.wrong) as running, world.callers(running) as callers:
        callers.met(503)
        says(running, " is locked: ")
        no = world.command("keys", "unlock", "--passphrase-file", wrong, code=1)
        assert rig.wrong not in no.out + no.err
        callers.met(503)
        says(running, " is locked: ")
        assert "is unlocked" in world.command("keys", "unlock", "--passphrase-file", right).out
        callers.met(200)
        eventually("it is ready", running.ready)


@pytest.mark.slow
@pytest.mark.parametrize("rig", kinds("hung"), indirect=True)
def test_a_device_that_hangs(rig: Rig, folder: Path) -> None:
    """SIGSTOP: callers are told within its deadline; SIGCONT: it signs again, without a restart."""
    world = World(rig, folder)
    with world.running() as running:
        world.works(running)
        with world.callers(running) as callers:
            callers.met(200)
            if rig.holds:
                stopped = world.worker(running)
                rig.stop() if rig.stops else os.kill(stopped, signal.SIGSTOP)
                try:
                    assert "did not answer within " in callers.met(503)
                    if rig.stops:
                        says(running, " is hung: ")
                finally:
                    if rig.stops:
                        rig.resume()
                callers.met(200)
                assert world.worker(running) != stopped, "whoever hung was killed"
                world.works(running)
                return
            rig.stop()
            callers.met(200)
        assert running.stop() == 0
    try:
        with world.running() as running, world.callers(running) as callers:
            says(running, " is hung: ")
            assert "did not answer within " in callers.met(503)
            rig.resume()
            callers.met(200)
            world.works(running)
    finally:
        rig.resume()


@pytest.mark.slow
@pytest.mark.parametrize("rig", kinds("retired"), indirect=True)
def test_a_retired_identity_is_refused_for_good(rig: Rig, folder: Path) -> None:
    world = World(rig, folder)
    with world.running() as running:
        world.works(running)
        assert "is running" in world.command("keys", "retire", "--name", NAME, code=3).err
        assert running.stop() == 0
    world.command("keys", "retire", "--name", "somebody.else/w", code=3)
    world.command("keys", "test")  # nothing has happened yet
    world.command("keys", "retire", "--name", NAME)
    rig.take_away()
    rig.bring_back()
    with world.running() as running, world.callers(running) as callers:
        why = callers.met(503)
        # A TPM's counter forbids it; a token's key is not there any more.
        says(running, " is refused: " if rig.backend == "tpm2" else " is absent: ")
        assert why.startswith(str(SigningStopped(Kind.RETIRED, "")))
        asked = len(callers.answers)
        eventually("they go on asking", lambda: len(callers.answers) > asked + 20)
        assert {status for status, _ in callers.answers} == {503}
