"""Publishing to a folder: the monitoring layout of tlog-witness as plain files.

    <folder>/<origin hash>/checkpoint

The origin hash is the SHA-256 of the origin in lowercase hex, as in `GET <monitoring prefix>/<origin
hash>/checkpoint`, so that any static web server or a CDN in front of one can serve the monitoring prefix.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distributor.protocol import PublishFailed, PublishRejected, TargetUnavailable
from witness.tlog.checkpoint import Checkpoint, MalformedCheckpoint, origin_hash, parse_checkpoint
from witness.tlog.cosignature import parse_timestamped
from witness.tlog.note import MalformedNote, Note, SignatureType, parse_note

MAX_NOTE = 128 * 1024
"""Bytes of a file that are read to compare it with what replaces it; a longer one is not a checkpoint."""

_FILE = "checkpoint"
_TEMPORARY = ".checkpoint.new"
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
# O_NOFOLLOW: a symbolic link laid in our folder would lead the write, or the read, out of it.
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO laid there would hold the reader forever.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Published:
    """What a checkpoint says about its own age: POSIX seconds of our newest cosignature, 0 without one."""

    checkpoint: Checkpoint
    timestamp: int


class StaticTarget:
    """A folder on a local file system.

    Several fronts may write to one folder: the folder of an origin is locked (flock) while its checkpoint
    is compared and replaced.

    Args:
        folder: made when absent; it may itself be a symbolic link, what is in it may not.
        witness_name: our name, as in our vkeys: whose cosignatures' timestamps tell a checkpoint's age.
        name: what operators know it by; the folder's path when None.
    """

    def __init__(self, folder: Path, witness_name: str, *, name: str | None = None) -> None:
        self._folder = folder
        self._witness = witness_name
        self._name = name or str(folder)

    @property
    def name(self) -> str:
        """What operators know it by."""
        return self._name

    async def publish(self, origin: str, note: bytes) -> None:
        """Replaces the origin's file, and returns once that is durable.

        A reader sees the old file or the new one, whole. When the folder already holds the very checkpoint
        with a later cosignature, nothing is written.

        Raises:
            PublishRejected: the note is no checkpoint of the origin; the file there is of the same size with
                another root; something that is not a plain file or folder stands in the way.
            TargetUnavailable: the file system fails.
            PublishFailed: the folder holds a larger checkpoint, or another process is writing it.
        """
        try:
            new = self._parse(note)
        except (MalformedNote, MalformedCheckpoint) as error:
            raise PublishRejected(self._name, origin, f"not a checkpoint: {error}") from error
        if new.checkpoint.origin != origin:
            raise PublishRejected(self._name, origin, f"a checkpoint of {new.checkpoint.origin!r}")
        # In a thread: a file system may take seconds to sync, and the event loop must not.
        await asyncio.to_thread(self._write, origin, note, new)

    def _write(self, origin: str, note: bytes, new: _Published) -> None:
        try:
            with self._locked_folder(origin) as folder:
                old = self._current(folder)
                if old is not None and old.checkpoint.origin == origin and not self._advances(old, new):
                    return
                _replace(folder, note)
        except BlockingIOError as error:
            raise PublishFailed(self._name, origin, "another process is writing there") from error
        except OSError as error:
            reason = f"{error.strerror or error}"
            # ELOOP and ENOTDIR: a link, or a file where a folder belongs; EISDIR: the other way round.
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
                raise PublishRejected(self._name, origin, f"not a plain file or folder: {reason}") from error
            raise TargetUnavailable(self._name, origin, reason) from error

    def _advances(self, old: _Published, new: _Published) -> bool:
        """Whether the new checkpoint belongs in the place of the old one; raises where that is a fault."""
        was, now = old.checkpoint, new.checkpoint
        if now.size < was.size:
            reason = f"the folder holds size {was.size}, larger than {now.size}"
            raise PublishFailed(self._name, now.origin, reason)
        if now.size > was.size:
            return True
        if now.root != was.root:
            reason = f"the folder holds another root hash of size {was.size}"
            raise PublishRejected(self._name, now.origin, reason)
        return new.timestamp >= old.timestamp

    @contextmanager
    def _locked_folder(self, origin: str) -> Iterator[int]:
        """A descriptor of the origin's folder, which is made when absent."""
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        top = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folder = _open_folder(top, origin_hash(origin).hex())
        finally:
            os.close(top)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            os.close(folder)

    def _current(self, folder: int) -> _Published | None:
        """The checkpoint that stands there; None when there is none, or what is there is not one.

        Raises:
            OSError: it cannot be opened; ELOOP when it is a symbolic link, EISDIR when not a plain file.
        """
        try:
            descriptor = os.open(_FILE, _OPEN_FILE, dir_fd=folder)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, f"{_FILE} is something else")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_NOTE + 1)
        if len(data) > MAX_NOTE:
            return None
        try:
            return self._parse(data)
        except (MalformedNote, MalformedCheckpoint):
            return None  # half a file from elsewhere serves nobody; ours are never half

    def _parse(self, data: bytes) -> _Published:
        note = parse_note(data)
        return _Published(parse_checkpoint(note.text), self._timestamp(note))

    def _timestamp(self, note: Note) -> int:
        """POSIX seconds of our newest cosignature (tlog-cosignature); 0 when there is none."""
        newest = 0
        for signature in note.signatures:
            if signature.name != self._witness:
                continue
            for kind in (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_MLDSA44):
                # The key ID does not tell the type without the key; the length does, for our own lines.
                try:
                    newest = max(newest, parse_timestamped(signature.value, kind).timestamp)
                except MalformedNote:
                    continue
        return newest


def _open_folder(top: int, name: str) -> int:
    """A descriptor of the folder of that name in `top`; made, durably and readable by all, when absent."""
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=top)
    except FileExistsError:
        return os.open(name, _OPEN_FOLDER, dir_fd=top)
    folder = os.open(name, _OPEN_FOLDER, dir_fd=top)
    os.fchmod(folder, _FOLDER_MODE)  # the mode given to mkdir is cut by the umask
    os.fsync(top)
    return folder


def _replace(folder: int, note: bytes) -> None:
    """Writes the file beside its place, makes it durable, and renames it into its place.

    The caller holds the folder's lock, so what has the temporary name is the left-over of a crash, or a trap.
    """
    with suppress(FileNotFoundError):
        os.unlink(_TEMPORARY, dir_fd=folder)
    descriptor = os.open(_TEMPORARY, _CREATE_FILE, _FILE_MODE, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, _FILE_MODE)  # the mode given to open is cut by the umask
        file.write(note)
        file.flush()
        os.fsync(descriptor)
    os.rename(_TEMPORARY, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
