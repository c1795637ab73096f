"""What judge threads do with one request: check it against the log's head, and have it signed.

Nothing here changes state. A request comes back with what its cosignature would imply (`move`), or is
refused; where the log has contradicted itself, with both signed notes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from witness.core.cosigner import Cosigner
from witness.core.refusals import CoreError, Refusal
from witness.core.request import LogState, Request
from witness.core.store.base import Advance, Contradiction, CosignedHead, Head, Store
from witness.core.verifier import authenticate, contradicts, forks, judge
from witness.tlog.note import format_note


class Judge:
    """The judgement with what it needs at hand. Its methods may run on several threads at once.

    Attributes:
        recall: a remembered earlier head, as root and note, by a log's row and a tree size; set by
            `witness.core.continuity`.
    """

    def __init__(self, store: Store, cosigner: Cosigner) -> None:
        self._store = store
        self._cosigner = cosigner
        self.recall: Callable[[int, int], tuple[bytes, bytes] | None] | None = None

    def judge(self, request: Request, timestamp: int) -> None:
        """Decides whether a request may be signed, and notes what was decided on.

        Args:
            request: parsed, its origin known; nobody else works on its log.
            timestamp: POSIX seconds, for the record of a contradiction.

        Raises:
            Refusal: it may not. `request.contradiction` then holds what proves the log wrong, if anything.
        """
        submission, log_state = request.submission, request.log
        checkpoint = submission.checkpoint
        head = log_state.head
        signatures = authenticate(submission, request.keys)
        # Our own re-encoding of what was understood, with the log's verified lines and no others.
        text = checkpoint.text()
        note = format_note(text, signatures)
        start = log_state.start
        # A pinned start is judged as a head that was never cosigned: what is first cosigned extends it.
        try:
            judge(submission, start)
        except Refusal:
            if start is not None:
                # SPEC tlog-witness: "the witness MAY log the request even if the checkpoint fails one of the
                # consistency checks above …, as it might be proof of log misbehavior." Whatever old size the
                # caller named, the log has signed both.
                request.contradiction = self._contradiction(request, start, note, timestamp)
            raise
        request.judged = (head, text, note)

    def cosign(self, request: Request, timestamp: int) -> None:
        """Has the cosigner sign what was judged good.

        Raises:
            KeyUnavailable: one of the keys cannot sign.
        """
        assert request.judged is not None
        head, text, note = request.judged
        checkpoint = request.submission.checkpoint
        cosignatures = self._cosigner.cosign(checkpoint, text, timestamp)
        after = CosignedHead(Head(checkpoint.size, checkpoint.root, timestamp), note, cosignatures)
        request.move = Advance(request.log.log_id, head, after)

    def judge_batch(self, batch: list[Request], timestamp: int, *, sign: bool) -> float:
        """Judges each, and has it signed where `sign` says so; each gets its move or its error.

        Returns:
            The seconds it took.
        """
        began = time.perf_counter()
        for request in batch:
            try:
                self.judge(request, timestamp)
                if sign:
                    self.cosign(request, timestamp)
            except CoreError as error:
                request.error = error
        return time.perf_counter() - began

    def _contradiction(
        self, request: Request, start: Head, note: bytes, timestamp: int
    ) -> Contradiction | None:
        """What in a refused request, signed by the log, contradicts what the log signed before."""
        submission, log_state = request.submission, request.log
        checkpoint = submission.checkpoint
        kind, size, earlier = "root-mismatch", checkpoint.size, None
        if contradicts(checkpoint, start):
            earlier = self._stored_note(log_state, start)
        elif checkpoint.size < start.size:
            known = self.recall(log_state.log_id, checkpoint.size) if self.recall is not None else None
            earlier = known[1] if known is not None and known[0] != checkpoint.root else None
        elif forks(submission, start):
            kind, size, earlier = "fork", start.size, self._stored_note(log_state, start)
        if earlier is None:
            return None
        return Contradiction(
            log_id=log_state.log_id, kind=kind, seen=timestamp, size=size,
            stored=earlier, offered=note, proof=b"".join(submission.proof),
        )  # fmt: skip

    def _stored_note(self, log_state: LogState, start: Head) -> bytes | None:
        """The note of what the next checkpoint must extend, if it is still that."""
        if log_state.head is None:
            return self._store.pinned_note(log_state.log_id)
        stored = self._store.cosigned_by_id(log_state.log_id)
        return stored.note if stored is not None and stored.head == start else None
