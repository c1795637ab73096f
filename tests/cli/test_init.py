"""`witness init`: all of a state or nothing, and never over another."""

import os
import stat
from pathlib import Path

import pytest

from tests.cli.command import NAME, make, witness
from tests.simulated_log import SimulatedLog
from witness.cli import creation
from witness.cli.config import load
from witness.core.keystore import softkey
from witness.core.keystore.base import KeyLocked
from witness.core.layout import StateLayout
from witness.core.store.logs import LogBook
from witness.core.store.sqlite import SQLiteStore
from witness.tlog.note import SignatureType, encode_base64, make_vkey, parse_vkey

MADE = {"witness.yaml", "witness.db", "keys", "keys/softkey.json", "keys/attestations"}


def contents(folder: Path) -> set[str]:
    """What stands in a folder, but for the attestations, whose names are the identity's."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.startswith("keys/attestations/")}


def test_it_makes_everything_and_prints_the_vkeys(tmp_path):
    state = tmp_path / "deep" / "state"
    outcome = witness("init", "--name", NAME, state=state)
    assert outcome.code == 0
    vkeys = [parse_vkey(line) for line in outcome.out.splitlines()]
    assert [vkey.type for vkey in vkeys] == [
        SignatureType.COSIGNATURE_ED25519,
        SignatureType.COSIGNATURE_MLDSA44,
    ]
    assert {vkey.name for vkey in vkeys} == {NAME}
    assert contents(state) == MADE
    assert list((tmp_path / "deep").iterdir()) == [state]
    layout = StateLayout(state)
    public = softkey.read_public(layout.softkey)
    store = SQLiteStore(layout.database)
    assert public.vkeys == tuple(vkeys)
    assert (store.identity().name, store.identity().identity) == (NAME, public.identity)
    store.close()
    assert load(layout.config).name == NAME


def test_only_its_owner_can_read_it(tmp_path):
    state = make(tmp_path / "s")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [state, *state.rglob("*")]}
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}


def test_the_written_configuration_names_the_annotated_one(tmp_path):
    text = (make(tmp_path / "s") / "witness.yaml").read_text()
    named = next(line.removeprefix("# ") for line in text.splitlines() if line.endswith("/witness.yaml"))
    assert "operator_listen" in Path(named).read_text()


@pytest.mark.parametrize("left", ["witness.yaml", "witness.db", "keys"])
def test_any_part_of_a_state_is_refused_and_left_as_it_is(tmp_path, left):
    state = tmp_path / "s"
    state.mkdir()
    (state / left).write_text("precious")
    outcome = witness("init", "--name", NAME, state=state)
    assert outcome.code == 3
    assert "a witness's state stands in" in outcome.error()
    assert contents(state) == {left}
    assert (state / left).read_text() == "precious"


def test_a_state_is_refused_whole(tmp_path):
    state = make(tmp_path / "s")
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert witness("init", "--name", "another.example", state=state).code == 3
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_other_peoples_folders_and_files_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, words in (("full", "photo.jpg"), ("file", "not a folder"), ("dangling", "not a folder")):
        outcome = witness("init", "--name", NAME, state=tmp_path / name)
        assert outcome.code == 3
        assert words in outcome.error()
    assert contents(tmp_path) == {"full", "full/photo.jpg", "file", "dangling"}


def test_a_path_too_long_for_a_socket_is_told_before_anything_is_made(tmp_path):
    outcome = witness("init", "--name", NAME, state=tmp_path / ("x" * 100))
    assert outcome.code == 3
    assert "too long by" in outcome.error()
    assert contents(tmp_path) == set()


def test_an_empty_folder_is_filled(tmp_path):
    state = tmp_path / "mounted"
    state.mkdir()
    (state / "lost+found").mkdir()
    inode = state.stat().st_ino
    make(state)
    assert state.stat().st_ino == inode  # a mount point cannot be replaced
    assert contents(state) == MADE | {"lost+found"}


@pytest.mark.parametrize("empty_folder", [False, True])
@pytest.mark.parametrize("step", ["import_logs", "_sync", "_sync_folder"])
def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path, monkeypatch, step, empty_folder):
    state = tmp_path / "s"
    if empty_folder:
        state.mkdir()
    monkeypatch.setattr(creation, step, lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space", "db")))
    outcome = witness("init", "--name", NAME, state=state)
    assert outcome.code == 3
    assert "db: No space" in outcome.error()
    assert "hint: free some space; nothing was changed" in outcome.err
    assert contents(tmp_path) == ({"s"} if empty_folder else set())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    outcome = witness("init", "--name", NAME, state=tmp_path / "s")
    tmp_path.chmod(0o700)
    assert outcome.code == 3
    assert "ermission denied" in outcome.error()


@pytest.mark.parametrize("name", ["", "two words", "a+b", "x" * 250, "tab\there"])
def test_names_that_no_note_can_carry_are_usage_errors(tmp_path, name):
    outcome = witness("init", "--name", name, state=tmp_path / "s")
    assert outcome.code == 2
    assert "--name" in outcome.error()
    assert contents(tmp_path) == set()


def test_a_name_is_needed(tmp_path):
    assert witness("init", state=tmp_path / "s").code == 2


def test_json_tells_what_was_made(tmp_path):
    outcome = witness("init", "--name", NAME, "--logs", "public", "--json", state=tmp_path / "s")
    facts = outcome.json
    assert facts["name"] == NAME
    assert facts["state"] == str(tmp_path / "s")
    assert facts["sealed"] is False
    assert len(facts["vkeys"]) == 2
    assert facts["logs"] > 10


# --- Keys ---


def test_without_a_passphrase_a_warning_says_plainly_what_that_means(tmp_path):
    outcome = witness("init", "--name", NAME, state=tmp_path / "s")
    assert "warning: the key file is not sealed: whoever can read it can sign as this witness" in outcome.err


@pytest.mark.parametrize("by_file", [False, True])
def test_the_passphrase_seals_the_keys(tmp_path, by_file):
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    args = ("--passphrase-file", file) if by_file else ()
    env = {} if by_file else {"WITNESS_PASSPHRASE": "correct horse"}
    outcome = witness("init", "--name", NAME, *args, state=tmp_path / "s", env=env)
    assert outcome.code == 0
    assert "warning" not in outcome.err
    layout = StateLayout(tmp_path / "s")
    assert softkey.read_public(layout.softkey).sealed
    with pytest.raises(KeyLocked):
        softkey.open_keystore(layout.softkey, None)
    assert len(softkey.open_keystore(layout.softkey, "correct horse").signers()) == 2
    named = load(layout.config).keys.passphrase_file
    assert named == (str(file) if by_file else None)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_passphrase_file_that_is_none_makes_no_witness(tmp_path, content, words):
    if content is not None:
        (tmp_path / "p").write_bytes(content)
    outcome = witness("init", "--name", NAME, "--passphrase-file", tmp_path / "p", state=tmp_path / "s")
    assert outcome.code == 3
    assert words in outcome.error()
    assert not (tmp_path / "s").exists()


def go_signer(name: str, seed: bytes) -> str:
    """A key file as Go's note.GenerateKey writes it."""
    from nacl.bindings import crypto_sign_seed_keypair

    vkey = make_vkey(name, SignatureType.ED25519, crypto_sign_seed_keypair(seed)[0])
    return f"PRIVATE+KEY+{name}+{vkey.key_id.hex()}+{encode_base64(bytes([1]) + seed)}"


def test_a_go_signer_key_becomes_the_ed25519_cosigner(tmp_path):
    from nacl.bindings import crypto_sign_seed_keypair

    seed = bytes(range(32))
    (tmp_path / "key").write_text(go_signer(NAME, seed) + "\n")
    outcome = witness("init", "--name", NAME, "--import-key", tmp_path / "key", state=tmp_path / "s")
    assert outcome.code == 0
    ed25519 = parse_vkey(outcome.out.splitlines()[0])
    assert ed25519.type is SignatureType.COSIGNATURE_ED25519
    assert ed25519.public_key == crypto_sign_seed_keypair(seed)[0]


def test_a_key_of_another_name_is_refused(tmp_path):
    (tmp_path / "key").write_text(go_signer("other.example", bytes(32)))
    outcome = witness("init", "--name", NAME, "--import-key", tmp_path / "key", state=tmp_path / "s")
    assert outcome.code == 3
    assert "has the name 'other.example'" in outcome.error()
    assert not (tmp_path / "s").exists()


def test_what_is_no_key_is_refused_without_repeating_it(tmp_path):
    secret = go_signer(NAME, bytes(32))[:-3]
    (tmp_path / "key").write_text(secret)
    outcome = witness("init", "--name", NAME, "--import-key", tmp_path / "key", state=tmp_path / "s")
    assert outcome.code == 3
    assert secret.rsplit("+", 1)[1] not in outcome.err


def test_one_algorithm_can_be_chosen(tmp_path):
    outcome = witness("init", "--name", NAME, "--algorithm", "ml-dsa-44", state=tmp_path / "s")
    assert [parse_vkey(line).type for line in outcome.out.splitlines()] == [SignatureType.COSIGNATURE_MLDSA44]
    assert witness("init", "--name", NAME, "--algorithm", "rsa", state=tmp_path / "t").code == 2


# --- Logs ---


def test_there_are_no_logs_unless_asked_for(tmp_path):
    with LogBook(StateLayout(make(tmp_path / "s")).database) as book:
        assert book.count() == 0


def test_a_list_can_be_given(tmp_path):
    log = SimulatedLog("log.example/a")
    (tmp_path / "list").write_text(f"logs/v0\nvkey {log.vkeys[0]}\nqpd 10\ncontact a\nvkey broken\n")
    outcome = witness("init", "--name", NAME, "--logs", tmp_path / "list", state=tmp_path / "s")
    assert outcome.code == 0
    assert "skipped: line 5" in outcome.err
    assert [each["origin"] for each in witness("logs", "list", "--json", state=tmp_path / "s").json] == [
        "log.example/a"
    ]


def test_a_list_that_is_none_makes_no_witness(tmp_path):
    (tmp_path / "list").write_text("hello")
    outcome = witness("init", "--name", NAME, "--logs", tmp_path / "list", state=tmp_path / "s")
    assert outcome.code == 3
    assert not (tmp_path / "s").exists()
    assert witness("init", "--name", NAME, "--logs", tmp_path / "no", state=tmp_path / "s").code == 3
