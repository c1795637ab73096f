"""`witness probe`: a proof that holds, and that fails where something is wrong."""

import json
import stat
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.cli.command import NAME, make, witness
from tests.cli.daemon import daemon
from witness.cli.probe_log import ProbeLog, open_probe_log
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook
from witness.tlog import merkle
from witness.tlog.submission import parse_add_checkpoint

HOPS = [
    "probe log configured",
    "core answers",
    "front answers",
    "size learnt",
    "checkpoint cosigned",
    "cosignatures verify",
    "core shows the size",
    "monitors get the checkpoint",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    state = tmp_path_factory.mktemp("probe") / "state"
    assert witness("init", "--name", NAME, state=state).code == 0
    with daemon(state) as running:
        yield running


def size(state):
    with LogBook(StateLayout(state).database) as book:
        return book.get(f"{NAME}/probe")[1].size


def test_every_hop_is_named_and_ticked(running):
    outcome = witness("probe", state=running.state)
    assert outcome.code == 0, outcome.out + outcome.err
    lines = outcome.out.splitlines()
    assert [line[2:30].strip() for line in lines] == HOPS
    assert all(line.startswith("✓ ") and " ms  " in line for line in lines)
    assert "ed25519; ml-dsa-44" in outcome.out


def test_each_probe_grows_the_log_by_one(running):
    witness("probe", state=running.state)
    before = size(running.state)
    outcome = witness("probe", "--json", state=running.state)
    assert outcome.code == 0
    assert outcome.json["ok"] is True
    assert [hop["hop"] for hop in outcome.json["hops"]] == HOPS
    assert size(running.state) == before + 1
    with LogBook(StateLayout(running.state).database) as book:
        assert [record.origin for record, _ in book.all()] == [f"{NAME}/probe"]


def test_a_given_address_is_probed(running):
    outcome = witness("probe", "--url", running.url + "/", state=running.state)
    assert outcome.code == 0
    assert running.url in outcome.out


def test_its_key_is_the_operators_alone_and_stays(running):
    file = running.state / "keys" / "probe.json"
    witness("probe", state=running.state)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    witness("probe", state=running.state)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_disabled_probe_log_is_a_cross_with_a_hint(running):
    witness("probe", state=running.state)
    witness("logs", "disable", f"{NAME}/probe", state=running.state)
    try:
        outcome = witness("probe", state=running.state)
        assert outcome.code == 1
        assert outcome.out.startswith("✗ probe log configured")
        assert f"hint: witness logs enable {NAME}/probe" in outcome.err
    finally:
        witness("logs", "enable", f"{NAME}/probe", state=running.state)


def test_an_address_where_nobody_is_is_the_world_s_failure(running):
    outcome = witness("probe", "--url", "http://127.0.0.1:9", state=running.state)
    assert outcome.code == 3
    assert outcome.out.splitlines()[-1].startswith("✗ front answers")
    assert "refused" in outcome.error()


class Impostor(BaseHTTPRequestHandler):
    """Answers as another program than this witness would."""

    status, kind, body = 200, "text/plain", b"hello\n"

    def do_GET(self):
        self.reply()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply()

    def reply(self):
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("reply", "hop", "words"),
    [
        ((409, "text/x.tlog.size; charset=utf-8", b"5\n"), "size learnt", "charset=utf-8"),
        ((409, "text/x.tlog.size", b"5"), "size learnt", "409"),
        ((409, "text/x.tlog.size", b"five\n"), "size learnt", "409"),
        ((500, "text/plain", b"oh dear\n"), "size learnt", "500 oh dear"),
        # The size seems learnt and the checkpoint cosigned, but nothing verifies.
        ((200, "text/plain", b"hello\n"), "cosignatures verify", "not signature lines"),
        ((409, "text/x.tlog.size", b"5\n"), "checkpoint cosigned", "another probe was faster"),
    ],
)
def test_an_address_that_is_not_this_witness_is_answered_no(running, reply, hop, words):
    handler = type("Handler", (Impostor,), dict(zip(("status", "kind", "body"), reply, strict=True)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        outcome = witness("probe", "--json", "--url", url, state=running.state)
    finally:
        server.shutdown()
        server.server_close()
    assert outcome.code == 1
    facts = json.loads(outcome.out)
    assert facts["ok"] is False
    failed = [each for each in facts["hops"] if not each["ok"]]
    assert len(failed) == 1
    assert words in outcome.err
    assert failed[0]["hop"] == hop


def test_without_a_daemon_it_says_so(tmp_path):
    outcome = witness("probe", state=make(tmp_path / "s"))
    assert outcome.code == 3
    assert "✗ core answers" in outcome.out
    assert "hint: witness run starts it" in outcome.err


# --- Its log ---


def test_the_probe_log_is_a_log(tmp_path):
    log = open_probe_log(tmp_path / "probe.json", "w.example/probe")
    plain = merkle.MemoryTree()
    for number in range(70):
        assert log.checkpoint(number).root == plain.root()
        plain.append(b"witness probe\n")
    for old, new in ((1, 2), (5, 6), (63, 64), (1_000_000_006, 1_000_000_007)):
        parsed = parse_add_checkpoint(log.submission(old, new))
        roots = log.checkpoint(old).root, log.checkpoint(new).root
        merkle.verify_consistency(old, new, *roots, parsed.proof)
        assert parsed.checkpoint == log.checkpoint(new)


def test_the_probe_log_s_key_is_read_again(tmp_path):
    first = open_probe_log(tmp_path / "probe.json", "w.example/probe")
    again = open_probe_log(tmp_path / "probe.json", "w.example/probe")
    assert isinstance(again, ProbeLog)
    assert again.key == first.key


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"signer": 5}', '{"signer": "PRIVATE+KEY+x"}', "\x00"])
def test_a_broken_probe_key_is_told(tmp_path, content):
    state = make(tmp_path / "s")
    (state / "keys" / "probe.json").write_text(content)
    outcome = witness("probe", state=state)
    assert outcome.code == 3
    assert "is not a probe's key file" in outcome.error()
    assert "hint: remove it" in outcome.err
