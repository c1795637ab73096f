"""Trust policies: the published cases, the strict reading of each rule, and the quorum as a function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated_log import SimulatedKey
from witness.tlog.note import SignatureType
from witness.tlog.policy import (
    MAX_DEFINITIONS,
    MAX_POLICY_SIZE,
    Dialect,
    MalformedPolicy,
    Policy,
    PolicyGroup,
    PolicyWitness,
    cosigner_key,
    parse_policy,
    sigsum_log_key,
)

LOG = SimulatedKey("example.com/log").vkey
A = SimulatedKey("example.com/a", SignatureType.COSIGNATURE_ED25519).vkey
B = SimulatedKey("example.com/b", SignatureType.COSIGNATURE_MLDSA44).vkey
DIALECTS = {"c2sp": Dialect.C2SP, "sigsum-hex": Dialect.SIGSUM, "formats": Dialect.TRANSPARENCY_DEV}


def fault(text: str | bytes, dialect: Dialect = Dialect.C2SP) -> MalformedPolicy:
    with pytest.raises(MalformedPolicy) as caught:
        parse_policy(text.encode() if isinstance(text, str) else text, dialect)
    return caught.value


def test_published_cases(testdata: Path) -> None:
    cases = json.loads((testdata / "policy/cases.json").read_text())["cases"]
    seen = 0
    for case in cases:
        text, dialect = case["policy"].encode(), DIALECTS[case["dialect"]]
        if case.get("c2sp_valid") is False:
            fault(text)
        if case["valid"] is False:
            error = fault(text, dialect)
            assert case.get("error_line") in {None, error.line}, case["name"]
        else:  # true, or implementations differ where the specification has no such rule
            policy = parse_policy(text, dialect)
            for row in case.get("quorum", ()):
                assert policy.satisfied(row["witnesses"]) is row["satisfied"], (case["name"], row)
        seen += 1
    assert seen > 40


def test_policies_in_use(testdata: Path) -> None:
    folder = testdata / "policy/files"
    for entry in json.loads((folder / "index.json").read_text()):
        data = (folder / entry["file"]).read_bytes()
        raw = "sigsum" in entry["file"]
        if entry["strict"].startswith("strict parse fails: line 1"):
            assert fault(data).line == 1
            assert parse_policy(data, Dialect.TRANSPARENCY_DEV).witnesses
            continue
        policy = parse_policy(data, Dialect.SIGSUM if raw else Dialect.C2SP)
        found = (
            f"valid: {len(policy.logs)} logs, {len(policy.witnesses)} witnesses, {len(policy.groups)} groups"
        )
        assert found == entry["strict"], entry["file"]
        if raw:
            fault(data)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("quorum none\nwitness a\x7f {a}\n", 2, "control character 0x7f"),
        ("# \x0c\nquorum none\n", 1, "control character 0x0c"),
        ("\nlogs {log}\n", 2, "not a log"),
        ("log {log} u x\n", 1, "a log line"),
        ("witness a\n", 1, "a witness line"),
        ("log {a}\n", 1, "0x04"),
        ("witness a {log}\n", 1, "0x01"),
        ("log {log}\nlog {log} url\n", 2, "duplicate log"),
        ("witness a {a}\nwitness b {a}\n", 2, "duplicate witness"),
        ("witness none {a}\n", 1, "none is defined"),
        ("witness a {a}\ngroup a 1 a\n", 2, "a is defined"),
        ("witness a {a}\ngroup g 1 a none\n", 2, "none is no group member"),
        ("group g 1 a\nwitness a {a}\n", 1, "not defined on an earlier line"),
        ("witness a {a}\ngroup g 1 a\ngroup h 1 a\n", 3, "group member already"),
        ("witness a {a}\ngroup g 0 a\n", 2, "threshold"),
        ("witness a {a}\ngroup g -1 a\n", 2, "threshold"),
        ("witness a {a}\ngroup g 01 a\n", 2, "threshold"),
        ("witness a {a}\ngroup g ١ a\n", 2, "threshold"),
        ("witness a {a}\ngroup g 99999 a\n", 2, "threshold"),
        ("witness a {a}\ngroup g 2 a\n", 2, "a threshold of 2 with 1"),
        ("quorum a\nwitness a {a}\n", 1, "not defined on an earlier line"),
        ("quorum\n", 1, "a quorum line"),
        ("", 0, "no quorum line"),
    ],
)
def test_refuses(text: str, line: int, reason: str) -> None:
    error = fault(text.replace("{log}", str(LOG)).replace("{a}", str(A)))
    assert error.line == line
    assert reason in str(error)


def test_reads_what_the_grammar_leaves_free() -> None:
    policy = parse_policy(f" \t\n  # c\n\tlog \t{LOG}  #url\nwitness all {A}\nquorum all".encode())
    assert policy.logs[0].url == "#url"  # a number sign begins a comment at the line's start only
    assert policy.quorum == "all"
    assert policy.witnesses[0].key == A


def test_names_are_octets() -> None:
    policy = parse_policy(
        b"witness \xff %b\nwitness \xfe %b\nquorum \xff\n" % (str(A).encode(), str(B).encode())
    )
    first, second = (witness.name for witness in policy.witnesses)
    assert first != second
    assert policy.satisfied([first])
    assert not policy.satisfied([second])
    # The Kelvin sign is not the letter K.
    assert fault(b"witness K %b\nquorum \xe2\x84\xaa\n" % str(A).encode()).line == 2
    # Only spaces and tabs part items: this is one item, and no keyword.
    assert fault("quorum\u2003none\n").line == 1


def test_one_key_is_one_witness_under_any_name() -> None:
    other = SimulatedKey("example.com/a", SignatureType.COSIGNATURE_ED25519).vkey
    renamed = cosigner_key(type(other)(other.name, other.key_id, other.type, other.public_key))
    assert renamed == A
    assert "duplicate witness" in fault(f"witness x {A}\nwitness y {other}\n").reason


def test_limits() -> None:
    keys = [SimulatedKey(f"example.com/{n}", SignatureType.COSIGNATURE_ED25519).vkey for n in range(40)]
    witnesses = "".join(f"witness w{n} {key}\n" for n, key in enumerate(keys))
    groups = "".join(f"group g{n} any w{n}\n" for n in range(40))
    logs = "".join(f"log {SimulatedKey(f'example.com/{n}').vkey}\n" for n in range(40))
    policy = parse_policy(f"{logs}{witnesses}{groups}quorum g39\n".encode())
    assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (40, 40, 40)
    many = "witness w {a}\ngroup g0 1 w\n".replace("{a}", str(A)) + "".join(
        f"group g{n} 1 g{n - 1}\n" for n in range(1, MAX_DEFINITIONS + 1)
    )
    assert "more than" in fault(many + "quorum g1\n").reason
    assert "more than" in fault(b"#" * (MAX_POLICY_SIZE + 1)).reason


def test_a_chain_of_groups_is_no_recursion() -> None:
    lines = [
        f"witness w {A}",
        "group g0 1 w",
        *(f"group g{n} all g{n - 1}" for n in range(1, MAX_DEFINITIONS)),
    ]
    policy = parse_policy("\n".join([*lines, f"quorum g{MAX_DEFINITIONS - 1}"]).encode())
    assert policy.satisfied(["w"])
    assert not policy.satisfied([])


def test_sigsum_dialect() -> None:
    text = f"log {LOG.public_key.hex().upper()}\nwitness w {A.public_key.hex()} url\nquorum w\n"
    policy = parse_policy(text.encode(), Dialect.SIGSUM)
    assert policy.logs[0].key == sigsum_log_key(LOG.public_key)
    witness = policy.witnesses[0]
    assert witness.key is None
    assert witness.key_named(A.name) == A
    assert witness.key_named("no name") is None
    assert parse_policy(f"witness w {A}\nquorum w\n".encode()).witnesses[0].key_named("other") is None


def test_transparency_dev_dialect() -> None:
    plain = SimulatedKey("example.com/w").vkey
    text = f"witness w {plain} https://w.example #c\nquorum w # c\n".encode()
    witness = parse_policy(text, Dialect.TRANSPARENCY_DEV).witnesses[0]
    assert witness.key is not None
    assert witness.key.type is SignatureType.COSIGNATURE_ED25519
    assert witness.key.public_key == plain.public_key
    assert witness.key.key_id != plain.key_id
    assert "keyword" in fault(f"witness all {plain}\nquorum all\n", Dialect.TRANSPARENCY_DEV).reason


@st.composite
def forests(draw: st.DrawFn) -> Policy:
    """Witnesses and groups, each name a member once at most."""
    count = draw(st.integers(1, 6))
    free = [f"w{n}" for n in range(count)]
    groups = []
    for number in range(draw(st.integers(0, 4))):
        members = draw(st.lists(st.sampled_from(free), min_size=1, unique=True)) if free else []
        if not members:
            break
        free = [name for name in free if name not in members] + [f"g{number}"]
        groups.append(PolicyGroup(f"g{number}", draw(st.integers(1, len(members))), tuple(members)))
    names = [f"w{n}" for n in range(count)] + [group.name for group in groups]
    witnesses = tuple(PolicyWitness(f"w{n}", A.type, bytes([n]) * 32) for n in range(count))
    return Policy((), witnesses, tuple(groups), draw(st.sampled_from([*names, "none"])))


@given(forests(), st.data())
def test_quorum_is_the_definition(policy: Policy, data: st.DataObject) -> None:
    names = [witness.name for witness in policy.witnesses]
    signed = data.draw(st.lists(st.sampled_from([*names, *(group.name for group in policy.groups), "x"])))
    groups = {group.name: group for group in policy.groups}

    def holds(name: str) -> bool:  # the recursive definition, on trees that are known to be small
        if name in groups:
            return sum(map(holds, groups[name].members)) >= groups[name].threshold
        return name in names and name in signed

    assert policy.satisfied(signed) is (policy.quorum == "none" or holds(policy.quorum))


@given(st.binary(max_size=200), st.sampled_from(list(Dialect)))
def test_any_bytes(data: bytes, dialect: Dialect) -> None:
    try:
        parse_policy(data, dialect)
    except MalformedPolicy:
        return


WORDS = [
    "log",
    "witness",
    "group",
    "quorum",
    "none",
    "a",
    "b",
    "g",
    "1",
    "2",
    "any",
    "all",
    str(LOG),
    str(A),
    str(B),
]


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=8).map("\n".join))
def test_any_words(text: str) -> None:
    try:
        policy = parse_policy(text.encode())
    except MalformedPolicy:
        return
    everybody = [witness.name for witness in policy.witnesses]
    assert policy.satisfied(everybody)  # whatever can be asked for, all together fulfil
    assert policy.satisfied([]) is (policy.quorum == "none")
