"""sign-subtree: a cosignature over a part of a tree that we have cosigned before.

https://c2sp.org/tlog-witness, section sign-subtree

State is neither needed nor changed: our own cosignature on the reference checkpoint is the memory.
"""

from __future__ import annotations

from witness.core.book import LogBook
from witness.core.cosigner import Cosigner
from witness.core.refusals import DisabledLog, MalformedRequest, SubtreesUnsupported, UnknownOrigin
from witness.core.verifier import judge_subtree_form, judge_subtree_reference
from witness.tlog.submission import MalformedSubmission, SignSubtree, parse_sign_subtree


def sign_subtree(body: bytes, book: LogBook, cosigner: Cosigner) -> bytes:
    """The cosignature lines for a sign-subtree body.

    Raises:
        CoreError: a `Refusal` or `Unavailable` that says why not.
    """
    return cosign_subtree(judge_subtree(body, book, cosigner), cosigner)


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
