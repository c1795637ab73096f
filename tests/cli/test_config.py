"""witness.yaml is read strictly: every fault names the file, the line and the key."""

import contextlib
import re
from pathlib import Path

import pytest

from tests.cli.command import NAME, make, witness
from witness.cli.config import Config, ConfigError, load, parse
from witness.cli.shipped import shipped
from witness.cli.strict_yaml import known_keys

FILE = Path("/etc/witness.yaml")


def fault(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode() if isinstance(text, str) else text, FILE)
    return caught.value


def test_a_name_is_enough():
    config = parse(b"name: a.example/w\n", FILE)
    assert config.name == "a.example/w"
    assert config.listen == "127.0.0.1:7380"
    assert config.operator_listen is None
    assert config.core.max_batch == 256
    assert config.feeders.interval == 60.0
    assert config.keys.algorithms is None
    assert config.distributors == ()


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        # unknown and missing keys
        ("nam: x", 1, "nam", "unknown key; known here: name, listen"),
        ("name: x\ncore:\n  batch: 1", 3, "core.batch", "unknown key; known here: max_batch"),
        ("name: x\nabout: {phone: 1}", 2, "about.phone", "unknown key"),
        ("listen: 127.0.0.1:1", 1, "name", "is missing"),
        ("name: x\ndistributors:\n - name: d", 3, "distributors[0].url", "is missing"),
        ("name: x\nname: y", 2, "name", "stands twice"),
        ("name: x\ncore: {max_batch: 1, max_batch: 2}", 2, "core.max_batch", "stands twice"),
        # types
        ("name: 12", 1, "name", "must be text, not '12'"),
        ("name: [a]", 1, "name", "must be text"),
        ("name:", 1, "name", "has no value"),
        ("name: true", 1, "name", "must be text, not 'true'"),
        ("name: x\ncore: 7", 2, "core", "must be a mapping"),
        (
            "name: x\ncore:\n  max_batch: many",
            3,
            "core.max_batch",
            "a whole number from 1 to 4096, not 'many'",
        ),
        ("name: x\ncore:\n  max_batch: 1.5", 3, "core.max_batch", "a whole number"),
        ("name: x\ncore:\n  max_batch: '5'", 3, "core.max_batch", "a whole number"),
        ("name: x\ncore:\n  max_batch: 010", 3, "core.max_batch", "leading zeros"),
        ("name: x\ncore:\n  max_batch: 0x10", 3, "core.max_batch", "a whole number"),
        ("name: x\nfeeders: {enabled: 1}", 2, "feeders.enabled", "true or false, not '1'"),
        ("name: x\nfeeders: {interval: 1:30}", 2, "feeders.interval", "a number of seconds"),
        ("name: x\nfeeders: {interval: .nan}", 2, "feeders.interval", "a number of seconds"),
        ("name: x\nfeeders: {interval: .inf}", 2, "feeders.interval", "a number of seconds"),
        ("name: x\nkeys: {algorithms: ed25519}", 2, "keys.algorithms", "must be a list"),
        ("name: x\ndistributors: {url: http://d}", 2, "distributors", "must be a list"),
        ("- name: x", 1, "", "must be a mapping"),
        ("1: x", 1, "", "a key must be plain text"),
        # bounds and forms
        ("name: two words", 1, "name", "no spaces and no plus sign"),
        ("name: a+b", 1, "name", "no plus sign"),
        (f"name: {'x' * 250}", 1, "name", "at most 249 bytes"),
        ("name: x\ncore: {max_batch: 0}", 2, "core.max_batch", "from 1 to 4096, not '0'"),
        ("name: x\ncore: {max_batch: -1}", 2, "core.max_batch", "from 1 to 4096, not '-1'"),
        ("name: x\ncore: {judge_threads: 65}", 2, "core.judge_threads", "from 1 to 64"),
        ("name: x\nfeeders: {interval: 0}", 2, "feeders.interval", "from 1 to 86400"),
        (
            "name: x\nkeys: {algorithms: [rsa]}",
            2,
            "keys.algorithms[0]",
            "one of ed25519, ml-dsa-44, not 'rsa'",
        ),
        ("name: x\nkeys: {algorithms: []}", 2, "keys.algorithms", "at least one"),
        ("name: x\nkeys: {algorithms: [ed25519, ed25519]}", 2, "keys.algorithms[1]", "stands twice"),
        ("name: x\nkeys: {passphrase_env: A-B}", 2, "keys.passphrase_env", "environment variable"),
        ("name: x\nlisten: localhost", 2, "listen", "not HOST:PORT"),
        ("name: x\nlisten: localhost:99999", 2, "listen", "not HOST:PORT"),
        ("name: x\nlisten: ::1:80", 2, "listen", "brackets"),
        ("name: x\npath_prefix: w", 2, "path_prefix", "no path like /witness"),
        ("name: x\npath_prefix: /w/", 2, "path_prefix", "no path like /witness"),
        ("name: x\nabout: {submission_url: ftp://x}", 2, "about.submission_url", "an http or https URL"),
        ("name: x\nabout: {submission_url: 'http://u:p@x'}", 2, "about.submission_url", "without user"),
        ("name: x\ndistributors: [{url: 'http://[x'}]", 2, "distributors[0].url", "must be a URL"),
        ("name: x\ndistributors: [{url: 'http://d?a=b'}]", 2, "distributors[0].url", "without a query"),
        ("name: ..", 1, "name", "step in a path"),
        ("name: x\nlog: {level: LOUD}", 2, "log.level", "one of DEBUG, INFO"),
        # not YAML at all
        ("name: [", 1, "", "not YAML"),
        ("name: x\n\tlisten: y", 2, "", "not YAML"),
        ("name: x\n---\nname: y", 2, "", "not YAML"),
        ("name: *x", 1, "", "not YAML"),
        ("name: !!python/object:os.system x", 1, "name", "must be text"),
        ('name: "\\ud800"', 1, "", "not YAML"),
        ("", 1, "", "empty"),
        ("# only a comment", 1, "", "empty"),
    ],
)
def test_faults(text, line, path, words):
    error = fault(text)
    assert words in error.reason
    assert error.path == path
    assert error.line in (line, line + 1)  # a parser may notice at the next line's start
    assert str(error).startswith(f"/etc/witness.yaml, line {error.line}: ")


def test_two_distributors_of_one_name_are_a_fault():
    assert "second distributor" in fault("name: x\ndistributors: [{url: http://d}, {url: http://d}]").reason


@pytest.mark.parametrize("data", [b"name: \xff", b"\x00", b"[" * 100_000, b"- " * 100_000, b"{a: " * 50_000])
def test_garbage_and_bombs_are_faults_too(data):
    fault(data)


def test_a_file_without_end_is_not_read():
    assert "longer than" in fault(b"# " + b"x" * 2_000_000).reason


def test_any_bytes_give_a_configuration_or_the_one_error():
    from hypothesis import given
    from hypothesis import strategies as st

    pieces = st.sampled_from(
        [
            "name: x\n",
            "core:",
            "\n ",
            "- ",
            "[",
            "{",
            "}",
            "&a ",
            "*a",
            ": ",
            "max_batch",
            "1",
            "~",
            "!!int ",
            '"',
            "<<",
        ]
    )

    @given(
        st.lists(pieces, max_size=12).map("".join) | st.binary(max_size=60).map(lambda b: b.decode("latin1"))
    )
    def check(text):
        with contextlib.suppress(ConfigError):
            parse(text.encode(), FILE)

    check()


# --- The annotated example ---


def test_the_annotated_file_parses():
    config = load(shipped("witness.yaml"))
    assert config.distributors
    assert config.about.more


def test_every_key_stands_in_the_annotated_file_below_a_comment_of_its_own():
    lines = shipped("witness.yaml").read_text().splitlines()
    explained = set()
    path: list[tuple[int, str]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        match = re.match(r"^( *)(- )?([a-z_]+):", line)
        if match is None:
            continue
        indent = len(match[1]) + len(match[2] or "")
        while path and path[-1][0] >= indent:
            path.pop()
        key = match[3]
        parents = [name for _, name in path]
        if before.strip().startswith("#"):
            explained.add(".".join([*parents, key]))
        path.append((indent, key))
    known = {key.replace("[]", "") for key in known_keys(Config)}
    assert known == explained


def test_the_annotated_defaults_are_the_defaults():
    silent = parse(b"name: witness.example.com/w1", FILE)
    annotated = load(shipped("witness.yaml"))
    for key in ("name", "listen", "path_prefix", "core", "feeders", "log"):
        assert getattr(annotated, key) == getattr(silent, key), key
    assert annotated.keys.passphrase_env == silent.keys.passphrase_env


# --- Where commands meet it ---


def run_with(state: Path, text: str):
    (state / "witness.yaml").write_text(text)
    return witness("run", state=state)


def test_run_tells_a_fault_in_one_line_and_starts_nothing(tmp_path):
    state = make(tmp_path / "s")
    outcome = run_with(state, f"name: {NAME}\nlistenn: x\n")
    assert outcome.code == 3
    assert outcome.error() == (
        f"error: {state}/witness.yaml, line 2: listenn: unknown key; known here: "
        "name, listen, operator_listen, path_prefix, watchdog, keys, core, lockdown, feeders, tile_cache, "
        "lists, distributors, static, about, continuity, authority, log"
    )
    assert not (state / "core.lock").exists()


def test_run_refuses_another_name_and_other_keys_than_the_state_has(tmp_path):
    state = make(tmp_path / "s")
    outcome = run_with(state, "name: other.example\n")
    assert outcome.code == 3
    assert "names the witness 'other.example'" in outcome.error()
    outcome = run_with(state, f"name: {NAME}\nkeys: {{algorithms: [ed25519, ml-dsa-44]}}\n")
    assert outcome.code == 3
    assert "keys.algorithms says ed25519, ml-dsa-44, and the key file holds ed25519" in outcome.error()
    assert not (state / "core.lock").exists()


def test_run_refuses_a_wrong_listen_address(tmp_path):
    outcome = witness("run", "--listen", "nowhere", state=make(tmp_path / "s"))
    assert outcome.code == 2
    assert "--listen" in outcome.error()


def test_a_missing_configuration_is_told(tmp_path):
    state = make(tmp_path / "s")
    (state / "witness.yaml").unlink()
    outcome = witness("run", state=state)
    assert outcome.code == 3
    assert "witness.yaml is missing" in outcome.error()
