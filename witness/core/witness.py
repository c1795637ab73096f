"""The sequence: verify, cosign, persist, release.

Rules of this file, each with its test in tests/rules:

- A signature is released only after the transaction that holds its state has returned from COMMIT.
- A head moves by compare-and-swap from the very head that was judged, in one transaction.
- What is judged against is our own state; nothing that the caller says about state is believed.
- Requests for one log queue behind each other; requests for different logs share their commit: what arrives
  while a commit is under way forms the next batch. There is no timer.
- Signatures are made before the transaction, outside any lock, and thrown away if its compare-and-swap fails.
- A commit that fails discards its batch: no signature of it is released, and heads are read anew.
- No timestamp is issued that is smaller than one issued before, or by a clock that is plainly wrong
  (`witness.core.ground`).
- While signing is stopped (`halted`) nothing is signed, and nothing signed before is released.

Three kinds of threads take part. The event loop's thread owns all state here. Judge threads check and sign
(the libraries release the interpreter lock there). One writer thread owns the store's writes. Where a key is
in a device, a fourth kind signs, at a desk of its own (`witness.core.signing`), and judges only check.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from witness.core.book import LogBook
from witness.core.clock import ClockCheck
from witness.core.cosigner import Cosigner
from witness.core.ground import Ground
from witness.core.judging import Judge
from witness.core.reception import take_up
from witness.core.refusals import (
    CoreError,
    InternalError,
    Overloaded,
    StaleOldSize,
    Stopping,
    StoreUnavailable,
    Unavailable,
)
from witness.core.request import Answer, Limits, Request, Respond, Stages
from witness.core.signing import SigningDesk
from witness.core.store.base import Head, Store, StoreBroken
from witness.core.subtree import SubtreeSigner
from witness.core.writing import Committed, commit, read_changes
from witness.tlog.merkle import EMPTY_ROOT

log = logging.getLogger(__name__)

_AT_A_DESK = 4
"""Requests that a judge takes at once where keys take their time."""

_EMPTY = Head(0, EMPTY_ROOT, 0)


class Witness:
    """One witness over one store. Everything but the constructor runs on one event loop."""

    def __init__(
        self,
        store: Store,
        cosigner: Cosigner,
        *,
        now: Callable[[], float] = time.time,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._cosigner = cosigner
        self._ground = Ground(now)
        self._limits = limits or Limits()
        self.book = LogBook()
        self.stages = Stages()
        self.refusals: Counter[str] = Counter()
        self.accepted = 0
        self.commits = 0
        self.contradictions = 0
        self.pending = 0
        self.judge = Judge(store, cosigner)
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._ready: list[Request] = []
        self._unsigned: deque[Request] = deque()
        self._signed: list[Request] = []
        self._committing = False
        self._judging = 0
        self._scheduled = False
        self._judges = ThreadPoolExecutor(self._limits.judge_threads, "judge")
        self._writer = ThreadPoolExecutor(1, "writer")
        self._desk = SigningDesk(cosigner, self._limits.signing_budget) if cosigner.is_paced else None
        # Before a desk a few at a time: the places that these take show who of the others is in vain.
        self._most_judged = _AT_A_DESK if self._desk is not None else self._limits.max_batch
        self._subtrees = SubtreeSigner(self.book, cosigner, self._ground, self._judges, self._desk)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Reads all state. Nothing is answered before."""
        self._loop = asyncio.get_running_loop()
        self.book.apply(self._store.load())
        self.contradictions = self._store.contradictions()
        self.last_issued = self._store.last_timestamp()

    async def stop(self) -> None:
        """Takes nothing new, answers what is inside, and ends the threads."""
        self._stopping = True
        await self._idle.wait()
        self._judges.shutdown()
        if self._desk is not None:
            self._desk.shutdown()
        self._writer.shutdown()

    # --- what it stands on: read by who reports it, set by `witness.core.continuity` ------------------------

    @property
    def last_issued(self) -> int:
        """The largest timestamp known to be issued, POSIX seconds."""
        return self._ground.last_issued

    @last_issued.setter
    def last_issued(self, timestamp: int) -> None:
        self._ground.last_issued = timestamp

    @property
    def clock(self) -> ClockCheck | None:
        """The bounds of a clock that can be right."""
        return self._ground.clock

    @clock.setter
    def clock(self, clock: ClockCheck | None) -> None:
        self._ground.clock = clock

    @property
    def halted(self) -> CoreError | None:
        """Why nothing is signed, where an alarm stands."""
        return self._ground.halted

    @halted.setter
    def halted(self, reason: CoreError | None) -> None:
        self._ground.halted = reason

    @property
    def broken(self) -> asyncio.Event:
        """Set when the store failed for good."""
        return self._ground.broken

    def unready(self) -> tuple[str, ...]:
        """Why every request would be refused now; empty when none would be for a reason of ours."""
        reasons = self._ground.reasons()
        if self._stopping:
            reasons.append("the core is stopping")
        return tuple(reasons)

    # --- add-checkpoint -------------------------------------------------------------------------------------

    async def add_checkpoint(self, body: bytes) -> bytes:
        """The cosignature lines for an add-checkpoint body.

        Raises:
            CoreError: a `Refusal` or `Unavailable` that says why not.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def respond(answer: Answer) -> None:
            if not future.done():  # its caller may have gone
                future.set_result(answer)

        self.submit(body, respond)
        answer = await future
        if isinstance(answer, CoreError):
            raise answer
        return answer

    def submit(self, body: bytes, respond: Respond) -> None:
        """Takes up an add-checkpoint body; `respond` is called once, on this loop, with lines or an error."""
        if self._stopping:
            respond(self._count(Stopping()))
            return
        if self.pending >= self._limits.max_pending:
            respond(self._count(Overloaded(retry_after=1)))
            return
        try:
            request = take_up(body, self.book, respond)
            self._take_place(request)
        except CoreError as error:
            respond(self._count(error))
            return
        log_state = request.log
        self.pending += 1
        self._idle.clear()
        if not log_state.busy:
            log_state.busy = True
            self._ready.append(request)
            self._schedule()
        elif log_state.waiting is None:
            log_state.waiting = deque([request])
        else:
            log_state.waiting.append(request)

    def _take_place(self, request: Request) -> None:
        """A request that will wait behind one that waits for a device takes its place there now, or never.

        Any other takes one once it was found good; where there is none now, it is told before it is checked.
        """
        if self._desk is None:
            return
        if request.log.busy:
            if (refused := self._desk.admit()) is not None:
                raise refused
            request.admitted = True
        elif self._desk.full:
            raise Overloaded(retry_after=1)

    def _schedule(self) -> None:
        """Looks at the queues once this turn of the loop is over: what arrives together goes together."""
        if not self._scheduled:
            self._scheduled = True
            self._event_loop.call_soon(self._dispatch)

    @property
    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("start() comes first")
        return self._loop

    def _dispatch(self) -> None:
        self._scheduled = False
        if self._desk is not None and self._desk.full:
            self._shed()
        while self._ready and self._judging < self._limits.judge_threads:
            idle = self._limits.judge_threads - self._judging
            share = min(self._most_judged, -(-len(self._ready) // idle))
            batch, self._ready = self._ready[:share], self._ready[share:]
            try:
                timestamp = self._ground.timestamp()
            except Unavailable as error:
                for request in batch:
                    self._finish(request, self._count(error))
                continue
            self._judging += 1
            judging = functools.partial(self.judge.judge_batch, batch, timestamp, sign=self._desk is None)
            future = self._judges.submit(judging)
            future.add_done_callback(self._back(self._judged, batch))
        if self._desk is not None:
            self._dispatch_to(self._desk)
        if self._signed and not self._committing:
            batch, self._signed = (
                self._signed[: self._limits.max_batch],
                self._signed[self._limits.max_batch :],
            )
            self._committing = True
            committing = self._writer.submit(commit, self._store, batch)
            committing.add_done_callback(self._back(self._committed, batch))

    def _shed(self) -> None:
        """All places are taken: what would be checked now, for nothing, would keep others waiting."""
        waiting, self._ready = self._ready, []
        for request in waiting:
            if request.admitted:
                self._ready.append(request)
            else:
                self._finish(request, self._count(Overloaded(retry_after=1)))

    def _dispatch_to(self, desk: SigningDesk) -> None:
        """Hands to the signers what they can take; a timestamp is taken when the signature is made."""
        while self._unsigned and desk.free:
            request = self._unsigned.popleft()
            try:
                timestamp = self._ground.timestamp()
            except Unavailable as error:
                self._finish(request, self._count(error))
                continue
            desk.start(self.judge.cosign, request, timestamp).add_done_callback(
                self._back(self._signed_at, [request])
            )

    def _back(
        self, then: Callable[[list[Request], Future[Any]], None], batch: list[Request]
    ) -> Callable[[Future[Any]], None]:
        """A callback for another thread's future that continues on the loop's own thread."""
        loop = self._event_loop

        def callback(future: Future[Any]) -> None:
            loop.call_soon_threadsafe(then, batch, future)

        return callback

    # --- back on the loop -----------------------------------------------------------------------------------

    def _judged(self, batch: list[Request], future: Future[float]) -> None:
        self._judging -= 1
        error = future.exception()
        if error is not None:
            log.error("a judge thread failed", exc_info=error)
            for request in batch:
                request.move, request.error, request.contradiction = None, InternalError(), None
        else:
            self.stages.judge += future.result()
        for request in batch:
            if request.contradiction is not None:
                self._signed.append(request)  # its evidence is made durable with the next batch
            elif request.move is not None:
                self._signed.append(request)
            elif request.error is None and request.judged is not None and self._desk is not None:
                self._queue_at(self._desk, request)
            else:
                self._finish(request, self._count(request.error or InternalError()))
        self._schedule()

    def _queue_at(self, desk: SigningDesk, request: Request) -> None:
        refused = None if request.admitted else desk.admit()
        if refused is not None:
            self._finish(request, self._count(refused))
            return
        request.admitted = True
        self._unsigned.append(request)

    def _signed_at(self, batch: list[Request], future: Future[None]) -> None:
        assert self._desk is not None
        self._desk.ended()
        error = future.exception()
        for request in batch:
            if error is None:
                self._signed.append(request)
            elif isinstance(error, CoreError):
                self._finish(request, self._count(error))
            else:
                log.error("a signer thread failed", exc_info=error)
                self._finish(request, self._count(InternalError()))
        self._schedule()

    def _committed(self, batch: list[Request], future: Future[Committed]) -> None:
        self._committing = False
        error = future.exception()
        if error is not None:
            self._discard(batch, error)
            return
        committed = future.result()
        self.commits += 1
        self._ground.failing = None
        self.contradictions += committed.contradictions
        self.stages.commit += committed.seconds
        now = time.perf_counter()
        for request, result in zip(batch, committed.outcome, strict=True):
            self.stages.queue += now - request.arrived
            if request.error is not None:
                self._finish(request, self._count(request.error))
            elif request.move is None:
                self._finish(request, self._count(InternalError()))
            elif result is True:
                # Durable. Only now does memory move, and only now is the signature let go.
                self.book.moved(request.log, request.move.after.head)
                self.last_issued = max(self.last_issued, request.move.after.head.timestamp)
                stopped = self.halted or request.log.stopped
                if stopped is not None:  # the alarm came while it was signed and stored
                    self._finish(request, self._count(stopped))
                    continue
                self.accepted += 1
                self._finish(request, request.move.after.cosignatures)
            else:
                # Somebody else moved the head: what was signed is thrown away.
                head = result if isinstance(result, Head) else None
                self.book.moved(request.log, head)
                self._finish(request, self._count(StaleOldSize((head or request.log.pin or _EMPTY).size)))
        self._schedule()

    def _discard(self, batch: list[Request], error: BaseException) -> None:
        """A commit failed: nothing of the batch is released, and no more is signed on unknown ground."""
        if isinstance(error, StoreBroken):
            log.error("the store failed: %s", error.reason)
            refusal: CoreError = StoreUnavailable(error.reason)
            self._ground.failing = error.reason
            if error.lasting:
                self._ground.give_up(error.reason)
        else:
            log.error("the writer thread failed", exc_info=error)
            refusal = InternalError()
            self._ground.give_up("the writer thread failed")
        for request in batch:
            self._finish(request, self._count(refusal))
        self._schedule()

    def _finish(self, request: Request, answer: Answer) -> None:
        """Answers, and lets the next request for the same log in."""
        log_state = request.log
        waiting = log_state.waiting
        if waiting:
            self._ready.append(waiting.popleft())
            self._schedule()
        else:
            log_state.busy = False
            log_state.waiting = None
        self.pending -= 1
        if request.admitted and self._desk is not None:
            self._desk.leave()
        request.respond(answer)
        if self.pending == 0:
            self._ground.idle()
            self._idle.set()

    def _count(self, error: CoreError) -> CoreError:
        self.refusals[error.code] += 1
        return error

    # --- sign-subtree ---------------------------------------------------------------------------------------

    async def sign_subtree(self, body: bytes) -> bytes:
        """The cosignature lines for a sign-subtree body. State is neither needed nor changed.

        Raises:
            CoreError: a `Refusal` or `Unavailable` that says why not.
        """
        if self._stopping:
            raise self._count(Stopping())
        if self.pending >= self._limits.max_pending:
            raise self._count(Overloaded(retry_after=1))
        self.pending += 1
        self._idle.clear()
        try:
            return await self._subtrees.answer(body)
        except CoreError as error:
            raise self._count(error) from error.__cause__
        finally:
            self.pending -= 1
            if self.pending == 0:
                self._ground.idle()
                self._idle.set()
            self._schedule()  # the desk may have room again

    # --- what others changed --------------------------------------------------------------------------------

    async def refresh(self) -> int:
        """Takes over what the command line changed in the store; returns how many logs that concerned.

        It is read on the writer's thread (`witness.core.writing`).
        """
        since, failing = self.book.change, self._ground.failing is not None
        reading = functools.partial(read_changes, self._store, since, failing=failing)
        try:
            records = await self._event_loop.run_in_executor(self._writer, reading)
        except StoreBroken as error:
            if error.lasting:
                self._ground.give_up(error.reason)
            return 0
        if failing:
            self._ground.failing = None
        # A head that was brought forward has the time of a signature that this state did not know of.
        self.last_issued = max(self.last_issued, *(head.timestamp for _, head in records if head), 0)
        return self.book.apply(records)
