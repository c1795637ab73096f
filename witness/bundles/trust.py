"""What is trusted, written down: the content of a trust store's files. The files are the caller's affair."""

from __future__ import annotations

import json
from typing import Any, Final

from witness.bundles.report import Learned, MalformedBundle
from witness.bundles.strict_json import MalformedJson, list_of, object_of, parse_object
from witness.bundles.versions import MalformedVersion, version_key
from witness.tlog.checkpoint import MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import MalformedNote, parse_note

FORMAT: Final = "tlog-witness-trust/v1"


def encode_trust(trust: Learned) -> bytes:
    """Write what is trusted; `decode_trust` gives the same back."""
    members = {
        "format": FORMAT,
        "checkpoints": [note.decode("utf-8") for note in trust.checkpoints],
        "versions": dict(sorted(trust.versions.items())),
    }
    return json.dumps(members, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def decode_trust(data: bytes) -> Learned:
    """Read what `encode_trust` wrote.

    Raises:
        MalformedBundle: it is anything else: a store that cannot be read is not an empty one.
    """
    try:
        return _decode(parse_object(data))
    except (MalformedJson, MalformedNote, MalformedCheckpoint) as error:
        raise MalformedBundle("trust store", error.reason) from error
    except MalformedVersion as error:
        raise MalformedBundle("trust store", "a version that is none") from error
    except UnicodeEncodeError as error:
        raise MalformedBundle("trust store", "not UTF-8") from error


def _decode(members: dict[str, Any]) -> Learned:
    if members.get("format") != FORMAT:
        raise MalformedJson(f"not of the format {FORMAT}")
    notes, versions = list_of(members, "checkpoints"), object_of(members, "versions")
    if not all(isinstance(each, str) for each in (*notes, *versions.values())):
        raise MalformedJson("a member of another type")
    checkpoints = tuple([note.encode("utf-8") for note in notes])
    for note in checkpoints:
        parse_checkpoint(parse_note(note).text)
    for version in versions.values():
        version_key(version)
    return Learned(checkpoints, versions)


def merge_trust(old: Learned, new: Learned) -> Learned:
    """What is trusted after a bundle has verified against `old`: of each log the new checkpoint."""
    checkpoints = {_origin(note): note for note in (*old.checkpoints, *new.checkpoints)}
    return Learned(tuple(checkpoints.values()), {**old.versions, **new.versions})


def _origin(note: bytes) -> bytes:
    return note.partition(b"\n")[0]
