"""Armored Witness firmware: bundles, proof bundles in a device's configuration, and bare manifests.

Structures: transparency-dev/armored-witness-common, release/firmware (`Bundle`, `ftlog.FirmwareRelease`),
and armored-witness-boot, config (`Config`, `ProofBundle`), in Go's JSON or, as on the device, in gob.

Judged besides what `firmware.BundleVerifier` judges: the manifest's schema version; that the component is
the one that its signers release and the reader expects; that an operating system has two signers; that the
version is not below the last; the digest of a HAB signature; witnesses' cosignatures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from witness.bundles.gob import MalformedGob, Value, parse_gob
from witness.bundles.judge import INCLUSION, Judge
from witness.bundles.report import Learned, MalformedBundle
from witness.bundles.strict_json import (
    MalformedJson,
    bytes_of,
    decode,
    integer_of,
    list_of,
    object_of,
    parse_object,
    refuse_other_cases,
    text_of,
)
from witness.bundles.versions import MalformedVersion, version_key
from witness.tlog.merkle import HASH_SIZE, leaf_hash
from witness.tlog.note import MalformedNote, VerifierKey, parse_note
from witness.tlog.proof import MAX_PROOF_HASHES

BUNDLE: Final = "armored-witness-bundle"
CONFIG: Final = "armored-witness-config"
MANIFEST: Final = "armored-witness-manifest"

FIRMWARE: Final = "firmware"
HAB: Final = "hab"
"""Names of artifacts; the firmware also goes by its component's name, which is then expected."""

SCHEMA_VERSIONS: Final = (0, 1)
COMPONENTS: Final = ("TRUSTED_APPLET", "TRUSTED_OS", "BOOTLOADER", "RECOVERY")
_OS_SIGNERS: Final = 2

_ROLE: Final = re.compile(r"-aw-(applet|os[0-9]*|boot|recovery)(?:-|\Z)")
_COMPONENT_OF_ROLE: Final = {
    "applet": COMPONENTS[0],
    "os": COMPONENTS[1],
    "boot": COMPONENTS[2],
    "recovery": COMPONENTS[3],
}
_BUNDLE_NAMES: Final = (
    "Checkpoint", "Index", "LogIndex", "InclusionProof", "Manifest", "Firmware", "HABSignature",
)  # fmt: skip
_CONFIG_NAMES: Final = ("Offset", "Size", "Signatures", "Bundle")
_MAX_INDEX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a `FirmwareRelease` says, as far as it is judged."""

    component: str
    version: str
    digest: bytes
    hab_digest: bytes | None


@dataclass(frozen=True, slots=True)
class FirmwareBundle:
    """A parsed bundle.

    Attributes:
        checkpoint: the signed checkpoint; empty for a bare manifest.
        index: the manifest's index in the log.
        proof: the inclusion proof.
        manifest: the signed manifest, which is the log's leaf.
        firmware: the image; None where it lies elsewhere.
        hab: the HAB signature; None where there is none.
        size: the image's length by the device's configuration; None where none says it.
        format: what it was read as.
    """

    checkpoint: bytes
    index: int
    proof: tuple[bytes, ...]
    manifest: bytes
    firmware: bytes | None
    hab: bytes | None
    size: int | None
    format: str

    def judge(self, judge: Judge) -> None:
        """The checkpoint, the manifest in it, and what the manifest says."""
        if self.format == MANIFEST:
            judge.check(INCLUSION, False, f"a manifest alone, leaf hash {leaf_hash(self.manifest).hex()}")
        else:
            head = judge.head(self.checkpoint)
            judge.inclusion(self.index, leaf_hash(self.manifest), self.proof, head)
        judge.same_entry(self.manifest)
        text = judge.signers("manifest signature", self.manifest)
        if text is None:
            return
        try:
            manifest = parse_manifest(text)
        except MalformedJson as error:
            judge.check("manifest", False, f"cannot be read: {error.reason}")
            return
        judge.check("manifest", True, f"{manifest.component} {manifest.version}")
        _judge_component(judge, manifest)
        judge.version(manifest.component, manifest.version)
        self._judge_firmware(judge, manifest)
        self._judge_hab(judge, manifest)

    def _judge_firmware(self, judge: Judge, manifest: Manifest) -> None:
        name = "firmware digest"
        given = [self.firmware, judge.artifact(FIRMWARE), judge.artifact(manifest.component)]
        images = [image for image in given if image is not None]
        if not images and self.format == CONFIG:
            # A configuration never has the image, as a release manifest has not: it only says its digest.
            judge.say_unchecked(
                f"the firmware was not given, and not compared with SHA-256 {manifest.digest.hex()}"
            )
        elif not images:
            expected = f"expected SHA-256 {manifest.digest.hex()}"
            judge.check(name, False, f"{expected}; no firmware in the bundle, and none was given")
        for image in images:
            judge.digest(name, image, manifest.digest)
            if self.size is not None and self.size != len(image):
                judge.check("firmware size", False, f"expected {self.size} bytes, found {len(image)}")

    def _judge_hab(self, judge: Judge, manifest: Manifest) -> None:
        given = judge.artifact(HAB)
        signatures = [each for each in (self.hab, given) if each is not None]
        if manifest.hab_digest is None:
            if signatures:
                judge.check("HAB signature", False, "the manifest names none, and there is one")
            return
        if not signatures:
            judge.say_unchecked(
                "the HAB signature was not given, and not compared with the manifest's digest"
            )
        for each in signatures:
            judge.digest("HAB signature", each, manifest.hab_digest)

    def learned(self) -> Learned:
        """The checkpoint, and the component's version if the manifest can be read."""
        checkpoints = (self.checkpoint,) if self.checkpoint else ()
        try:
            manifest = parse_manifest(parse_note(self.manifest).text)
        except (MalformedJson, MalformedNote):
            return Learned(checkpoints)
        return Learned(checkpoints, {manifest.component: manifest.version})


def _judge_component(judge: Judge, manifest: Manifest) -> None:
    """The component is what tells an applet from an operating system; upstream compares it with nothing."""
    expected = {name: "as an artifact" for name in COMPONENTS if name in judge.options.artifacts}
    signers = len({key.public_key for key in judge.options.manifest_keys})
    for key in judge.options.manifest_keys:
        role = _ROLE.search(key.name) if isinstance(key, VerifierKey) else None
        if role is not None:
            expected[_COMPONENT_OF_ROLE[role[1].rstrip("0123456789")]] = f"by the key {role.string}"
    for component, why in expected.items():
        detail = f"expected {component} ({why}), found {manifest.component}"
        judge.check("component", component == manifest.component, detail)
    if not expected:
        judge.say_unchecked(f"nothing says that {manifest.component} is the component to expect")
    if manifest.component == COMPONENTS[1] and signers < _OS_SIGNERS:
        judge.check("manifest signature", False, f"{COMPONENTS[1]} needs two signers, {signers} known")


def parse_manifest(text: bytes) -> Manifest:
    """Parse a manifest's text, the JSON of `ftlog.FirmwareRelease`.

    Raises:
        MalformedJson: it is not that, or its schema or component is unknown.
    """
    members = parse_object(text)
    refuse_other_cases(members, ("schema_version", "component", "git", "build", "output", "hab"))
    schema = integer_of(members, "schema_version")
    if schema not in SCHEMA_VERSIONS:
        raise MalformedJson(f"schema version {schema} is not known")
    component = text_of(members, "component")
    if component not in COMPONENTS:
        raise MalformedJson("the component is not known")
    git = object_of(members, "git")
    refuse_other_cases(git, ("tag_name", "commit_fingerprint"))
    version = text_of(git, "tag_name")
    try:
        version_key(version)
    except MalformedVersion as error:
        raise MalformedJson("git.tag_name is no semantic version") from error
    output = object_of(members, "output")
    refuse_other_cases(output, ("firmware_digest_sha256",))
    hab_digest = None
    if members.get("hab") is not None:
        hab = object_of(members, "hab")
        refuse_other_cases(hab, ("target", "signature_digest_sha256"))
        hab_digest = _digest(hab, "signature_digest_sha256")
    return Manifest(component, version, _digest(output, "firmware_digest_sha256"), hab_digest)


def _digest(members: dict[str, Any], name: str) -> bytes:
    value = bytes_of(members, name)
    if len(value) != HASH_SIZE:
        raise MalformedJson(f"{name} is no SHA-256 digest")
    return value


def recognises(members: dict[str, Any]) -> bool:
    """Whether a JSON object is meant as a bundle or a configuration."""
    inner = members.get("Bundle")
    return "Manifest" in members or (isinstance(inner, dict) and "Manifest" in inner)


def recognises_gob(data: bytes) -> bool:
    """Whether bytes are meant as a device's configuration in gob."""
    return b"Config" in data[:64] and b"Bundle" in data[:1024]


def recognises_manifest(data: bytes) -> bool:
    """Whether bytes are meant as a bare signed manifest."""
    return data.startswith(b"{") and b'"schema_version"' in data and b"\n\n\xe2\x80\x94 " in data


def parse_bare_manifest(data: bytes) -> FirmwareBundle:
    """Take a signed note as a manifest; raises MalformedBundle."""
    try:
        parse_manifest(parse_note(data).text)
    except MalformedNote as error:
        raise MalformedBundle(MANIFEST, error.reason) from error
    except MalformedJson as error:
        raise MalformedBundle(MANIFEST, error.reason) from error
    return FirmwareBundle(b"", 0, (), data, None, None, None, MANIFEST)


def parse(members: dict[str, Any]) -> FirmwareBundle:
    """Take a JSON object as a bundle or configuration; raises MalformedBundle."""
    inner = members.get("Bundle")
    try:
        if not isinstance(inner, dict):
            return _from_json(members, None, BUNDLE)
        refuse_other_cases(members, _CONFIG_NAMES)
        return _from_json(inner, integer_of(members, "Size"), CONFIG)
    except MalformedJson as error:
        raise MalformedBundle(CONFIG if isinstance(inner, dict) else BUNDLE, error.reason) from error


def _from_json(members: dict[str, Any], size: int | None, format_: str) -> FirmwareBundle:
    refuse_other_cases(members, _BUNDLE_NAMES)
    if "Index" in members and "LogIndex" in members:
        raise MalformedJson("both Index and LogIndex")
    # A bare ProofBundle is what a configuration holds: its firmware lies elsewhere.
    name = "LogIndex" if "LogIndex" in members else "Index"
    proof = [decode(each, "a hash of InclusionProof") for each in list_of(members, "InclusionProof")]
    return _checked(
        FirmwareBundle(
            checkpoint=bytes_of(members, "Checkpoint"),
            index=integer_of(members, name),
            proof=tuple(proof),
            manifest=bytes_of(members, "Manifest"),
            firmware=_optional(members, "Firmware"),
            hab=_optional(members, "HABSignature"),
            size=size,
            format=CONFIG if name == "LogIndex" else format_,
        )
    )


def _optional(members: dict[str, Any], name: str) -> bytes | None:
    """Bytes, or None when missing, null or empty: Go does not tell these apart."""
    return bytes_of(members, name) or None if members.get(name) is not None else None


def parse_config(data: bytes) -> FirmwareBundle:
    """Parse a configuration in gob, with zeros after it; raises MalformedBundle."""
    try:
        config = parse_gob(data)
    except MalformedGob as error:
        raise MalformedBundle(CONFIG, error.reason) from error
    inner = config.get("Bundle")
    size = config.get("Size", 0)
    if not isinstance(inner, dict) or not isinstance(size, int):
        raise MalformedBundle(CONFIG, "no proof bundle in the configuration")
    index = inner.get("LogIndex", inner.get("Index", 0))
    proof = inner.get("InclusionProof", [])
    if not isinstance(index, int) or not isinstance(proof, list):
        raise MalformedBundle(CONFIG, "a field of another type")
    return _checked(
        FirmwareBundle(
            checkpoint=_part(inner, "Checkpoint"),
            index=index,
            proof=tuple(proof),
            manifest=_part(inner, "Manifest"),
            firmware=_part(inner, "Firmware") or None,
            hab=_part(inner, "HABSignature") or None,
            size=size,
            format=CONFIG,
        )
    )


def _part(members: dict[str, Value], name: str) -> bytes:
    value = members.get(name, b"")
    if not isinstance(value, bytes):
        raise MalformedBundle(CONFIG, "a field of another type")
    return value


def _checked(bundle: FirmwareBundle) -> FirmwareBundle:
    """The bundle, if its parts can be one; raises MalformedBundle."""
    if not 0 <= bundle.index <= _MAX_INDEX:
        raise MalformedBundle(bundle.format, "the index is no unsigned 64-bit number")
    if len(bundle.proof) > MAX_PROOF_HASHES or any(len(each) != HASH_SIZE for each in bundle.proof):
        reason = f"not at most {MAX_PROOF_HASHES} proof hashes of {HASH_SIZE} bytes"
        raise MalformedBundle(bundle.format, reason)
    if not bundle.checkpoint or not bundle.manifest:
        raise MalformedBundle(bundle.format, "no checkpoint or no manifest")
    return bundle
