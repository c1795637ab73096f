"""A Tessera log in a folder, run by the tesseralog program."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from tests.interop.programs import GoPrograms

DEADLINE = 20.0  # seconds for a round to be published


class TesseraLog:
    """A Tessera log in a folder, and what the witness must know of it."""

    def __init__(self, programs: GoPrograms, folder: Path, origin: str) -> None:
        self.origin = origin
        self.folder = folder
        self._programs = programs
        seed = hashlib.sha256(origin.encode()).digest()
        public = b"\x01" + bytes(SigningKey(seed).verify_key)
        key_id = hashlib.sha256(origin.encode() + b"\n" + public).digest()[:4].hex()
        self.vkey = f"{origin}+{key_id}+{base64.b64encode(public).decode()}"
        private = base64.b64encode(b"\x01" + seed).decode()
        self._signer_key = f"PRIVATE+KEY+{origin}+{key_id}+{private}"

    def run(self, policy: str, rounds: list[list[str]], *, deadline: float = DEADLINE) -> dict[str, Any]:
        """Appends round by round; the checkpoints that Tessera published, from the one it started with."""
        request = {
            "dir": str(self.folder),
            "signer_key": self._signer_key,
            "policy": policy,
            "rounds": rounds,
            "deadline_seconds": deadline,
        }
        return self._programs.run("tesseralog", request)

    def check(self, note: str, vkeys: list[str]) -> dict[str, Any]:
        """What Go's verifiers say of a published checkpoint."""
        request = {"note": note, "origin": self.origin, "log": self.vkey, "cosigners": vkeys}
        return self._programs.run("notecheck", request)
