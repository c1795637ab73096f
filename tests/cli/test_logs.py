"""`witness logs …`, `checkpoint` and `keys`: on the database, without a daemon."""

import json
import time
from datetime import UTC, date, datetime

import pytest

from feeders.kinds import KINDS
from tests.cli.command import NAME, make, witness
from tests.simulated_log import SimulatedKey, SimulatedLog
from witness.cli.log_lists import parse as parse_list
from witness.cli.shipped import shipped
from witness.core.layout import StateLayout
from witness.core.store.base import Advance, CosignedHead, Head
from witness.core.store.logs import LogBook
from witness.core.store.sqlite import SQLiteStore
from witness.tlog.note import SignatureType, make_vkey, parse_vkey

A = str(SimulatedKey("log.example/a").vkey)
A2 = str(SimulatedKey("log.example/a", number=2).vkey)
A_ECDSA = str(SimulatedKey("log.example/a", SignatureType.ECDSA).vkey)
B = str(SimulatedKey("log.example/b").vkey)
WITNESS = str(SimulatedKey("w.example", SignatureType.COSIGNATURE_ED25519).vkey)


@pytest.fixture
def state(tmp_path):
    return make(tmp_path / "state")


def listed(state):
    return {each["origin"]: each for each in witness("logs", "list", "--json", state=state).json}


# --- add ---


def test_add_takes_the_origin_from_the_vkey(state):
    outcome = witness("logs", "add", A, state=state)
    assert (outcome.code, outcome.out) == (0, "added log.example/a with 1 key\n")
    log = listed(state)["log.example/a"]
    assert log["vkeys"] == [A]
    assert (log["feeder"], log["disabled"], log["size"]) == ("none", False, None)


def test_add_takes_every_option_of_the_contract(state):
    outcome = witness(
        "logs", "add", A, A_ECDSA, "--origin", "an origin with spaces", "--feeder", "tiles",
        "--url", "https://log.example/t", "--interval", "2.5", "--qpd", "86400", "--contact", "a@log.example",
        state=state,
    )  # fmt: skip
    assert outcome.code == 0
    log = witness("logs", "show", "an origin with spaces", "--json", state=state).json
    assert log["vkeys"] == [A, A_ECDSA]
    assert (log["feeder"], log["url"], log["interval"]) == ("tiles", "https://log.example/t", 2.5)
    assert (log["qpd"], log["contact"], log["source"]) == (86400, "a@log.example", "cli")


def test_add_gives_a_known_log_a_further_key_and_keeps_the_rest(state):
    witness("logs", "add", A, "--contact", "first", state=state)
    outcome = witness("logs", "add", A, A2, "--json", state=state)
    assert outcome.json == {"origin": "log.example/a", "new": False, "new_keys": [A2], "changed": False}
    log = listed(state)["log.example/a"]
    assert log["vkeys"] == [A, A2]
    assert log["contact"] == "first"


def test_adding_the_same_again_changes_nothing(state):
    witness("logs", "add", A, "--qpd", "5", state=state)
    before = listed(state)
    outcome = witness("logs", "add", A, "--qpd", "5", state=state)
    assert (outcome.code, outcome.out) == (0, "nothing new for log.example/a\n")
    assert listed(state) == before


def test_several_logs_at_once_are_named_as_their_keys_are(state):
    outcome = witness("logs", "add", A, B, state=state)
    assert outcome.code == 0
    assert outcome.out.splitlines() == [f"added {key.split('+')[0]} with 1 key" for key in (A, B)]
    assert len(listed(state)) == 2
    outcome = witness("logs", "disable", A.split("+", maxsplit=1)[0], "--json", state=state)
    assert json.loads(outcome.out) == {
        "origin": A.split("+", maxsplit=1)[0],
        "disabled": True,
        "changed": True,
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nonsense"], "vkey 'nonsense'"),
        ([A[:-4] + "AAAA"], "key ID"),
        ([WITNESS], "has type 0x04, which logs do not sign with"),
        ([A, B, "--feeder", "tiles", "--url", "https://log.example/"], "one --url or --pin is for one log"),
        ([A, "--origin", ""], "--origin"),
        ([A, "--origin", "x" * 256], "at most 255 bytes"),
        ([A, "--origin", "a\nb"], "--origin"),
        ([A, "--feeder", "tiles"], "needs --url"),
        ([A, "--feeder", "carrier-pigeon"], "carrier-pigeon"),
        ([A, "--url", "gopher://x"], "--url"),
        ([A, "--interval", "0"], "--interval"),
        ([A, "--qpd", "0"], "--qpd"),
        ([A, "--contact", "a\nb"], "--contact"),
    ],
)
def test_what_is_no_log_is_a_usage_error_and_adds_nothing(state, args, words):
    outcome = witness("logs", "add", *args, state=state)
    assert outcome.code == 2
    assert words in outcome.err
    outcome.error()
    assert listed(state) == {}


def test_a_url_that_the_feeder_can_make_nothing_of_is_a_usage_error(state):
    outcome = witness("logs", "add", A, "--feeder", "rekor", "--url", "https://r.example", state=state)
    assert outcome.code == 2
    assert "?treeID=NUMBER" in outcome.err
    assert listed(state) == {}
    url = "https://r.example?treeID=17"
    assert witness("logs", "add", A, "--feeder", "rekor", "--url", url, state=state).code == 0


# --- list, show, disable, enable ---


def test_disable_and_enable(state):
    witness("logs", "add", A, state=state)
    assert witness("logs", "disable", "log.example/a", state=state).out == "log.example/a is disabled\n"
    assert "was disabled already" in witness("logs", "disable", "log.example/a", state=state).out
    assert listed(state)["log.example/a"]["disabled"] is True
    assert "disabled" in witness("logs", "list", state=state).out
    assert witness("logs", "enable", "log.example/a", state=state).code == 0
    assert listed(state)["log.example/a"]["disabled"] is False


@pytest.mark.parametrize(
    "command", [["logs", "show"], ["logs", "disable"], ["logs", "enable"], ["checkpoint"]]
)
def test_an_unknown_log_is_answered_no(state, command):
    outcome = witness(*command, "log.example/none", state=state)
    assert outcome.code == 1
    assert "log.example/none" in outcome.error()
    assert "hint: witness logs list" in outcome.err


def test_an_empty_list_says_what_to_do(state):
    outcome = witness("logs", "list", state=state)
    assert (outcome.code, outcome.out) == (0, "")
    assert "witness logs add" in outcome.err
    assert witness("logs", "list", "--json", state=state).json == []


def test_show_for_people(state):
    witness("logs", "add", A, A2, "--contact", "who \x1b[31m", "--origin", "o", state=state)
    witness("logs", "add", A, A2, "--contact", "somebody", "--origin", "o", state=state)
    out = witness("logs", "show", "o", state=state).out
    assert A in out
    assert A2 in out
    assert "contact:      somebody" in out


# --- checkpoint ---


def cosign(state, log: SimulatedLog) -> None:
    """Stores a head as the core does."""
    store = SQLiteStore(StateLayout(state).database)
    [(record, _)] = [each for each in store.load() if each[0].origin == log.origin]
    head = Head(log.size, log.root(), 1_700_000_000)
    cosigned = CosignedHead(head, log.checkpoint(), "— w.example AAAAAAAA\n".encode())
    assert store.advance([Advance(record.log_id, None, cosigned)]) == [True]
    store.close()


def test_checkpoint_prints_the_note_as_monitors_get_it(state):
    log = SimulatedLog("log.example/a", size=5)
    witness("logs", "add", A, state=state)
    missing = witness("checkpoint", "log.example/a", state=state)
    assert missing.code == 1
    assert "nothing of 'log.example/a' was cosigned yet" in missing.error()
    cosign(state, log)
    outcome = witness("checkpoint", "log.example/a", state=state)
    assert outcome.code == 0
    assert outcome.out == log.checkpoint().decode() + "— w.example AAAAAAAA\n"
    facts = witness("checkpoint", "log.example/a", "--json", state=state).json
    assert (facts["size"], facts["root"], facts["note"]) == (5, log.root().hex(), outcome.out)
    assert listed(state)["log.example/a"]["size"] == 5


# --- keys ---


def test_keys_list_prints_what_init_printed(tmp_path):
    made = witness("init", "--name", NAME, state=tmp_path / "s")
    found = witness("keys", "list", state=tmp_path / "s")
    assert found.out == made.out
    types = [parse_vkey(line).type for line in found.out.splitlines()]
    assert types == [4, 6]


def test_keys_list_json_has_every_state(tmp_path):
    witness("init", "--name", NAME, state=tmp_path / "s")
    facts = witness("keys", "list", "--json", state=tmp_path / "s").json
    assert [each["algorithm"] for each in facts] == ["ed25519", "ml-dsa-44"]
    assert {each["state"] for each in facts} == {"not running"}
    assert [each["type"] for each in facts] == [4, 6]


def test_a_lost_key_file_is_told(state):
    (state / "keys" / "softkey.json").unlink()
    outcome = witness("keys", "list", state=state)
    assert outcome.code == 3
    assert "there is no key file" in outcome.error()


# --- import ---


def network_list(*entries: tuple[str, str]) -> str:
    return "logs/v0\n" + "".join(
        f"\nvkey {vkey}\norigin {origin}\nqpd 100\ncontact c\n" for vkey, origin in entries
    )


def do_import(state, text: str, *args: str):
    file = state.parent / "list"
    file.write_text(text)
    return witness("logs", "import", file, *args, state=state)


def test_importing_twice_is_importing_once(state):
    text = network_list((A, "log.example/a"), (B, "log.example/b"))
    assert (
        do_import(state, text).out == "2 logs added, 0 known already, 0 changed keys not taken, 0 skipped\n"
    )
    before = listed(state)
    assert before["log.example/a"]["qpd"] == 100
    assert before["log.example/a"]["source"] == "list list"
    again = do_import(state, text)
    assert (again.code, again.out) == (
        0,
        "0 logs added, 2 known already, 0 changed keys not taken, 0 skipped\n",
    )
    assert listed(state) == before


def test_an_import_changes_no_known_log(state):
    witness("logs", "add", A, "--contact", "mine", "--feeder", "tiles", "--url", "https://mine", state=state)
    witness("logs", "disable", "log.example/a", state=state)
    before = listed(state)
    do_import(state, network_list((A, "log.example/a")))
    assert listed(state) == before


def test_a_changed_key_of_a_known_log_is_told_and_not_taken(state):
    do_import(state, network_list((A, "log.example/a")))
    before = listed(state)
    outcome = do_import(state, network_list((A2, "log.example/a"), (B, "log.example/b")))
    assert outcome.code == 0
    assert "warning: changed key: log.example/a: the list shows another key" in outcome.err
    assert A2 in outcome.err
    assert "1 log added, 0 known already, 1 changed key not taken" in outcome.out
    assert listed(state)["log.example/a"] == before["log.example/a"]


def test_a_new_log_that_a_list_names_once_a_key_gets_all_of_them(state):
    do_import(state, network_list((A, "log.example/a"), (B, "log.example/b"), (A_ECDSA, "log.example/a")))
    assert listed(state)["log.example/a"]["vkeys"] == [A, A_ECDSA]


def test_one_bad_entry_never_spoils_a_list(state):
    text = network_list((A, "log.example/a"), ("rubbish", "x"), (WITNESS, "w.example"), (B, "log.example/b"))
    outcome = do_import(state, text, "--json")
    assert outcome.code == 0
    assert outcome.json["added"] == ["log.example/a", "log.example/b"]
    reasons = [each["reason"] for each in outcome.json["skipped"]]
    assert len(reasons) == 2
    assert "vkey" in reasons[0]
    assert "0x04" in reasons[1]
    assert outcome.err.count("warning: skipped: ") == 2


def test_one_refused_key_does_not_keep_a_logs_other_keys_away(state):
    not_on_the_curve = str(make_vkey("log.example/a", SignatureType.ED25519, b"\x02" + bytes(31)))
    outcome = do_import(state, network_list((not_on_the_curve, "log.example/a"), (A, "log.example/a")))
    assert outcome.code == 0
    assert "warning: skipped: log.example/a: " in outcome.err
    assert "1 log added, 0 known already, 0 changed keys not taken, 1 skipped" in outcome.out
    assert listed(state)["log.example/a"]["vkeys"] == [A]


OURS = f"""
logs:
  - origin: log.example/a
    vkeys: [{A}, {A2}]
    feeder: tiles
    url: https://log.example/a
    interval: 5
    qpd: 7
    contact: someone
  - {{origin: broken, vkeys: [{B}], feeder: pigeon, url: "https://x"}}
  - {{origin: no url, vkeys: [{B}], feeder: tiles}}
  - {{origin: no keys, vkeys: []}}
  - {{origin: typo, vkeys: [{B}], contakt: x}}
  - {{vkeys: [{B}]}}
  - just text
  - {{origin: a witness's, vkeys: [{WITNESS}]}}
  - origin: log.example/b
    vkeys: [{B}]
    disabled: true
"""


def test_our_yaml(state):
    outcome = do_import(state, OURS)
    assert outcome.code == 0
    found = listed(state)
    assert list(found) == ["log.example/a", "log.example/b"]
    a = found["log.example/a"]
    assert a["vkeys"] == [A, A2]
    assert (a["feeder"], a["url"], a["interval"], a["qpd"]) == ("tiles", "https://log.example/a", 5, 7)
    assert found["log.example/b"]["disabled"] is True
    skipped = [line for line in outcome.err.splitlines() if line.startswith("warning: skipped: line ")]
    assert len(skipped) == 6
    assert "warning: skipped: a witness's: " in outcome.err
    assert "line 10: logs[1].feeder: must be one of" in skipped[0]
    assert "contakt: unknown key" in skipped[3]


def test_an_entry_says_where_it_is_from(state):
    first = f'logs: [{{origin: log.example/a, vkeys: [{A}], source: "its page", date: 2026-11-23}}]'
    assert do_import(state, first).code == 0
    second = f'logs: [{{origin: log.example/b, vkeys: [{B}], source: "its page", date: "2026-11-22"}}]'
    assert do_import(state, second).code == 0
    assert listed(state)["log.example/a"]["source"] == "list list: its page, 2026-11-23"
    shown = witness("logs", "show", "log.example/b", state=state).out
    assert "source:       list list: its page, 2026-11-22\n" in shown


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("source: x, date: 2026-02-30", "date: must be a day that there is, not '2026-02-30'"),
        ("source: x, date: 23.11.2026", "date: must be a day, year-month-day"),
        ("source: x, date: 2026-11-23 10:00:00", "date: must be a day, year-month-day"),
        ("source: x, date: 20261123", "date: must be a day, year-month-day"),
        ('source: "two\\nlines"', "source: must be one line of text"),
        ('source: ""', "source: must be one line of text"),
        ("date: 2026-11-23", "source is missing"),
    ],
)
def test_where_an_entry_is_from_must_be_told_rightly(state, fields, reason):
    outcome = do_import(state, f"logs: [{{origin: log.example/a, vkeys: [{A}], {fields}}}]")
    assert outcome.code == 1  # and nothing else is in the list
    assert reason in outcome.err
    assert listed(state) == {}


def test_an_import_of_which_nothing_could_be_taken_says_no(state):
    outcome = do_import(state, f"logs: [{{origin: log.example/a, vkeys: [{A}], feeder: pigeon}}, 7]")
    assert outcome.code == 1
    assert "0 logs added, 0 known already, 0 changed keys not taken, 2 skipped\n" in outcome.out
    assert "no entry could be taken" in outcome.error()
    # A witness's key is refused by the log book, which is the same answer.
    assert do_import(state, f"logs: [{{origin: w.example, vkeys: [{WITNESS}]}}]", "--json").code == 1
    # An empty list asks for nothing, and what is known already was taken before.
    assert do_import(state, "logs/v0\n").code == 0
    assert do_import(state, network_list((A, "log.example/a"))).code == 0
    text = network_list((A, "log.example/a")) + "\nvkey nonsense\nqpd 1\ncontact c\n"
    assert do_import(state, text).code == 0


def test_omniwitness_yaml(state, testdata):
    outcome = do_import(state, (testdata / "loglists/omniwitness/logs.yaml").read_text())
    assert (outcome.code, outcome.err) == (0, "")
    found = listed(state)
    assert len(found) == 14
    assert found["go.sum database tree"]["feeder"] == "sumdb"
    assert {each["feeder"] for each in found.values()} == {
        "sumdb",
        "serverless",
        "rekor",
        "pixel",
        "tiles",
        "none",
    }
    assert not any(each["disabled"] for each in found.values())


@pytest.mark.parametrize("name", ["testing/log-list.1", "staging/log-list-100qps-40klogs.1"])
def test_the_network_s_own_lists(state, testdata, name):
    text = (testdata / "loglists/witness-network-lists" / name).read_text()
    outcome = do_import(state, text)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(listed(state)) == sum(line.startswith("vkey ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("hello", "mapping"),
        ("logs/v1\n", "logs/v0"),
        ("things: []", "things: unknown key"),
        ("logs: []\nmore: []", "more: unknown key"),
        ("logs: {}", "must be a list"),
        ("[" * 100000, "nested too deeply"),
        ("logs: [", "not YAML"),
    ],
)
def test_what_is_no_list_imports_nothing(state, text, words):
    outcome = do_import(state, text)
    assert outcome.code == 3
    assert words in outcome.error()
    assert listed(state) == {}


def test_a_missing_file_is_told(state):
    outcome = witness("logs", "import", state / "none", state=state)
    assert outcome.code == 3
    assert "No such file" in outcome.error()


def test_a_list_of_a_whole_network(state):
    count = 44_000
    text = "logs/v0\n" + "".join(
        f"vkey {A}\norigin log.example/{n}\nqpd 1\ncontact c\n" for n in range(count)
    )
    begun = time.perf_counter()
    outcome = do_import(state, text, "--json")
    print(f"{count} logs in {time.perf_counter() - begun:.1f} s")
    assert len(outcome.json["added"]) == count
    with LogBook(StateLayout(state).database) as book:
        assert book.count() == count
        assert len({record.change for record, _ in book.all()}) == count


def test_a_chunk_that_fails_half_way_adds_nothing(state, monkeypatch):
    real = LogBook.add

    def failing(self, origin, *args, **kwargs):
        if origin == "log.example/b":
            raise OSError(28, "No space left on device", "witness.db")
        return real(self, origin, *args, **kwargs)

    monkeypatch.setattr(LogBook, "add", failing)
    outcome = do_import(state, network_list((A, "log.example/a"), (B, "log.example/b")))
    assert outcome.code == 3
    assert listed(state) == {}


# --- The shipped list ---


def test_the_shipped_list_is_read_whole_by_our_own_importer():
    logs, skipped = parse_list(shipped("logs.yaml").read_bytes())
    assert skipped == []
    assert len({log.origin for log in logs}) == len(logs) >= 59
    assert {log.settings.feeder for log in logs} == set(KINDS), "a family without a log"
    assert all(log.vkeys for log in logs)  # parse_vkey has recomputed every key ID, and points lie on curves


def test_every_shipped_log_is_enabled_and_can_be_polled():
    from feeders.kinds import make_source
    from feeders.protocol import FeedLog
    from feeders.tools import Tools

    async def never(url, limit):
        raise AssertionError(url)

    logs, _ = parse_list(shipped("logs.yaml").read_bytes())
    for log in logs:
        assert not log.settings.disabled, log.origin
        make_source(FeedLog(log.origin, log.vkeys, log.settings.feeder, log.settings.url, 60), Tools(never))


def test_every_shipped_log_says_where_it_is_from_and_of_which_day():
    logs, _ = parse_list(shipped("logs.yaml").read_bytes())
    for log in logs:
        source, _, day = log.source.rpartition(", ")
        assert source, log.origin
        assert date(2025, 1, 1) < date.fromisoformat(day) <= datetime.now(UTC).date(), log.origin


def test_certificate_transparency_logs_are_asked_seldom_and_at_https():
    """There are many, and each is asked by every witness that takes the shipped list."""
    logs, _ = parse_list(shipped("logs.yaml").read_bytes())
    for log in logs:
        assert log.settings.url.startswith("https://"), log.origin
        if log.settings.feeder in ("static-ct", "rfc6962"):
            assert log.settings.interval >= 300, log.origin
            assert [(key.type, key.name) for key in log.vkeys] == [(SignatureType.RFC6962, log.origin)]


def test_the_shipped_list_agrees_with_omniwitness_s(testdata):
    ours = {log.origin: log for log in parse_list(shipped("logs.yaml").read_bytes())[0]}
    theirs, _ = parse_list((testdata / "loglists/omniwitness/logs.yaml").read_bytes())
    for log in theirs:
        assert ours[log.origin].vkeys == log.vkeys, log.origin
        assert ours[log.origin].settings.url == log.settings.url, log.origin
        if log.settings.feeder != "none":
            assert ours[log.origin].settings.feeder == log.settings.feeder, log.origin


def test_the_shipped_keys_verify_real_checkpoints(testdata):
    """Of the logs whose checkpoints are in the test data, each verifies by the key shipped for it."""
    from witness.tlog.checkpoint import parse_checkpoint
    from witness.tlog.note import parse_note
    from witness.tlog.signature import verify_note

    ours = {log.origin: log for log in parse_list(shipped("logs.yaml").read_bytes())[0]}
    index = json.loads((testdata / "checkpoints/index.json").read_text())
    entries = index if isinstance(index, list) else index["checkpoints"]
    verified = set()
    for entry in entries:
        data = (testdata / "checkpoints" / entry["file"]).read_bytes()
        if entry["origin"] in ours:
            note = parse_note(data)
            assert parse_checkpoint(note.text).origin == entry["origin"]
            if verify_note(note, ours[entry["origin"]].vkeys):
                verified.add(entry["origin"])
    assert verified >= {
        "go.sum database tree",
        "Armory Drive Prod 2",
        "log2025-1.rekor.sigstore.dev",
        "rekor.sigstore.dev - 1193050959916656506",
        "transparency.dev/armored-witness/firmware_transparency/ci/3",
        "tuscolo2026h2.sunlight.geomys.org",
    }
