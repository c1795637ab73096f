"""Destroying key files: those of retired keys alone, and what could not be destroyed is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.state import IDENTITY, NAME, make_state
from witness.core.keystore import keyring, softkey
from witness.core.keystore.disposal import destroy_files
from witness.core.keystore.keyring import ATTESTATION, FILE, SOFT, WITNESS, KeyEntry, Place, Ring
from witness.core.layout import StateLayout


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    return make_state(tmp_path / "s")


def rotated(layout: StateLayout) -> Ring:
    """A ring of two generations, each with a key file."""
    path = layout.keys / "softkey-1.json"
    vkeys = softkey.create(path, name=NAME, identity=IDENTITY, passphrase=None, scrypt_n=2**12)
    place = Place(SOFT, {FILE: path.name})
    before = keyring.read(layout)
    keys = tuple(KeyEntry(vkey, WITNESS, "soft", (place,), rotation=1) for vkey in vkeys)
    return Ring(NAME, IDENTITY, before.devices, (*before.witness_keys, *keys))


def retired(ring: Ring) -> set[str]:
    return {str(key.vkey) for key in ring.witness_keys if key.rotation == 0}


def test_the_retired_generations_file_goes_and_the_other_stays(layout: StateLayout) -> None:
    ring = rotated(layout)
    assert destroy_files(layout, ring, set()) == ()
    assert layout.softkey.exists()
    for _ in range(2):  # what is done already is done
        assert destroy_files(layout, ring, retired(ring)) == ()
        assert not layout.softkey.exists()
        assert (layout.keys / "softkey-1.json").exists()


def test_a_file_with_a_key_that_is_not_retired_stays(layout: StateLayout) -> None:
    ring = rotated(layout)
    one = sorted(retired(ring))[:1]
    assert destroy_files(layout, ring, one) == ()
    assert layout.softkey.exists()
    # Nor is another file deleted that stands under the name of a retired one.
    (layout.keys / "softkey-1.json").replace(layout.softkey)
    assert destroy_files(layout, ring, retired(ring)) == ()
    assert layout.softkey.exists()


def test_a_file_that_holds_the_attestation_key_in_use_stays(layout: StateLayout) -> None:
    ring = rotated(layout)
    entry = KeyEntry(ring.vkeys[-1], ATTESTATION, "soft", (Place(SOFT),))
    with_it = Ring(NAME, IDENTITY, ring.devices, (*ring.keys, entry))
    assert destroy_files(layout, with_it, retired(ring)) == ()
    assert layout.softkey.exists()


def test_what_may_not_be_deleted_is_told(layout: StateLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = rotated(layout)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    (line,) = destroy_files(layout, ring, retired(ring))
    assert "softkey.json is not deleted yet: Permission denied; the next start does it" in line
