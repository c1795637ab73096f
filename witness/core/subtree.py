"""sign-subtree: a cosignature over a part of a tree that we have cosigned before.

https://c2sp.org/tlog-witness, section sign-subtree

State is neither needed nor changed: our own cosignature on the reference checkpoint is the memory. That is
only as good as the keys and the state that gave it, so that what stops signing stops this too.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from witness.core.book import LogBook
from witness.core.cosigner import Cosigner
from witness.core.ground import Ground
from witness.core.refusals import DisabledLog, MalformedRequest, SubtreesUnsupported, UnknownOrigin
from witness.core.signing import SigningDesk
from witness.core.verifier import judge_subtree_form, judge_subtree_reference
from witness.tlog.submission import MalformedSubmission, SignSubtree, parse_sign_subtree


class SubtreeSigner:
    """Judges and signs on other threads, while what signing stands on is watched from the loop's.

    Args:
        book: the logs.
        cosigner: the keys.
        ground: whether anything may be signed now. A cosignature over a subtree has no timestamp, but what
            stops signing stops it too: nobody can tell which of our promises hold while it is unknown.
        judges: threads that check, and sign with keys in memory.
        desk: where keys in devices sign, if there are such.
    """

    def __init__(
        self, book: LogBook, cosigner: Cosigner, ground: Ground, judges: Executor, desk: SigningDesk | None
    ) -> None:
        self._book = book
        self._cosigner = cosigner
        self._ground = ground
        self._judges = judges
        self._desk = desk if desk is not None and cosigner.is_paced_for_subtrees else None

    async def answer(self, body: bytes) -> bytes:
        """The cosignature lines for a sign-subtree body.

        Raises:
            CoreError: a `Refusal` or `Unavailable` that says why not.
        """
        self._ground.check()
        loop = asyncio.get_running_loop()
        request = await loop.run_in_executor(self._judges, judge_subtree, body, self._book, self._cosigner)
        self._must_still_stand(request)
        if self._desk is None:
            lines = await loop.run_in_executor(self._judges, cosign_subtree, request, self._cosigner)
        else:
            lines = await self._sign_at(self._desk, request)
        self._must_still_stand(request)
        return lines

    async def _sign_at(self, desk: SigningDesk, request: SignSubtree) -> bytes:
        refused = desk.admit()
        if refused is not None:
            raise refused
        job = desk.start(cosign_subtree, request, self._cosigner)
        try:
            return bytes(await asyncio.wrap_future(job))
        finally:
            desk.ended()
            desk.leave()

    def _must_still_stand(self, request: SignSubtree) -> None:
        """Nothing is signed, and nothing signed is let go, once an alarm stands: for all, or for this log."""
        self._ground.check()
        log_state = self._book.get(request.checkpoint.origin)
        if log_state is not None and log_state.stopped is not None:
            raise log_state.stopped.with_traceback(None)


def cosign_subtree(request: SignSubtree, cosigner: Cosigner) -> bytes:
    """The cosignature lines for a request that was judged good.

    Raises:
        KeyUnavailable: a key cannot sign.
    """
    return cosigner.cosign_subtree(request.checkpoint.origin, request.start, request.end, request.root)


def judge_subtree(body: bytes, book: LogBook, cosigner: Cosigner) -> SignSubtree:
    """The request, judged good. The checks stand in the order of the specification.

    Raises:
        CoreError: a `Refusal` or `Unavailable` that says why not.
    """
    if not cosigner.signs_subtrees:
        raise SubtreesUnsupported
    try:
        request = parse_sign_subtree(body)
    except MalformedSubmission as error:
        raise MalformedRequest(error.reason) from error
    judge_subtree_form(request)
    origin = request.checkpoint.origin
    log_state = book.get(origin)
    # SPEC tlog-witness: "If the checkpoint origin is unknown, the witness MUST respond with a "404 Not
    # Found" HTTP status code."
    if log_state is None:
        raise UnknownOrigin(origin)
    if log_state.disabled:
        raise DisabledLog(origin)
    judge_subtree_reference(request, cosigner.vkeys)
    return request
