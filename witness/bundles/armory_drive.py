"""Armory Drive proof bundles (usbarmory/armory-drive-log, api/proof_bundle.go).

A JSON object as Go writes it: `NewCheckpoint` and `FirmwareRelease` (signed notes) and `LeafHashes`, all
leaves of the log. Differences to the original, each where it lets more pass than it should:

- A trusted checkpoint that cannot be read, or is of another log, is a failure; the original's device then
  takes the bundle as its first.
- The release must say what `armory-drive.imx` is; the original is content when it is asked about nothing.
- Every leaf hash is a SHA-256 hash, and an empty log contains nothing.
- Witnesses' cosignatures are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from witness.bundles.judge import INCLUSION, Head, Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.bundles.strict_json import (
    MalformedJson,
    bytes_of,
    decode,
    list_of,
    object_of,
    parse_object,
    refuse_other_cases,
    text_of,
)
from witness.tlog.merkle import HASH_SIZE, InvalidProof, MemoryTree, leaf_hash
from witness.tlog.note import encode_base64

FORMAT: Final = "armory-drive"
FIRMWARE: Final = "armory-drive.imx"
"""The artifact that every release must have."""

MAX_LEAVES: Final = 1 << 17
"""Most leaves that are hashed; the real log has two."""

_NAMES: Final = ("NewCheckpoint", "FirmwareRelease", "LeafHashes")


@dataclass(frozen=True, slots=True)
class ArmoryDriveBundle:
    """A parsed bundle."""

    checkpoint: bytes
    release: bytes
    leaves: tuple[bytes, ...]
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """The six steps of the original's `verify.Bundle`, and what it leaves out."""
        tree = MemoryTree()
        for leaf in self.leaves:
            tree.append_hash(leaf)

        def old_root(size: int) -> bytes:
            if size > tree.size:
                raise InvalidProof(f"the bundle shows {tree.size} leaves")
            return tree.root(size)

        head = judge.head(self.checkpoint, old_root=old_root)
        self._judge_leaves(judge, head, tree)
        judge.same_entry(self.release)
        text = judge.signers("release signature", self.release)
        if text is not None:
            _judge_release(judge, text)

    def _judge_leaves(self, judge: Judge, head: Head | None, tree: MemoryTree) -> None:
        if head is None:
            judge.check(INCLUSION, False, "there is no checkpoint to show inclusion in")
            return
        size, root = head.checkpoint.size, head.checkpoint.root
        if tree.size != size:
            judge.check("leaf hashes", False, f"expected {size}, found {tree.size}")
        elif tree.root() != root:
            found = encode_base64(tree.root())
            judge.check("leaf hashes", False, f"expected root {encode_base64(root)}, found {found}")
        else:
            judge.check("leaf hashes", True, f"all {size} hash to the checkpoint's root")
        leaf = leaf_hash(self.release)
        found_at = self.leaves.index(leaf) if leaf in self.leaves else None
        detail = f"the release, leaf hash {leaf.hex()}, is " + (
            "not among the log's leaves" if found_at is None else f"entry {found_at} of {size}"
        )
        judge.check(INCLUSION, found_at is not None, detail)

    def learned(self) -> Learned:
        """The bundle's checkpoint."""
        return Learned((self.checkpoint,))


def recognises(members: dict[str, Any]) -> bool:
    """Whether a JSON object is meant as one."""
    return "NewCheckpoint" in members or "LeafHashes" in members


def parse(members: dict[str, Any]) -> ArmoryDriveBundle:
    """Take a JSON object as a bundle; raises MalformedBundle."""
    try:
        refuse_other_cases(members, _NAMES)
        leaves = list_of(members, "LeafHashes")
        if len(leaves) > MAX_LEAVES:
            raise MalformedBundle(FORMAT, f"{len(leaves)} leaf hashes, more than {MAX_LEAVES}")
        hashes = tuple([decode(leaf, "a leaf hash") for leaf in leaves])
        if any(len(leaf) != HASH_SIZE for leaf in hashes):
            raise MalformedBundle(FORMAT, f"a leaf hash is not {HASH_SIZE} bytes long")
        return ArmoryDriveBundle(
            bytes_of(members, "NewCheckpoint"), bytes_of(members, "FirmwareRelease"), hashes
        )
    except MalformedJson as error:
        raise MalformedBundle(FORMAT, error.reason) from error


def _judge_release(judge: Judge, text: bytes) -> None:
    """The release manifest: the JSON of `api.FirmwareRelease`."""
    try:
        members = parse_object(text)
        refuse_other_cases(members, ("artifact_sha256", "revision", "platform_id"))
        revision = text_of(members, "revision")
        artifacts = {
            name: decode(value, name) for name, value in object_of(members, "artifact_sha256").items()
        }
    except MalformedJson as error:
        judge.check("release", False, f"the manifest cannot be read: {error.reason}")
        return
    if FIRMWARE not in artifacts or any(len(value) != HASH_SIZE for value in artifacts.values()):
        judge.check(
            "release", False, f"expected SHA-256 hashes, of {FIRMWARE} too; the manifest has them not"
        )
        return
    judge.check("release", True, f"{revision}, of {len(artifacts)} artifacts")
    for name, expected in artifacts.items():
        content = judge.artifact(name)
        if content is None:
            judge.say_unchecked(f"{name} was not given, and not compared with SHA-256 {expected.hex()}")
        else:
            judge.digest(f"artifact {name}", content, expected)
