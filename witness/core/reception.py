"""What is decided about an add-checkpoint body before anything is computed: is it one, of a log of ours?"""

from __future__ import annotations

from witness.core.book import LogBook
from witness.core.refusals import DisabledLog, MalformedRequest, UnknownOrigin
from witness.core.request import Request, Respond
from witness.tlog.submission import MalformedSubmission, parse_add_checkpoint


def take_up(body: bytes, book: LogBook, respond: Respond) -> Request:
    """The request that a body is.

    Raises:
        CoreError: it is none, or its log is not known, disabled, or stopped by an alarm of its own.
    """
    try:
        submission = parse_add_checkpoint(body)
    except MalformedSubmission as error:
        raise MalformedRequest(error.reason) from error
    origin = submission.checkpoint.origin
    log_state = book.get(origin)
    # SPEC tlog-witness: "If the checkpoint origin is unknown, the witness MUST respond with a "404 Not Found"
    # HTTP status code."
    if log_state is None:
        raise UnknownOrigin(origin)
    if log_state.disabled:
        raise DisabledLog(origin)
    if log_state.stopped is not None:
        raise log_state.stopped.with_traceback(None)  # it is raised again and again, and must not grow
    return Request(submission, log_state, respond)
