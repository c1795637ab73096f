"""Writing a bundle in another format, where nothing of it is lost. Pure.

That nothing is lost is not claimed but tried: what was written is converted back, and must give what was
read. Otherwise `Lossy` says what would be lost, and carries the result for whoever wants it all the same.

| from | to | |
|---|---|---|
| tlog-proof | spicy | no room for an extra line |
| spicy | tlog-proof | nothing is lost |
| sigsum-proof | tlog-proof | nothing is lost; needs the log's key, and the vkeys of those who cosigned |
| tlog-proof | sigsum-proof | the same way back |
| sumdb-lookup | tlog-proof | nothing is lost, the record is the extra data; needs the tiles |
| tlog-proof | sumdb-lookup | loses the inclusion proof: a look-up has none |
| armory-drive | tlog-proof | loses the other leaf hashes |
| any of these | checkpoint | loses everything else |

`spicy` is what the command of that name in filippo.io/torchwood reads and writes: a tlog-proof without its
first line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from witness.bundles import MalformedBundle, Options
from witness.bundles.armory_drive import ArmoryDriveBundle
from witness.bundles.formats import read
from witness.bundles.sigsum import SigsumProof
from witness.bundles.sumdb import SumdbLookup, needed_tiles, parse_lookup
from witness.bundles.tlog_proof import TlogProof
from witness.bundles.tlog_proof import parse as parse_tlog_proof
from witness.reading.heads import Trust
from witness.reading.sigsum_form import NoSuchForm, as_sigsum, as_tlog_proof
from witness.tlog.merkle import MemoryTree, inclusion_proof, leaf_hash
from witness.tlog.proof import HEADER, MalformedProof, Proof, format_proof
from witness.tlog.tiles import MalformedTile, Tile, node_from_tile, parse_tile_path, tile_for_node

TLOG_PROOF: Final = "tlog-proof"
SPICY: Final = "spicy"
SIGSUM: Final = "sigsum-proof"
LOOKUP: Final = "sumdb-lookup"
ARMORY: Final = "armory-drive"
CHECKPOINT: Final = "checkpoint"

TARGETS: Final = (TLOG_PROOF, SPICY, SIGSUM, LOOKUP, CHECKPOINT)
"""The formats that can be written."""

_SUMDB_TILES: Final = "tile/8/"

_Bundle = TlogProof | SigsumProof | SumdbLookup | ArmoryDriveBundle
_Result = tuple[bytes, tuple[str, ...]]
"""What was written, and what it leaves out."""


class CannotConvert(Exception):
    """There is no way from this bundle to that format, or something that it needs was not given."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Lossy(Exception):
    """Something would be lost.

    Attributes:
        lost: what, a phrase each.
        result: the bundle without it.
    """

    def __init__(self, lost: tuple[str, ...], result: bytes) -> None:
        super().__init__("; ".join(lost))
        self.lost = lost
        self.result = result


@dataclass(frozen=True, slots=True)
class Means:
    """What a conversion may need besides the bundle.

    Attributes:
        options: policy and keys: who is known by name, where one format has names and the other hashes.
        entry: the log's leaf, where the target needs it and the bundle has it not.
        artifacts: tiles, under the paths at which a checksum database serves them.
    """

    options: Options = field(default_factory=Options)
    entry: bytes | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


def convert(data: bytes, target: str, means: Means) -> bytes:
    """Writes a bundle in another format.

    Nothing is verified here but that the result carries what the bundle did.

    Args:
        data: the bundle; its format is recognised by its content.
        target: one of `TARGETS`.
        means: what else is known.

    Raises:
        MalformedBundle: the bundle is of no known format, or malformed.
        CannotConvert: there is no such conversion, or something is missing for it.
        Lossy: something would be lost.
    """
    source, bundle = _read(data)
    if source == target:
        return data
    if target == CHECKPOINT:
        raise Lossy(("everything but the checkpoint",), _bundle_checkpoint(bundle))
    if (source, target) not in _CONVERSIONS:
        raise CannotConvert(f"there is no conversion from {source} to {target}")
    try:
        result, lost = _CONVERSIONS[source, target](bundle, means)
        if lost:
            raise Lossy(lost, result)
        again, _ = _CONVERSIONS[target, source](_read(result)[1], means)
    except (NoSuchForm, MalformedProof) as error:
        raise CannotConvert(error.reason) from error
    if again != data:
        raise Lossy(("the exact bytes: converted back, it says the same in another form",), result)
    return result


def _read(data: bytes) -> tuple[str, _Bundle]:
    """The format's name, and the bundle; a spicy signature as the tlog-proof that it is short of a line."""
    if data.startswith(b"index "):
        return SPICY, parse_tlog_proof(HEADER + b"\n" + data)
    bundle = read(data)
    if not isinstance(bundle, TlogProof | SigsumProof | SumdbLookup | ArmoryDriveBundle):
        raise CannotConvert(f"there is no conversion from {bundle.format}")
    return bundle.format, bundle


def _bundle_checkpoint(bundle: _Bundle) -> bytes:
    return bundle.learned().checkpoints[0]


def _to_spicy(bundle: _Bundle, means: Means) -> _Result:  # noqa: ARG001 - a conversion's shape
    assert isinstance(bundle, TlogProof)
    proof = bundle.proof
    lost = () if proof.extra is None else (f"the extra data ({len(proof.extra)} bytes)",)
    plain = format_proof(Proof(proof.index, proof.hashes, proof.checkpoint))
    return plain.removeprefix(HEADER + b"\n"), lost


def _from_spicy(bundle: _Bundle, means: Means) -> _Result:  # noqa: ARG001 - a conversion's shape
    assert isinstance(bundle, TlogProof)
    return format_proof(bundle.proof), ()


def _from_sigsum(bundle: _Bundle, means: Means) -> _Result:
    assert isinstance(bundle, SigsumProof)
    proof, lost = as_tlog_proof(bundle, Trust(means.options))
    return format_proof(proof), lost


def _to_sigsum(bundle: _Bundle, means: Means) -> _Result:
    assert isinstance(bundle, TlogProof)
    return as_sigsum(bundle.proof, Trust(means.options), means.entry)


def _from_lookup(bundle: _Bundle, means: Means) -> _Result:
    assert isinstance(bundle, SumdbLookup)
    size = _size(bundle)
    node = _nodes(means.artifacts)
    try:
        hashes = inclusion_proof(bundle.id, size, node)
    except KeyError as error:
        raise CannotConvert(f"a look-up has no inclusion proof: give the tile {error.args[0]}") from error
    except ValueError as error:
        raise CannotConvert(f"a tree of size {size} has no record {bundle.id}") from error
    return format_proof(Proof(bundle.id, tuple(hashes), bundle.tree, bundle.record)), ()


def _to_lookup(bundle: _Bundle, means: Means) -> _Result:
    assert isinstance(bundle, TlogProof)
    proof = bundle.proof
    record = means.entry if means.entry is not None else proof.extra
    if record is None:
        raise CannotConvert("the record is not in the proof: give the entry")
    data = b"%d\n%s\n%s" % (proof.index, record, proof.checkpoint)
    try:
        if parse_lookup(data).record != record:
            raise CannotConvert("the entry is no record of a checksum database")
    except MalformedBundle as error:
        raise CannotConvert(f"the entry is no record of a checksum database: {error.reason}") from error
    return data, ("the inclusion proof",)


def _from_armory(bundle: _Bundle, means: Means) -> _Result:  # noqa: ARG001 - a conversion's shape
    assert isinstance(bundle, ArmoryDriveBundle)
    leaf = leaf_hash(bundle.release)
    if leaf not in bundle.leaves:
        raise CannotConvert("the release is not among the bundle's leaf hashes")
    tree = MemoryTree()
    for each in bundle.leaves:
        tree.append_hash(each)
    index = bundle.leaves.index(leaf)
    hashes = inclusion_proof(index, tree.size, tree.node)
    lost = "the list of all leaf hashes, which shows that it extends earlier checkpoints"
    return format_proof(Proof(index, tuple(hashes), bundle.checkpoint, bundle.release)), (lost,)


_CONVERSIONS: Final[dict[tuple[str, str], Callable[[_Bundle, Means], _Result]]] = {
    (TLOG_PROOF, SPICY): _to_spicy,
    (SPICY, TLOG_PROOF): _from_spicy,
    (SIGSUM, TLOG_PROOF): _from_sigsum,
    (TLOG_PROOF, SIGSUM): _to_sigsum,
    (LOOKUP, TLOG_PROOF): _from_lookup,
    (TLOG_PROOF, LOOKUP): _to_lookup,
    (ARMORY, TLOG_PROOF): _from_armory,
}


# --- A checksum database's tiles ---


def _size(lookup: SumdbLookup) -> int:
    line = lookup.tree.split(b"\n", 2)[1:2]
    if not line or not line[0].isdigit() or len(line[0]) > 18:  # noqa: PLR2004 - below 2^63
        raise CannotConvert("the look-up's tree head has no size")
    return int(line[0])


def _nodes(artifacts: Mapping[str, bytes]) -> Callable[[int, int], bytes]:
    """Looks nodes up in the given tiles; KeyError has the path of the tile that is missing."""
    tiles: dict[tuple[int, int], tuple[Tile, bytes]] = {}
    for name, content in artifacts.items():
        try:
            tile = parse_tile_path("tile/" + name.removeprefix(_SUMDB_TILES))
        except MalformedTile as error:
            raise CannotConvert(f"{name}: {error.reason}") from error
        if len(content) != tile.data_length:
            raise CannotConvert(f"{name}: {len(content)} bytes, not {tile.data_length}")
        known = tiles.get((tile.level, tile.index))
        if known is None or known[0].width < tile.width:
            tiles[tile.level, tile.index] = (tile, content)

    def node(level: int, index: int) -> bytes:
        place = tile_for_node(level, index, (index + 1) << level)
        found = tiles.get((place.level, place.index))
        if found is None or found[0].width < place.width:
            raise KeyError(_SUMDB_TILES + place.path().removeprefix("tile/"))
        return node_from_tile(*found, level, index)

    return node


__all__ = ["TARGETS", "CannotConvert", "Lossy", "Means", "convert", "needed_tiles"]
