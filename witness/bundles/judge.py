"""The checks that formats share: who signed the checkpoint, who saw it, what it extends, what it contains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from witness.bundles.consistency import PREVIOUS, OldRoot, compare
from witness.bundles.options import MAX_CLOCK_LEAD, Options
from witness.bundles.report import Check, Learned, Report
from witness.bundles.versions import MalformedVersion, version_key
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.merkle import InvalidProof, leaf_hash, verify_inclusion
from witness.tlog.note import MalformedNote, Note, VerifierKey, parse_note
from witness.tlog.policy import NONE
from witness.tlog.signature import InvalidNoteSignature, Verified, cosignature_timestamp, verify_note

HEAD: Final = "checkpoint"
LOG: Final = "log signature"
WITNESSES: Final = "witnesses"
INCLUSION: Final = "inclusion"
ENTRY: Final = "entry"


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint whose log signature and witnesses were judged, well or badly.

    Attributes:
        note: the signed note, as it stood in the bundle.
        checkpoint: its text, parsed.
        trusted: whether a known log signed it and the quorum holds.
        witnessed: whether the quorum asked for a witness at all.
    """

    note: bytes
    checkpoint: Checkpoint
    trusted: bool
    witnessed: bool


class Judge:
    """Gathers the checks of one bundle."""

    def __init__(self, format_: str, options: Options) -> None:
        self.format = format_
        self.options = options
        self.checks: list[Check] = []
        self.unchecked: list[str] = []
        self._heads: dict[str, tuple[int, bytes]] = {}
        self._versions: dict[str, str] = {}
        self._used: set[str] = set()
        self._entry_used = False
        self._met: set[str] = set()
        self._seen: dict[str, Checkpoint] = {}

    def again(self) -> Judge:
        """A judge of the same, that has found so far what this one has."""
        other = Judge(self.format, self.options)
        other.checks += self.checks
        other.unchecked += self.unchecked
        other._heads.update(self._heads)
        other._used |= self._used
        other._met |= self._met
        other._seen.update(self._seen)
        return other

    def check(self, name: str, ok: bool, detail: str) -> bool:  # noqa: FBT001 - the check's outcome
        """Records a step; the outcome again, for what depends on it."""
        self.checks.append(Check(name, ok, detail))
        return ok

    def say_unchecked(self, sentence: str) -> None:
        """Records what was not verified."""
        self.unchecked.append(sentence)

    def artifact(self, name: str) -> bytes | None:
        """A given artifact, which thereby counts as used."""
        content = self.options.artifacts.get(name)
        if content is not None:
            self._used.add(name)
        return content

    def report(self) -> Report:
        """The report, with a failure for everything that was given and could not be compared."""
        for name in self.options.artifacts:
            if name not in self._used:
                self.check(f"artifact {name}", False, f"nothing in this {self.format} says what it must be")
        given = self.options.entry is not None or self.options.leaf_hash is not None
        if given and not self._entry_used:
            self.check(ENTRY, False, f"a {self.format} shows no entry to compare with the given one")
        previous = self.options.previous
        if previous is not None and self.options.previous_must_match and not self._met:
            self.check(
                PREVIOUS, False, f"nothing in this {self.format} can be compared with what was trusted"
            )
        notes = tuple([note for _, note in self._heads.values()])
        learned = Learned(notes, dict(self._versions))
        return Report(self.format, tuple(self.checks), tuple(self.unchecked), learned)

    # --- Checkpoints ---

    def head(
        self,
        data: bytes,
        keys_for: Callable[[str], Iterable[VerifierKey]] | None = None,
        old_root: OldRoot | None = None,
    ) -> Head | None:
        """Judges a signed checkpoint: form, origin, log signature, witnesses, consistency with earlier ones.

        Args:
            data: the signed note.
            keys_for: further keys that may sign for an origin.
            old_root: gives earlier roots where the bundle shows all leaves.

        Returns:
            None when it is no checkpoint at all; then the check `checkpoint` says so.
        """
        try:
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
        except (MalformedNote, MalformedCheckpoint) as error:
            self.check(HEAD, False, f"not a signed checkpoint: {error.reason}")
            return None
        self.check(HEAD, True, f"{checkpoint.origin}, size {checkpoint.size}")
        logs = [*self.log_keys(checkpoint.origin), *(keys_for(checkpoint.origin) if keys_for else ())]
        trusted = self._origin(checkpoint)
        verified = self._signatures(note, logs)
        trusted = self._log_signature(checkpoint, logs, verified) and trusted
        trusted = self._cosigners(verified or ()) and trusted
        head = Head(data, checkpoint, trusted, self.needs_witness())
        self.consistency(head, old_root)
        self.learn(checkpoint, data)
        return head

    def learn(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Remembers a checkpoint, to be trusted from now on if everything holds; of one log the largest."""
        kept = self._heads.get(checkpoint.origin)
        if kept is None or kept[0] <= checkpoint.size:
            self._heads[checkpoint.origin] = (checkpoint.size, note)

    def log_keys(self, origin: str) -> list[VerifierKey]:
        """The keys that may sign for this origin.

        A key whose name is not the origin is accepted for the one that `--origin` names: older logs (the
        Go checksum database, Armory Drive) are so. Else any known log could speak for any other.
        """
        keys = [key for key in self.options.logs if origin in (self.options.origin, key.name)]
        if self.options.policy is not None:
            keys += [log.key for log in self.options.policy.logs if log.key.name == origin]
        return keys

    def _origin(self, checkpoint: Checkpoint) -> bool:
        expected = self.options.origin
        if expected is None or expected == checkpoint.origin:
            return True
        return self.check("origin", False, f"expected {expected}, found {checkpoint.origin}")

    def _signatures(self, note: Note, logs: Sequence[VerifierKey]) -> tuple[Verified, ...] | None:
        keys = dict.fromkeys([*logs, *self.options.witnesses, *self._policy_witness_keys(note)])
        try:
            return verify_note(note, tuple(keys))
        except InvalidNoteSignature as error:
            # SPEC signed-note: "If a signature from a known key fails to verify, clients SHOULD reject the
            # whole note."
            self.check(
                "signatures", False, f"the signature by {error.name}+{error.key_id.hex()} is not valid"
            )
            return None

    def _policy_witness_keys(self, note: Note) -> Iterable[VerifierKey]:
        if self.options.policy is None:
            return
        names = {line.name for line in note.signatures}
        for witness in self.options.policy.witnesses:
            if witness.key is not None:
                yield witness.key
                continue
            for name in names:  # a raw key, whose name only a signature line tells
                key = witness.key_named(name)
                if key is not None:
                    yield key

    def _log_signature(
        self, checkpoint: Checkpoint, logs: Sequence[VerifierKey], verified: tuple[Verified, ...] | None
    ) -> bool:
        if not logs:
            return self.check(LOG, False, f"no key is known for the origin {checkpoint.origin}")
        if verified is None:
            return self.check(LOG, False, "a known key's signature is not valid, which spoils the note")
        for each in verified:
            if each.key in logs:
                return self.check(LOG, True, f"signed by {each.key.name}+{each.key.key_id.hex()}")
        expected = ", ".join(f"{key.name}+{key.key_id.hex()}" for key in logs)
        return self.check(LOG, False, f"expected a signature by {expected}, found none")

    # --- Witnesses ---

    def needs_witness(self) -> bool:
        """Whether any witness must have cosigned."""
        policy = self.options.policy
        return bool(self.options.witnesses) or (policy is not None and policy.quorum != NONE)

    def _cosigners(self, verified: Sequence[Verified]) -> bool:
        stamps: dict[bytes, int] = {}  # public key to the newest time at which it cosigned
        for each in verified:
            stamp = cosignature_timestamp(each.key, each.signature.value)
            if stamp is not None:
                stamps[each.key.public_key] = max(stamp, stamps.get(each.key.public_key, 0))
        return self.quorum(stamps)

    def quorum(self, stamps: Mapping[bytes, int], refused: str = "") -> bool:
        """Judges which witnesses have cosigned.

        Args:
            stamps: by public key, the time of its newest verified cosignature, POSIX seconds.
            refused: what to add about cosignatures that did not verify.
        """
        if not self.needs_witness():
            self.say_unchecked("no witness was asked for: whether others see the same log is not known")
            return True
        stale: list[str] = []
        fresh = {key for key, stamp in stamps.items() if self._is_fresh(key, stamp, stale)}
        notes = "".join([*stale, refused])
        ok = True
        policy = self.options.policy
        if policy is not None and policy.quorum != NONE:
            names = [witness.name for witness in policy.witnesses if witness.public_key in fresh]
            seen = ", ".join(names) or "none"
            ok = self.check(
                WITNESSES,
                policy.satisfied(names),
                f"expected {policy.quorum_text()}; cosigned by {seen}{notes}",
            )
        for key in self.options.witnesses:
            cosigned = key.public_key in fresh
            detail = "cosigned" if cosigned else f"expected a cosignature, found none that counts{notes}"
            ok = self.check(f"witness {key.name}", cosigned, detail) and ok
        return ok

    def _is_fresh(self, key: bytes, stamp: int, stale: list[str]) -> bool:
        max_age, now = self.options.max_age, self.options.now
        if max_age is None or now is None:
            return True
        # A time of 0 says nothing (tlog-cosignature, 0x06), and one ahead of us would never grow old.
        if 0 < stamp <= now + MAX_CLOCK_LEAD and now - stamp <= max_age:
            return True
        stale.append(
            f"; {self._witness_name(key)} at {stamp}, not within {max_age} s of {now}, does not count"
        )
        return False

    def _witness_name(self, public_key: bytes) -> str:
        policy = self.options.policy
        for witness in policy.witnesses if policy is not None else ():
            if witness.public_key == public_key:
                return witness.name
        for key in self.options.witnesses:
            if key.public_key == public_key:
                return key.name
        return "a key that is not a witness's"

    # --- What was trusted before ---

    def consistency(self, head: Head, old_root: OldRoot | None = None) -> None:
        """Judges whether the checkpoint extends what was trusted, and agrees with others in the bundle."""
        new = head.checkpoint
        before = self._seen.setdefault(new.origin, new)
        if before.size == new.size and before.root != new.root:
            self.check(PREVIOUS, False, f"two roots at size {new.size} in one bundle: the log has forked")
        elif before.size != new.size:
            self.say_unchecked(f"whether the trees of size {before.size} and {new.size} are of one log")
        if self.options.previous is None:
            return
        vouched = head.trusted and head.witnessed
        found = compare(new, self.options.previous, vouched=vouched, old_root=old_root)
        if found is not None:
            self._met.add(new.origin)
            self.checks.append(found)
        elif not self.options.previous_must_match:
            self.say_unchecked(f"no earlier checkpoint of {new.origin} is known to compare this one with")

    def version(self, subject: str, version: str) -> None:
        """Judges that a version is not below the last, and remembers it; `version` is well-formed."""
        last = self.options.previous.versions.get(subject) if self.options.previous is not None else None
        self._versions[subject] = version
        if last is None:
            self.say_unchecked(f"no earlier version of {subject} is known to compare {version} with")
            return
        self._met.add(subject)
        try:
            ok = version_key(version) >= version_key(last)
        except MalformedVersion:
            ok = False
        relation = "not below" if ok else "below"
        self.check("version", ok, f"{subject} {version} is {relation} the last, {last}")

    # --- Entries ---

    def use_entry(self) -> None:
        """Says that the format compares the given entry and leaf hash in its own way."""
        self._entry_used = True

    def entry_hash(self) -> bytes | None:
        """The leaf hash of the given entry, or None when none was given."""
        self.use_entry()
        if self.options.leaf_hash is not None:
            given = self.options.leaf_hash
            if self.options.entry is not None and leaf_hash(self.options.entry) != given:
                self.check(ENTRY, False, "the given entry has not the given leaf hash")
            return given
        return None if self.options.entry is None else leaf_hash(self.options.entry)

    def same_entry(self, entry: bytes) -> None:
        """Judges that the given entry, if any, is the one that the bundle carries."""
        given = self.entry_hash()
        if given is not None:
            found = leaf_hash(entry)
            detail = (
                "the bundle's entry is the given one"
                if given == found
                else (f"expected leaf hash {given.hex()}, found {found.hex()}")
            )
            self.check(ENTRY, given == found, detail)

    def inclusion(self, index: int, leaf: bytes, proof: Sequence[bytes], head: Head | None) -> bool:
        """Judges that the tree has the leaf hash at the index."""
        if head is None:
            return self.check(INCLUSION, False, "there is no checkpoint to show inclusion in")
        size, root = head.checkpoint.size, head.checkpoint.root
        try:
            verify_inclusion(index, size, leaf, root, proof)
        except InvalidProof as error:
            detail = f"leaf {leaf.hex()} is not shown to be entry {index} of {size}: {error.reason}"
            return self.check(INCLUSION, False, detail)
        return self.check(INCLUSION, True, f"entry {index} of {size}, leaf hash {leaf.hex()}")

    def signers(self, name: str, data: bytes) -> bytes | None:
        """Judges that every manifest key has signed a note; its text, or None when it is no note."""
        try:
            note = parse_note(data)
        except MalformedNote as error:
            self.check(name, False, f"not a signed note: {error.reason}")
            return None
        keys = self.options.manifest_keys
        if not keys:
            self.check(name, False, "no key is known that must have signed")
            return note.text
        named = tuple(key for key in keys if isinstance(key, VerifierKey))
        try:
            signed = {each.key for each in verify_note(note, named)}
        except InvalidNoteSignature as error:
            self.check(name, False, f"the signature by {error.name}+{error.key_id.hex()} is not valid")
            return note.text
        for key in keys:
            if isinstance(key, VerifierKey):
                found = "signed by" if key in signed else "expected a signature, found none, by"
                self.check(name, key in signed, f"{found} {key.name}+{key.key_id.hex()}")
            else:
                self.check(name, False, "a key without a name signs no note")
        return note.text

    def digest(self, name: str, content: bytes, expected: bytes) -> bool:
        """Judges that a content has a SHA-256 digest."""
        found = hashlib.sha256(content).digest()
        if found == expected:
            return self.check(name, True, f"SHA-256 {found.hex()}")
        return self.check(name, False, f"expected SHA-256 {expected.hex()}, found {found.hex()}")
