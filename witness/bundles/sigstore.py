"""Sigstore bundles (sigstore/protobuf-specs, sigstore_bundle.proto), versions 0.1 to 0.3: what is in the log.

Judged: that the entry is in a log of the trusted root (checkpoint, inclusion, cosignatures, signed entry
timestamp, validity of the log's key), that the entry is about the bundle's artifact digest, signature and
certificate, that the signature verifies with that certificate, and that the signing time lies within its
validity. Not judged, and said so in every report: whose certificate it is, who issued it, its own inclusion
in a Certificate Transparency log, and who made an RFC 3161 timestamp.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from witness.bundles.judge import INCLUSION, Head, Judge
from witness.bundles.rekor import RekorEntry, parse_entry
from witness.bundles.report import Learned, MalformedBundle
from witness.bundles.signing import SigningKey, is_root, load_signing_key
from witness.bundles.sigstore_parts import InclusionProof, LogEntry, Parts, parse_parts
from witness.bundles.strict_json import MalformedJson, list_of, object_of, parse_object, text_of
from witness.bundles.timestamp import MalformedTimestamp, Timestamp, parse_timestamp
from witness.bundles.trusted_root import RootLog, TrustedRoot, parse_trusted_root
from witness.tlog.merkle import leaf_hash
from witness.tlog.note import encode_base64
from witness.tlog.signature import verify_signature

FORMAT: Final = "sigstore-bundle"
ARTIFACT: Final = "artifact"
"""The artifact that was signed; any other name will do if it is the only one."""


@dataclass(frozen=True, slots=True)
class SigstoreBundle:
    """A parsed bundle."""

    parts: Parts
    format: str = FORMAT

    def judge(self, judge: Judge) -> None:
        """Every entry, and that it is about this signature."""
        root = _trusted_root(judge)
        if not self.parts.entries:
            judge.check(INCLUSION, False, "the bundle has no log entry")
        # SPEC sigstore_bundle.proto: "Signers MUST NOT include root CA certificates in bundles".
        if any(is_root(certificate) for certificate in self.parts.chain):
            judge.check(
                "certificate chain", False, "a root certificate in it, which only the reader can trust"
            )
        times: list[int] = []
        key: SigningKey | None = None
        for entry in self.parts.entries:
            self._judge_entry(judge, entry, root, times)
            found = self._judge_about(judge, entry)
            key = key or found
        self._judge_timestamps(judge, times)
        self._judge_signature(judge, key)
        self._judge_time(judge, key, times)
        judge.say_unchecked("whose certificate or key this is, and who issued it")
        judge.say_unchecked("the certificate's own Certificate Transparency timestamps")
        if self.parts.timestamps:
            judge.say_unchecked("who made the RFC 3161 timestamps")

    def _judge_entry(self, judge: Judge, entry: LogEntry, root: TrustedRoot | None, times: list[int]) -> None:
        if entry.proof is None or not entry.proof.checkpoint:
            judge.check(INCLUSION, False, "the log entry has no inclusion proof with a checkpoint")
            return
        proof = entry.proof
        head = judge.head(proof.checkpoint, keys_for=root.keys_for if root is not None else None)
        if head is not None:
            _judge_same_head(judge, proof, head)
        judge.same_entry(entry.body)
        judge.inclusion(proof.index, leaf_hash(entry.body), proof.hashes, head)
        logs = (
            root.by_key(root.keys_for(head.checkpoint.origin))
            if root is not None and head is not None
            else []
        )
        if entry.promise is not None:
            self._judge_promise(judge, entry, root, times)
        for log in logs:
            _judge_validity(judge, log, entry)

    def _judge_promise(
        self, judge: Judge, entry: LogEntry, root: TrustedRoot | None, times: list[int]
    ) -> None:
        name = "signed entry timestamp"
        logs = root.by_id(entry.log_id) if root is not None else []
        if not logs:
            judge.check(name, False, f"no log of the trusted root has the ID {entry.log_id.hex()}")
            return
        # rekor, pkg/api/entries.go: over the canonical JSON (RFC 8785) of body, time, log and index.
        signed = json.dumps(
            {
                "body": encode_base64(entry.body),
                "integratedTime": entry.integrated,
                "logID": entry.log_id.hex(),
                "logIndex": entry.index,
            },
            separators=(",", ":"),
        ).encode("ascii")
        ok = any(verify_signature(log.key, signed, entry.promise or b"") for log in logs)
        if judge.check(name, ok, f"{'' if ok else 'not '}signed by the log, at {entry.integrated}"):
            times.append(entry.integrated)

    def _judge_about(self, judge: Judge, entry: LogEntry) -> SigningKey | None:
        """The entry's body is what the log contains: it must be about this very signature."""
        name = "entry"
        try:
            about = parse_entry(entry.body)
        except MalformedJson as error:
            judge.check(name, False, f"the body cannot be read: {error.reason}")
            return None
        if entry.kind != about.kind:
            judge.check(name, False, f"expected kind {entry.kind}, found {about.kind}")
        if not about.is_read:
            judge.check(name, False, f"what an entry of kind {about.kind} is about is not known here")
            return None
        at = (
            about.signatures.index(self.parts.content.signature)
            if self.parts.content.signature in about.signatures
            else None
        )
        if at is None:
            judge.check(name, False, "the entry is about another signature than the bundle's")
            return None
        verifier = about.verifiers[at]
        if self.parts.certificate is not None and verifier != self.parts.certificate:
            judge.check(name, False, "the entry is about another certificate than the bundle's")
            return None
        if self._is_about_content(judge, about):
            judge.check(name, True, f"{about.kind}, about the bundle's signature and certificate")
        return load_signing_key(verifier)

    def _is_about_content(self, judge: Judge, about: RekorEntry) -> bool:
        content = self.parts.content
        expected = about.artifact if content.payload is None else about.payload or about.artifact
        if expected is None:
            return judge.check("entry", False, "the entry does not say what was signed")
        if content.payload is None:
            found = content.digest
        else:
            data = content.payload if expected is about.payload else content.encoded()
            found = hashlib.new(expected.hash, data).digest()
        if found is not None and found != expected.value:
            detail = f"expected {expected.hash} {expected.value.hex()}, found {found.hex()}"
            return judge.check("entry", False, f"the entry is about another artifact: {detail}")
        return self._judge_artifact(judge, expected.hash, expected.value)

    def _judge_artifact(self, judge: Judge, hash_: str, expected: bytes) -> bool:
        names = list(judge.options.artifacts)
        name = ARTIFACT if ARTIFACT in names or len(names) != 1 else names[0]
        given = judge.artifact(name)
        if self.parts.content.payload is not None:
            # The artifact of an envelope is its payload, or what a statement in it names by digest.
            if given is not None and given != self.parts.content.payload:
                digest = hashlib.sha256(given).hexdigest()
                named = digest in _subjects(self.parts.content.payload)
                detail = f"SHA-256 {digest} is {'' if named else 'not '}a subject of the statement"
                return judge.check("artifact", named, detail)
            return True
        if given is None:
            judge.say_unchecked(f"the artifact was not given, and not compared with {hash_} {expected.hex()}")
            return True
        found = hashlib.new(hash_, given).digest()
        ok = found == expected
        detail = f"{hash_} {found.hex()}" if ok else f"expected {hash_} {expected.hex()}, found {found.hex()}"
        return judge.check("artifact", ok, detail)

    def _judge_signature(self, judge: Judge, key: SigningKey | None) -> None:
        name = "artifact signature"
        if key is None:
            judge.check(name, False, "there is no key to verify it with")
            return
        content = self.parts.content
        if content.payload is not None:
            ok: bool | None = key.verifies(content.signature, content.encoded())
        else:
            ok = key.verifies_digest(content.signature, content.digest or b"", content.hash)
        if ok is None:
            judge.say_unchecked("the signature itself, of a kind that is made over the whole artifact")
            return
        judge.check(name, ok, f"{'verifies' if ok else 'does not verify'} with the key of the entry")

    def _judge_timestamps(self, judge: Judge, times: list[int]) -> None:
        for data in self.parts.timestamps:
            stamp = _timestamp(judge, data)
            if stamp is None:
                continue
            ok = stamp.is_of(self.parts.content.signature)
            detail = (
                f"of the bundle's signature, at {stamp.when}"
                if ok
                else "of something else than the signature"
            )
            if judge.check("RFC 3161 timestamp", ok, detail):
                times.append(stamp.when)
        if not times:
            judge.check("signing time", False, "neither log nor timestamp says when this was signed")

    def _judge_time(self, judge: Judge, key: SigningKey | None, times: list[int]) -> None:
        if key is None or key.validity is None:
            return
        start, end = key.validity
        for when in times:
            ok = start <= when <= end
            where = "within" if ok else "not within"
            judge.check("signing time", ok, f"{when} is {where} the certificate's validity, {start} to {end}")

    def learned(self) -> Learned:
        """The entries' checkpoints."""
        return Learned(
            tuple(
                [
                    entry.proof.checkpoint
                    for entry in self.parts.entries
                    if entry.proof and entry.proof.checkpoint
                ]
            )
        )


def _trusted_root(judge: Judge) -> TrustedRoot | None:
    data = judge.options.trusted_root
    if data is None:
        return None
    try:
        return parse_trusted_root(data)
    except MalformedJson as error:
        judge.check("trusted root", False, f"cannot be read: {error.reason}")
        return None


def _judge_same_head(judge: Judge, proof: InclusionProof, head: Head) -> None:
    """The proof says size and root once more beside the checkpoint; only the checkpoint's are signed."""
    checkpoint = head.checkpoint
    same = (proof.size, proof.root) == (checkpoint.size, checkpoint.root)
    detail = (
        "size and root are the checkpoint's"
        if same
        else (
            f"expected size {checkpoint.size} and root {encode_base64(checkpoint.root)},"
            f" found {proof.size} and {encode_base64(proof.root)}"
        )
    )
    judge.check("inclusion proof", same, detail)


def _judge_validity(judge: Judge, log: RootLog, entry: LogEntry) -> None:
    # Rekor v2 has no time of its own; its key's validity has nothing to be compared with.
    if entry.promise is not None and entry.log_id == log.log_id:
        ok = log.valid_at(entry.integrated)
        where = "within" if ok else "not within"
        judge.check(
            "log key validity", ok, f"{entry.integrated} is {where} {log.start:.0f} to {log.end or 'now'}"
        )


def _timestamp(judge: Judge, data: bytes) -> Timestamp | None:
    try:
        return parse_timestamp(data)
    except MalformedTimestamp as error:
        judge.check("RFC 3161 timestamp", False, f"cannot be read: {error.reason}")
        return None


def _subjects(payload: bytes) -> set[str]:
    """The SHA-256 digests of an in-toto statement's subjects, in hex."""
    try:
        subjects = list_of(parse_object(payload), "subject")
        return {text_of(object_of(each, "digest"), "sha256") for each in subjects if isinstance(each, dict)}
    except MalformedJson:
        return set()


def recognises(members: dict[str, Any]) -> bool:
    """Whether a JSON object is meant as a bundle."""
    return "verificationMaterial" in members or "sigstore.bundle" in str(members.get("mediaType", ""))


def parse(members: dict[str, Any]) -> SigstoreBundle:
    """Take a JSON object as a bundle; raises MalformedBundle."""
    try:
        return SigstoreBundle(parse_parts(members))
    except MalformedJson as error:
        raise MalformedBundle(FORMAT, error.reason) from error
