"""Whom core and front become."""

from __future__ import annotations

import os
import pwd

import pytest

from tests.core.processes import short_folder
from tests.core.state import make_state
from tests.lockdown.world import needs_root
from witness.core.lockdown import users
from witness.core.lockdown.kernel import NotHere
from witness.core.lockdown.steps import Account


@needs_root
def test_the_databases_owner_is_the_core() -> None:
    with short_folder() as folder:
        layout = make_state(folder)
        os.chown(layout.database, 50007, 50008)
        assert users.core_account(None, layout, "x") == Account("user 50007", 50007, 50008)


@needs_root
def test_without_an_owner_or_an_account_a_spare_number_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: object) -> pwd.struct_passwd:
        raise KeyError(name)

    with short_folder() as folder:
        layout = make_state(folder)
        monkeypatch.setattr(pwd, "getpwnam", unknown)
        core = users.core_account(None, layout, "one")
        front = users.front_account(None, core, "one")
        ids = users.OWN_IDS if users._mapped(users.OWN_IDS[-1]) else users.SPARE_IDS
        assert {core.uid, front.uid} <= set(ids)
        assert core.uid != front.uid
        assert users.core_account(None, layout, "one") == core, "the same at every start"
        if ids is users.OWN_IDS:  # no two witnesses on a machine share anything
            others = {users.core_account(None, layout, f"witness {number}").uid for number in range(200)}
            fronts = {users.front_account(None, core, f"witness {number}").uid for number in range(200)}
            assert len(others | fronts | {core.uid, front.uid}) == 402
        # An older state, whose core has another's number: the front never has the same.
        assert users.front_account(None, front, "one").uid == core.uid
        # A spare number that somebody has after all is not spare.
        known = pwd.getpwuid

        def taken(uid: int) -> pwd.struct_passwd:
            return known(0) if uid == core.uid else known(uid)

        monkeypatch.setattr(pwd, "getpwuid", taken)
        assert users.core_account(None, layout, "one").uid != core.uid


def test_a_small_container_has_other_spare_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_mapped", lambda uid: uid < 65536)
    for identity in ("one", "two", "three"):
        core, front = users._spare(identity)
        assert {core.uid, front.uid} <= set(users.SPARE_IDS)
        assert front.uid == core.uid + 1


def test_names_and_numbers() -> None:
    assert users.account("4711") == Account("user 4711", 4711, 4711)
    assert users.account("root").uid == 0
    with pytest.raises(users.UnknownAccount) as error:
        users.account("no-such-user")
    assert "useradd --system" in error.value.hint


@needs_root
def test_nothing_is_handed_over_through_a_symbolic_link() -> None:
    with short_folder() as folder:
        layout = make_state(folder / "state")
        wal = layout.database.with_name("witness.db-wal")
        aim = folder / "aim"
        aim.write_bytes(b"")
        wal.unlink(missing_ok=True)
        wal.symlink_to(aim)
        with pytest.raises(NotHere, match="symbolic link"):
            users.hand_over(layout, Account("x", 50001, 50001), None)
        assert aim.stat().st_uid == 0


@needs_root
def test_reach_is_asked_of_the_kernel() -> None:
    who = Account("x", 50001, 50001)
    with short_folder() as folder:
        inner = folder / "inner"
        inner.mkdir()
        with pytest.raises(NotHere, match="cannot get into"):
            users.check_reach(who, passing=(inner,))
        folder.chmod(0o711)
        users.check_reach(who, passing=(inner,))
        with pytest.raises(NotHere, match="cannot write in"):
            users.check_reach(who, writing=(inner,))
        os.chown(inner, 50001, 50001)
        users.check_reach(who, writing=(inner,))
    assert os.geteuid() == 0
