"""A signed checkpoint in a file, from which a new log is to start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from witness.cli.errors import WrongUsage
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, parse_checkpoint
from witness.tlog.note import MalformedNote, VerifierKey, format_note, parse_note
from witness.tlog.signature import InvalidNoteSignature, verify_note

_MAX_FILE: Final = 128 * 1024


def read_pin(file: Path, origin: str, keys: Sequence[VerifierKey]) -> tuple[Checkpoint, bytes]:
    """The checkpoint in a file, and the note with only the log's own verified signatures.

    Args:
        file: a signed checkpoint.
        origin: the log's, which the checkpoint must have.
        keys: the log's, one of which must have signed it.

    Raises:
        WrongUsage: it is no signed checkpoint of this log, or one of an empty tree.
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        data = stream.read(_MAX_FILE + 1)
    try:
        note = parse_note(data)
        checkpoint = parse_checkpoint(note.text)
        verified = verify_note(note, keys)
    except (MalformedNote, MalformedCheckpoint) as error:
        raise WrongUsage(f"--pin {file}: not a signed checkpoint: {error}") from error
    except InvalidNoteSignature as error:
        raise WrongUsage(f"--pin {file}: a signature of the log's does not verify") from error
    if checkpoint.origin != origin:
        raise WrongUsage(f"--pin {file}: a checkpoint of {checkpoint.origin!r}, not of {origin!r}")
    if not verified:
        raise WrongUsage(f"--pin {file}: not signed by any of the log's keys that are given")
    if checkpoint.size == 0:
        raise WrongUsage(f"--pin {file}: every log starts from the empty tree")
    return checkpoint, format_note(note.text, [each.signature for each in verified])
