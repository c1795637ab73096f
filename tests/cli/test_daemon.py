"""`witness run` as an operator meets it: real processes, killed and asked to end."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import NAME, make, witness
from tests.cli.daemon import COMMAND, DEADLINE, Daemon, alive, call, daemon, environment, eventually, facts
from tests.simulated_log import SimulatedLog
from tests.simulated_log_server import SimulatedLogServer
from witness.core.layout import StateLayout
from witness.tlog.checkpoint import parse_checkpoint
from witness.tlog.note import Note, parse_note, parse_signature_lines, parse_vkey
from witness.tlog.signature import verify_note

LOG = SimulatedLog("log.example/daemon", size=3)


@pytest.fixture
def state(tmp_path):
    state = make(tmp_path / "state")
    assert witness("logs", "add", str(LOG.vkeys[0]), state=state).code == 0
    return state


def keys(state: Path):
    return tuple(parse_vkey(line) for line in witness("keys", "list", state=state).out.splitlines())


def submit(running: Daemon, log: SimulatedLog, old: int, new: int) -> tuple[int, bytes]:
    return running.request("POST", "/add-checkpoint", log.add_checkpoint(old, new))


def assert_cosigned(state: Path, log: SimulatedLog, size: int, answer: tuple[int, bytes]) -> None:
    status, body = answer
    assert status == 200, body
    note = Note(log.value(size).text(), parse_signature_lines(body))
    assert {verified.key for verified in verify_note(note, keys(state))} == set(keys(state))


def test_it_introduces_itself_serves_and_ends_with_0(state):
    with daemon(state) as running:
        out = running.out.read_text()
        assert f"witness {NAME} runs on {state}\n" in out
        for vkey in keys(state):
            assert f"  vkey  {vkey}\n" in out
        assert "  logs  1 configured, 0 cosigned so far\n" in out
        assert "warning: the key file is not sealed" in running.err.read_text()
        assert running.ready()
        assert NAME.encode() in running.get("/")[1]
        assert_cosigned(state, LOG, 3, submit(running, LOG, 0, 3))
        children = running.children()
        assert set(children) == {"core", "front", "feeder"}
        assert running.stop() == 0
        assert not any(alive(pid) for pid in children.values())
    layout = StateLayout(state)
    assert not layout.core_socket.exists()
    assert not layout.front_socket.exists()
    assert not layout.feeders_socket.exists()
    assert witness("checkpoint", LOG.origin, state=state).code == 0


def test_a_start_that_goes_well_says_nothing_of_trouble(state, tmp_path):
    with (state / "witness.yaml").open("a") as config:
        config.write(f"static: {{dir: {tmp_path / 'published'}}}\n")
    with daemon(state) as running:
        submit(running, LOG, 0, 3)
        eventually("it is published", lambda: any((tmp_path / "published").rglob("checkpoint*")))
        assert running.stop() == 0
    said = running.err.read_text().splitlines()
    assert [line for line in said if " WARNING " in line or " ERROR " in line] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_end_it_too(state, number):
    with daemon(state) as running:
        assert running.stop(number) == 0


def test_a_reader_of_its_output_that_goes_away_does_not_stop_it(state):
    command = [*COMMAND, "--state", str(state), "run", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    try:
        process.stdout.close()
        eventually("it is ready", lambda: call("--state", state, "status").returncode == 0)
        assert process.poll() is None
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


def test_sigterm_during_the_start_ends_it_too(state):
    running = Daemon(state)
    try:
        eventually(
            "the core is started", lambda: "core" in running.children() or running.process.poll() is not None
        )
        assert running.stop() == 0
    finally:
        running.end()


@pytest.mark.parametrize("name", ["core", "front", "feeder"])
def test_a_killed_child_comes_back_and_serves_from_where_it_was(state, name):
    with daemon(state) as running:
        port = running.url.rsplit(":", 1)[1]
        assert_cosigned(state, LOG, 2, submit(running, LOG, 0, 2))
        before = running.children()
        os.kill(before[name], signal.SIGKILL)
        eventually("a new child", lambda: running.children().get(name, before[name]) != before[name])
        if name == "front" and port != "0":
            # Port 0 was asked for, so the new front has another one; its own socket knows it.
            def moved():
                found = call("--state", state, "status", "--json")
                return found.returncode == 0 and facts(found)["front"]["front"]["listening"]

            listening = eventually("the new front answers", moved)
            url = next(each for each in listening if each.startswith("http"))
            running.out.write_text(f"  page  {url}/\n")
        eventually("it is ready again", running.ready)
        after = running.children()
        for other in {"core", "front", "feeder"} - {name}:
            assert after[other] == before[other]
        # What /readyz says may be a second old.
        eventually("the front is connected again", lambda: submit(running, LOG, 0, 3)[0] != 503)
        # The state is the one it had: the old size is refused with the size that was cosigned.
        assert submit(running, LOG, 0, 3) == (409, b"2\n")
        assert_cosigned(state, LOG, 3, submit(running, LOG, 2, 3))
        assert f"the {name} ended (SIGKILL) and is started anew" in running.err.read_text()
        assert running.stop() == 0


@pytest.mark.parametrize("name", ["core", "front", "feeder"])
def test_a_child_that_stands_still_is_killed_and_comes_back(state, name):
    with (state / "witness.yaml").open("a") as config:
        config.write("watchdog: 2\n")
    with daemon(state) as running:
        assert_cosigned(state, LOG, 2, submit(running, LOG, 0, 2))
        before = running.children()
        os.kill(before[name], signal.SIGSTOP)
        eventually("a new child", lambda: running.children().get(name, before[name]) != before[name])
        assert not alive(before[name])
        assert f"the {name} has not answered for 2 s and is killed" in running.err.read_text()

        def well():
            return facts(call("--state", state, "status", "--json"))["ready"]

        eventually("it is ready again", well)
        told = call("--state", state, "status").stdout
        assert ("started anew 1 time, 1 of them because it did not answer" in told) == (name == "core")
        if name == "core":
            eventually("the front is connected again", lambda: submit(running, LOG, 0, 3)[0] != 503)
            assert 'witness_core_restarts_total{reason="hung"} 1.0' in running.get("/metrics")[1].decode()
            assert_cosigned(state, LOG, 3, submit(running, LOG, 2, 3))
        assert running.stop() == 0


def test_a_front_that_comes_back_takes_its_port_again(state):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with daemon(state, "--listen", f"127.0.0.1:{port}") as running:
        before = running.children()["front"]
        running.get("/healthz")
        os.kill(before, signal.SIGKILL)
        eventually("it is ready again", lambda: running.ready() and running.children().get("front") != before)
        assert running.stop() == 0


def test_children_do_not_outlive_a_killed_supervisor(state):
    with daemon(state) as running:
        children = running.children()
        running.process.kill()
        running.process.wait()
        eventually("all children end", lambda: not any(alive(pid) for pid in children.values()))
    # And the folder is free for the next one.
    with daemon(state) as running:
        assert running.ready()
        assert running.stop() == 0


def test_a_second_daemon_on_the_folder_is_refused_plainly(state):
    with daemon(state) as running:
        second = call("--state", state, "run", "--listen", "127.0.0.1:0")
        assert second.returncode == 3
        error, hint = second.stderr.splitlines()[-2:]
        assert error.startswith(f"error: another witness is running on {state}")
        assert f"process {running.children()['core']}" in error
        assert hint.startswith("hint: ")
        assert running.ready()


def test_a_taken_port_is_told(state):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = call("--state", state, "run", "--listen", address)
    assert outcome.returncode == 3
    lines = outcome.stderr.splitlines()
    assert f"error: cannot listen on {address}: " in "\n".join(lines)
    assert lines[-1] == (
        "hint: another program listens there: stop it,"
        " or give another address with --listen or in witness.yaml"
    )
    assert not any("Traceback" in line for line in lines)


def test_keys_and_database_of_different_witnesses_do_not_run(tmp_path, state):
    other = make(tmp_path / "other")
    (state / "keys" / "softkey.json").write_bytes((other / "keys" / "softkey.json").read_bytes())
    outcome = call("--state", state, "run", "--listen", "127.0.0.1:0")
    assert outcome.returncode == 3
    assert "error: the database belongs to" in outcome.stderr
    assert "hint: " in outcome.stderr


def test_a_sealed_key_file_needs_its_passphrase_and_the_front_never_sees_it(tmp_path):
    state = make(tmp_path / "sealed", env={"WITNESS_PASSPHRASE": "open sesame"})
    refused = call("--state", state, "run", "--listen", "127.0.0.1:0")
    assert refused.returncode == 3
    assert "error: the key file is sealed and no passphrase is given" in refused.stderr
    wrong = call("--state", state, "run", "--listen", "127.0.0.1:0", WITNESS_PASSPHRASE="open barley")
    assert wrong.returncode == 3
    assert "open barley" not in wrong.stderr + wrong.stdout
    with daemon(state, WITNESS_PASSPHRASE="open sesame") as running:
        assert running.ready()
        environ = Path(f"/proc/{running.children()['front']}/environ").read_bytes()
        assert b"open sesame" not in environ
        assert "not sealed" not in running.err.read_text()
        os.kill(running.children()["core"], signal.SIGKILL)  # a restarted core opens it again
        eventually("it is ready again", running.ready)
        assert running.stop() == 0


def test_a_log_added_while_it_runs_is_cosigned_at_once(state):
    late = SimulatedLog("log.example/late", size=1)
    with daemon(state) as running:
        assert submit(running, late, 0, 1)[0] == 404
        assert call("--state", state, "logs", "add", str(late.vkeys[0])).returncode == 0
        # DESIGN.md: within a second. The deadline is for busy machines; proved is that no restart is due.
        eventually("the log is known", lambda: submit(running, late, 0, 1)[0] in (200, 409), 10)
        assert call("--state", state, "logs", "disable", late.origin).returncode == 0
        eventually("the log is disabled", lambda: submit(running, late, 1, 1)[0] == 404, 10)


def test_the_folder_it_is_called_in_is_not_searched_for_modules(state, tmp_path):
    trap = tmp_path / "trap"
    (trap / "witness" / "core").mkdir(parents=True)
    for package in (trap / "witness", trap / "witness" / "core"):
        (package / "__init__.py").write_text("raise SystemExit('the wrong witness')")
    running = Daemon(state, cwd=trap)
    try:
        assert running.started().ready()
        assert running.stop() == 0
    finally:
        running.end()


def test_it_finds_its_state_in_systemd_s_folder(state):
    found = call("status", "--json", STATE_DIRECTORY=str(state))
    assert facts(found)["state"] == str(state)


async def test_a_log_added_while_it_runs_is_polled_and_published(state, tmp_path):
    log = SimulatedLog("log.example/polled", size=700)
    (state / "witness.yaml").write_text(f"name: {NAME}\nstatic: {{dir: published}}\n")
    published = state / "published" / hashlib.sha256(log.origin.encode()).hexdigest() / "checkpoint"

    def published_size() -> int:
        return parse_checkpoint(parse_note(published.read_bytes()).text).size if published.exists() else 0

    async with SimulatedLogServer(log) as server:
        running = Daemon(state)
        try:
            await asyncio.to_thread(running.started)
            add = ["logs", "add", str(log.vkeys[0]), "--feeder", "tiles", "--url", server.url("tiles")]
            added = await asyncio.to_thread(call, "--state", state, *add, "--interval", "1")
            assert added.returncode == 0, added.stderr
            await asyncio.to_thread(eventually, "it is published", lambda: published_size() == 700)
            log.append(1000)
            await asyncio.to_thread(eventually, "its growth is published", lambda: published_size() == 1700)
            status = await asyncio.to_thread(call, "--state", state, "status")
            assert "feeders   1 current" in status.stdout
            assert "published, 0 waiting, 0 rejected" in status.stdout
        finally:
            await asyncio.to_thread(running.end)


# --- What the commands say beside a running daemon ---


def test_status_and_keys_of_a_running_and_of_a_stopped_witness(state):
    stopped = call("--state", state, "status")
    assert stopped.returncode == 3
    assert f"witness   {NAME}: not running\n" in stopped.stdout
    assert "logs      1 configured, 0 cosigned" in stopped.stdout
    with daemon(state) as running:
        submit(running, LOG, 0, 3)
        ready = call("--state", state, "status")
        assert ready.returncode == 0
        assert f"witness   {NAME}: ready\n" in ready.stdout
        assert "ed25519 ready" in ready.stdout
        assert "1 cosigned" in ready.stdout
        whole = facts(call("--state", state, "status", "--json"))
        assert (whole["running"], whole["ready"]) == (True, True)
        assert whole["core"]["pid"] == running.children()["core"]
        assert whole["front"]["front"]["pid"] == running.children()["front"]
        assert whole["front"]["feeding"]["pid"] == running.children()["feeder"]
        assert f"polling   process {running.children()['feeder']}\n" in ready.stdout
        listed = facts(call("--state", state, "keys", "list", "--json"))
        assert [key["state"] for key in listed] == ["ready"]


def test_status_without_a_front_is_not_ready(state):
    with daemon(state) as running:
        os.kill(running.process.pid, signal.SIGSTOP)  # nobody starts it anew meanwhile
        try:
            os.kill(running.children()["front"], signal.SIGKILL)
            eventually("the front is gone", lambda: "front" not in running.children())
            outcome = call("--state", state, "status")
            assert outcome.returncode == 1
            assert "not ready" in outcome.stdout
            assert "problem   the front does not answer" in outcome.stdout
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        eventually("it is started anew", lambda: call("--state", state, "status").returncode == 0)


def test_status_tells_that_nothing_is_polled_where_the_feeders_are_gone(state):
    with daemon(state) as running:
        os.kill(running.process.pid, signal.SIGSTOP)  # nobody starts them anew meanwhile
        try:
            os.kill(running.children()["feeder"], signal.SIGKILL)
            eventually("the feeders are gone", lambda: "feeder" not in running.children())
            outcome = call("--state", state, "status")
            assert outcome.returncode == 0  # what is pushed is cosigned as before
            assert "problem   the feeders do not answer, and no log is polled: " in outcome.stdout
            assert running.get("/")[0] == running.get("/metrics")[0] == 200
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        eventually("they are started anew", lambda: "problem" not in call("--state", state, "status").stdout)


def test_without_feeders_there_is_no_process_for_them(state):
    config = StateLayout(state).config
    config.write_text(config.read_text() + "feeders:\n  enabled: false\n")
    with daemon(state) as running:
        assert set(running.children()) == {"core", "front"}
        outcome = call("--state", state, "status")
        assert outcome.returncode == 0
        assert "polling" not in outcome.stdout
        assert "problem" not in outcome.stdout


def test_checkpoint_and_the_monitoring_endpoint_agree(state):
    with daemon(state) as running:
        submit(running, LOG, 0, 3)
        status, body = running.get(f"/{hashlib.sha256(LOG.origin.encode()).hexdigest()}/checkpoint")
        assert status == 200
        assert call("--state", state, "checkpoint", LOG.origin).stdout.encode() == body
        assert parse_checkpoint(parse_note(body).text).size == 3


def test_core_front_and_feeder_are_small_when_idle(state):
    with daemon(state) as running:
        running.ready()
        # Proportional: what the three share of Python and its libraries is counted once.
        kilobytes = sum(
            int(line.split()[1])
            for pid in running.children().values()
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        )
        assert kilobytes < 150_000, f"{kilobytes} kB"
