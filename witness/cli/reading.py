"""What commands that read logs share: the HTTP sessions, and how failures end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from feeders.fetch import HttpFetch, open_session
from feeders.hosts import HostLimits
from feeders.protocol import BadLogData, BadUrl, FeedError
from witness.cli.errors import Failure, TheAnswerIsNo, WrongUsage
from witness.cli.trusting import Asked, user_agent
from witness.reading.families import FAMILIES
from witness.reading.following import NotBegun
from witness.reading.handing import HandOverFailed
from witness.reading.heads import BadHead, Forked
from witness.reading.log import LogReader, NotInLog
from witness.reading.making import NotVerified, NotWitnessed
from witness.reading.place import BadPlace
from witness.reading.post import HttpPost
from witness.reading.sources import Sources

_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class World:
    """The log that is read, and who is asked for cosignatures."""

    reader: LogReader
    sources: Sources


@contextlib.asynccontextmanager
async def world(asked: Asked, what: str, *, submit: bool) -> AsyncIterator[World]:
    """Opens the sessions.

    Args:
        asked: the options.
        what: who asks, for the user agent.
        submit: whether witnesses may be asked to cosign, or only for what they have cosigned.
    """
    async with open_session(_CONNECTIONS) as session:
        fetch = HttpFetch(session, user_agent(what), limits=HostLimits())
        reader = LogReader(asked.url, FAMILIES[asked.kind], fetch, fetch.latest)
        post = HttpPost(session, user_agent(what))
        submission = asked.witnesses if submit else ()
        yield World(reader, Sources(fetch, asked.distributors, asked.witnesses, submission, post))


_NO: Final[dict[type[Exception], tuple[str, str]]] = {
    BadLogData: ("", ""),
    BadHead: ("the log's checkpoint: ", ""),
    Forked: ("THE LOG HAS FORKED: ", ""),
    NotBegun: ("", ""),
    NotInLog: ("", "give --index, or look further back with --search"),
    NotVerified: ("the proof that was made does not verify: ", ""),
    NotWitnessed: ("", "name more sources, or give --wait"),
}
"""What is answered with no (exit code 1): the words before the reason, and the hint."""


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Turns what reading a log raises into the command's failure."""
    try:
        yield
    except tuple(_NO) as error:
        before, hint = next(words for kind, words in _NO.items() if isinstance(error, kind))
        raise TheAnswerIsNo(f"{before}{error}", hint) from error
    except BadUrl as error:
        raise WrongUsage(str(error)) from error
    except (FeedError, HandOverFailed) as error:
        raise Failure(str(error)) from error
    except BadPlace as error:
        raise Failure(error.reason, error.hint) from error
