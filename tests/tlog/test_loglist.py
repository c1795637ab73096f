"""`logs/v0` lists: strict by the specification, lenient so that one bad entry spoils nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from witness.tlog.loglist import (
    LogList,
    LogListEntry,
    MalformedLogList,
    SkippedEntry,
    parse_log_list,
)
from witness.tlog.note import SignatureType, make_vkey

if TYPE_CHECKING:
    from pathlib import Path

A = make_vkey("a.example/log", SignatureType.ED25519, bytes(range(32)))
B = make_vkey("b.example/log", SignatureType.ED25519, bytes(range(1, 33)))
COSIGNER = make_vkey("c.example/log", SignatureType.COSIGNATURE_ED25519, bytes(range(2, 34)))
UNKNOWN_TYPE = "a.example/log+63d51b2c+f2E="

ENTRY_A = f"vkey {A}\nqpd 10\ncontact a\n"
ENTRY_B = f"vkey {B}\norigin the origin of b\nqpd 86400\ncontact b@example | and more\n"
READ_A = LogListEntry(A, A.name, 10, "a")
READ_B = LogListEntry(B, "the origin of b", 86400, "b@example | and more")


def strict(text: str) -> LogList:
    return parse_log_list(text.encode(), strict=True)


def lenient(text: str) -> LogList:
    return parse_log_list(text.encode())


class TestSharedCases:
    def test_strict_results(self, testdata: Path) -> None:
        cases = json.loads((testdata / "loglists" / "cases.json").read_bytes())["cases"]
        valid = {}
        for case in cases:
            try:
                log_list = strict(case["list"])
            except MalformedLogList:
                valid[case["name"]] = False
            else:
                valid[case["name"]] = True
                assert len(log_list.entries) == case["logs"]
                assert log_list.skipped == ()
        assert valid == {case["name"]: case["valid"] for case in cases}
        assert set(valid.values()) == {True, False}

    def test_a_list_without_a_contact_in_use_elsewhere(self, testdata: Path) -> None:
        cases = json.loads((testdata / "loglists" / "cases.json").read_bytes())["cases"]
        (case,) = (case for case in cases if case.get("valid_for_omniwitness"))
        log_list = lenient(case["list"])
        assert log_list.skipped == ()
        assert [(entry.origin, entry.qpd, entry.contact) for entry in log_list.entries] == [
            ("sum.golang.org", 86400, "https://tlog.foo.org/contact"),
            ("something-not-equal-to-vkey-keyname", 24, "sysadmin (at) bar.org"),
            ("tlog.andxor.it", 1, ""),
        ]

    def test_the_pull_sequence(self, testdata: Path) -> None:
        sequence = json.loads((testdata / "loglists" / "cases.json").read_bytes())["pull_sequence"]
        known: dict[str, list[str]] = {}
        results = []
        for step in sequence["steps"]:
            log_list = lenient(step["list"])
            assert log_list.skipped == ()
            listed = {entry.origin: [str(entry.vkey)] for entry in log_list.entries}
            refused = any(known.get(origin, keys) != keys for origin, keys in listed.items())
            if not refused:
                known |= listed
            results.append(not refused)
        assert (
            results == [step["result"].startswith("ok") for step in sequence["steps"]] == [True, True, False]
        )
        assert known == {state["origin"]: state["keys"] for state in sequence["state_after"]}

    @pytest.mark.parametrize(
        ("name", "logs"),
        [
            ("staging/log-list-100qps-40klogs.1", 11),
            ("staging/log-list-10qps-4klogs.1", 1),
            ("testing/log-list.1", 9),
        ],
    )
    def test_the_witness_network_s_lists(self, testdata: Path, name: str, logs: int) -> None:
        data = (testdata / "loglists" / "witness-network-lists" / name).read_bytes()
        log_list = parse_log_list(data, strict=True)
        assert parse_log_list(data) == log_list
        # Nothing is lost: what was read, written out again, is the list without comments and blank lines.
        written = ["logs/v0"]
        for entry in log_list.entries:
            written.append(f"vkey {entry.vkey}")
            if entry.origin != entry.vkey.name:
                written.append(f"origin {entry.origin}")
            written += [f"qpd {entry.qpd}", f"contact {entry.contact}"]
        lines = [line for line in data.decode().splitlines() if line and not line.startswith("#")]
        assert written == lines
        assert len(log_list.entries) == logs

    def test_the_keys_of_omniwitness_s_logs(self, testdata: Path) -> None:
        """Its list is YAML, another format; its origins and keys, ECDSA among them, fit into this one."""
        lines = (testdata / "loglists" / "omniwitness" / "logs.yaml").read_text().splitlines()
        logs: list[tuple[str, str]] = []
        origin = ""
        for line in lines:
            key, _, value = line.strip().removeprefix("- ").partition(": ")
            if key == "Origin":
                origin = value
            elif key == "PublicKey":
                logs.append((origin, value))
        log_list = lenient("logs/v0\n" + "".join(f"vkey {key}\norigin {origin}\n" for origin, key in logs))
        assert [(entry.origin, str(entry.vkey)) for entry in log_list.entries] == logs
        assert log_list.skipped == ()
        assert len(logs) >= 14


class TestBothWays:
    @pytest.mark.parametrize("read", [strict, lenient])
    def test_entries(self, read: type[LogList]) -> None:
        text = f"# c\n\n\t logs/v0 \r\n{ENTRY_A}\n  # c\n{ENTRY_B}"
        assert read(text) == LogList((READ_A, READ_B), ())
        assert read(text.replace("\n", "\r\n")) == LogList((READ_A, READ_B), ())
        assert read(text.replace("\n", "\n\n \t")) == LogList((READ_A, READ_B), ())
        assert read(text.rstrip("\n")) == LogList((READ_A, READ_B), ())

    @pytest.mark.parametrize("read", [strict, lenient])
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", 1),
            ("\n\n# only comments\n", 1),
            (ENTRY_A, 1),
            (f"\n{ENTRY_A}", 2),
            (f"# c\nlogs/v1\n{ENTRY_A}", 2),
            (f"logs/v0 \u200b\n{ENTRY_A}", 1),
            (f"logs/v0 # comment\n{ENTRY_A}", 1),
            (f"LOGS/V0\n{ENTRY_A}", 1),
            (f"\ufefflogs/v0\n{ENTRY_A}", 1),
        ],
    )
    def test_without_the_header_nothing_is_read(self, read: type[LogList], text: str, line: int) -> None:
        with pytest.raises(MalformedLogList) as refusal:
            read(text)
        assert refusal.value.line == line
        assert "logs/v0" in refusal.value.reason


BAD_ENTRIES = [
    # (entry, the line of its fault counted from its first, a word of the reason)
    ("vkey\nqpd 10\ncontact x\n", 0, "without a value"),
    (f"vkey {A} and more\nqpd 10\ncontact x\n", 0, "vkey"),
    (f"vkey  {A}\nqpd 10\ncontact x\n", 0, "more than one space"),
    (f"vkey\t{A}\nqpd 10\ncontact x\n", 0, "space"),
    ("vkey nonsense\nqpd 10\ncontact x\n", 0, "vkey"),
    (f"vkey {str(A).replace('a.example', 'z.example')}\nqpd 10\ncontact x\n", 0, "vkey"),
    (f"vkey {UNKNOWN_TYPE}\nqpd 10\ncontact x\n", 0, "type"),
    (f"vkey {A}\norigin\nqpd 10\ncontact x\n", 1, "origin without a value"),
    (f"vkey {A}\norigin  x\nqpd 10\ncontact x\n", 1, "more than one space"),
    (f"vkey {A}\norigin {'x' * 256}\nqpd 10\ncontact x\n", 1, "255 bytes"),
    (f"vkey {A}\norigin {'é' * 128}\nqpd 10\ncontact x\n", 1, "255 bytes"),
    (f"vkey {A}\norigin a\tb\nqpd 10\ncontact x\n", 1, "control"),
    (f"vkey {A}\norigin a\x00b\nqpd 10\ncontact x\n", 1, "control"),
    (f"vkey {A}\norigin x\norigin y\nqpd 10\ncontact x\n", 2, "repeated or out of order"),
    (f"vkey {A}\nqpd 10\norigin x\ncontact x\n", 2, "repeated or out of order"),
    (f"vkey {A}\nqpd 10\nqpd 10\ncontact x\n", 2, "repeated or out of order"),
    *(
        (f"vkey {A}\nqpd {qpd}\ncontact x\n", 1, "qpd is not")
        for qpd in ("0", "-1", "+1", "01", "1.0", "1e3", "1_000", "1 2", "2147483648", "9" * 5000, "١", "x")
    ),
    (f"vkey {A}\nqpd\ncontact x\n", 1, "qpd without a value"),
    (f"vkey {A}\nqpd 10\ncontact\n", 2, "contact without a value"),
    ("qpd 10\ncontact x\n", 0, "without vkey"),
    ("origin x\nqpd 10\ncontact x\n", 0, "without vkey"),
    ("contact x\n", 0, "without vkey"),
]


class TestFaults:
    @pytest.mark.parametrize(("entry", "line", "reason"), BAD_ENTRIES)
    def test_strictly_the_first_fault_ends_it(self, entry: str, line: int, reason: str) -> None:
        with pytest.raises(MalformedLogList) as refusal:
            strict(f"logs/v0\n{ENTRY_A}{entry}{ENTRY_B}")
        assert refusal.value.line == 5 + line
        assert reason in refusal.value.reason
        assert str(refusal.value).startswith(f"line {refusal.value.line}: ")

    @pytest.mark.parametrize(("entry", "line", "reason"), BAD_ENTRIES)
    def test_leniently_the_other_entries_stay(self, entry: str, line: int, reason: str) -> None:
        log_list = lenient(f"logs/v0\n{ENTRY_A}{entry}{ENTRY_B}")
        assert log_list.entries == (READ_A, READ_B)
        (skipped,) = log_list.skipped
        assert skipped.line == 5 + line
        assert reason in skipped.reason

    @pytest.mark.parametrize(("entry", "line", "reason"), BAD_ENTRIES)
    def test_leniently_the_fault_may_stand_first_or_last(self, entry: str, line: int, reason: str) -> None:
        assert lenient(f"logs/v0\n{entry}{ENTRY_A}").entries == (READ_A,)
        assert lenient(f"logs/v0\n{ENTRY_A}{entry}").entries == (READ_A,)

    def test_bytes_that_are_not_utf_8_spoil_their_entry_only(self) -> None:
        for bad in (b"origin \xff\n", b"origin a\xed\xa0\x80b\n"):
            entry = f"vkey {A}\n".encode() + bad + b"qpd 10\ncontact x\n"
            data = b"logs/v0\n" + ENTRY_A.encode() + entry + ENTRY_B.encode()
            assert parse_log_list(data) == LogList(
                (READ_A, READ_B), (SkippedEntry(6, "origin is not UTF-8"),)
            )
            with pytest.raises(MalformedLogList, match="line 6: origin is not UTF-8"):
                parse_log_list(data, strict=True)
        assert parse_log_list(b"# \xff\nlogs/v0\n" + ENTRY_A.encode()).entries == (READ_A,)

    def test_contact_is_any_text(self) -> None:
        for contact in ("é ☎ #1", "a\tb", "x" * 5000, "contact"):
            assert strict(f"logs/v0\nvkey {A}\nqpd 1\ncontact {contact}\n").entries[0].contact == contact

    def test_the_ends_of_qpd(self) -> None:
        for qpd in (1, 2147483647):
            assert strict(f"logs/v0\nvkey {A}\nqpd {qpd}\ncontact x\n").entries[0].qpd == qpd

    def test_an_origin_of_255_bytes(self) -> None:
        for origin in ("x" * 255, "é" * 127 + "x"):
            text = f"logs/v0\nvkey {A}\norigin {origin}\nqpd 1\ncontact x\n"
            assert strict(text).entries[0].origin == origin

    def test_a_key_name_too_long_for_an_origin_needs_one(self) -> None:
        long = make_vkey("x" * 256, SignatureType.ED25519, bytes(range(32)))
        text = f"logs/v0\nvkey {long}\nqpd 1\ncontact x\n"
        with pytest.raises(MalformedLogList, match="line 2: an origin of more than 255 bytes"):
            strict(text)
        assert strict(text.replace("qpd", "origin short\nqpd")).entries[0].origin == "short"

    def test_what_only_strict_reading_refuses(self) -> None:
        for text, line, reason in (
            (f"logs/v0\nvkey {A}\ncontact x\n", 2, "without qpd"),
            (f"logs/v0\nvkey {A}\nqpd 1\n", 2, "without contact"),
            (f"logs/v0\nvkey {COSIGNER}\nqpd 1\ncontact x\n", 2, "Ed25519"),
            (f"logs/v0\nvkey {A}\nurl x\nqpd 1\ncontact x\n", 3, "unknown keyword"),
            (f"logs/v0\nlogs/v0\n{ENTRY_A}", 2, "unknown keyword"),
        ):
            with pytest.raises(MalformedLogList) as refusal:
                strict(text)
            assert refusal.value.line == line
            assert reason in refusal.value.reason
            log_list = lenient(text)
            assert len(log_list.entries) == 1
            assert log_list.skipped == ()

    def test_a_key_never_takes_the_origin_of_a_broken_entry_below_it(self) -> None:
        for vkey_line in ("vkey", f"vkey\t{B}", f"vkey\u00a0{B}", "vkey x"):
            log_list = lenient(f"logs/v0\nvkey {A}\n{vkey_line}\norigin victim.example\nqpd 1\ncontact x\n")
            assert log_list.entries == (LogListEntry(A, A.name, 0, ""),)
            assert [skipped.line for skipped in log_list.skipped] == [3]
        log_list = lenient(f"logs/v0\n{ENTRY_A}origin victim.example\n")
        assert log_list.entries == (READ_A,)
        assert [skipped.line for skipped in log_list.skipped] == [5]


LINES = st.one_of(
    st.sampled_from(["logs/v0", f"vkey {A}", f"vkey {B}", f"vkey {COSIGNER}", f"vkey {UNKNOWN_TYPE}"]),
    st.sampled_from(["origin x", "qpd 10", "contact y", "qpd 0", "origin", "", "# c", "other z"]),
    st.builds("{} {}".format, st.sampled_from(["vkey", "origin", "qpd", "contact"]), st.text()),
    st.text(),
)


@given(
    st.one_of(
        st.binary(),
        st.lists(LINES).map(lambda lines: "\n".join(["logs/v0", *lines]).encode(errors="replace")),
        st.builds(lambda text, more: f"logs/v0\nvkey {A}\n".encode() + text + more, st.binary(), st.binary()),
    )
)
def test_any_bytes_give_a_value_or_malformed_log_list(data: bytes) -> None:
    lines = range(1, data.count(b"\n") + 2)
    log_list, fault = _read(data)
    strictly, strict_fault = _read(data, strict=True)
    if log_list is None:
        assert fault in lines
        assert strictly is None
        return
    for entry in log_list.entries:
        assert 1 <= len(entry.origin.encode()) <= 255
        assert 0 <= entry.qpd < 2**31
        assert "\n" not in entry.origin + entry.contact
    assert all(skipped.line in lines for skipped in log_list.skipped)
    if strictly is None:
        assert strict_fault in lines
    else:
        # What is read strictly is read the same leniently.
        assert strictly == log_list


def _read(data: bytes, *, strict: bool = False) -> tuple[LogList | None, int]:
    try:
        return parse_log_list(data, strict=strict), 0
    except MalformedLogList as refusal:
        return None, refusal.line
