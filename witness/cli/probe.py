"""`witness probe`: an end-to-end proof that this witness works, each hop named.

It is a client like any other: what it proves holds for every log. Its own log, `<witness name>/probe`, grows
by one leaf a probe; so each probe needs a fresh signature, and takes state, disk and keys with it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

import click

from witness.cli.config import wrong_url
from witness.cli.errors import NO, WORLD, WrongUsage, say_error
from witness.cli.generations import signing
from witness.cli.logs import json_option
from witness.cli.probe_log import ProbeLog, open_probe_log
from witness.cli.running import core_checkpoint, core_status, front_status
from witness.cli.state import existing, pass_layout, read_config
from witness.core.keystore.softkey import algorithm_of
from witness.core.layout import StateLayout
from witness.core.refusals import CoreError
from witness.core.store.logs import LogBook, LogSettings
from witness.tlog.checkpoint import MalformedCheckpoint, origin_hash, parse_checkpoint
from witness.tlog.note import MalformedNote, Note, Signature, VerifierKey, parse_note, parse_signature_lines
from witness.tlog.signature import (
    InvalidNoteSignature,
    cosignature_timestamp,
    verify_note,
)

TIMEOUT: Final = 10.0
"""Seconds for one HTTP answer."""
TAKE_UP: Final = 5.0
"""Seconds that a running daemon has to take up the probe's log when it is new."""
CLOCK: Final = 300
"""Seconds by which a fresh cosignature's timestamp may differ from our clock."""
TRIES: Final = 4
"""Of learning the size and growing from it: another probe may be faster."""
_MAX_ANSWER: Final = 128 * 1024
_SIZE_TYPE: Final = "text/x.tlog.size"


class HopFailed(Exception):
    """A hop did not do its part.

    Attributes:
        reason: what it did instead, one line.
        hint: what to do about it, or empty.
        code: the exit code: `NO` where the witness answers wrongly, `WORLD` where nobody answers.
    """

    def __init__(self, reason: str, hint: str = "", *, code: int = NO) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop of a probe; `detail` says what was seen, or what went wrong."""

    name: str
    ok: bool
    milliseconds: float
    detail: str


@dataclass(slots=True)
class Journey:
    """The hops so far, told as they happen."""

    quiet: bool
    hops: list[Hop] = field(default_factory=list)

    @contextmanager
    def hop(self, name: str) -> Iterator[list[str]]:
        """Times one hop. The block appends what it saw; `HopFailed` ends the journey."""
        begun = time.perf_counter()
        seen: list[str] = []
        try:
            yield seen
        except HopFailed as failed:
            self._tell(name, begun, failed.reason, ok=False)
            raise
        self._tell(name, begun, "; ".join(seen), ok=True)

    def _tell(self, name: str, begun: float, detail: str, *, ok: bool) -> None:
        hop = Hop(name, ok, round((time.perf_counter() - begun) * 1000, 1), detail)
        self.hops.append(hop)
        if not self.quiet:
            click.echo(f"{'✓' if ok else '✗'} {name:<28} {hop.milliseconds:>8.1f} ms  {detail}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its status, its Content-Type and its body."""

    status: int
    content_type: str
    body: bytes

    def line(self) -> str:
        """The first line of the body, for people."""
        lines = self.body.decode("utf-8", "replace").splitlines()
        return lines[0][:200] if lines else ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is probed: the state folder, the probe's log, the witness's vkeys, and where it is asked."""

    layout: StateLayout
    log: ProbeLog
    vkeys: tuple[VerifierKey, ...]
    url: str | None
    path_prefix: str


@click.command()
@click.option(
    "--url", help="The submission prefix to probe, such as a public address; else the daemon's own."
)
@json_option
@pass_layout
@click.pass_context
def probe(context: click.Context, layout: StateLayout, url: str | None, *, as_json: bool) -> None:
    """Prove end to end that this witness works, hop by hop.

    Exit code 0: it does; 1: it answers, and wrongly; 3: it does not answer.
    """
    if url is not None and (wrong := wrong_url(url)):
        raise WrongUsage(f"--url {url!r}: {wrong}")
    config = read_config(existing(layout))
    public = signing(layout)
    log = open_probe_log(layout.keys / "probe.json", f"{public.name}/probe")
    journey = Journey(quiet=as_json)
    failed: HopFailed | None = None
    try:
        _travel(journey, Subject(layout, log, public.vkeys, url, config.path_prefix))
    except HopFailed as error:
        failed = error
    if as_json:
        hops = [
            {"hop": hop.name, "ok": hop.ok, "ms": hop.milliseconds, "detail": hop.detail}
            for hop in journey.hops
        ]
        click.echo(
            json.dumps(
                {"ok": failed is None, "origin": log.origin, "hops": hops}, ensure_ascii=False, indent=1
            )
        )
    if failed is not None:
        say_error(f"{journey.hops[-1].name}: {failed.reason}", failed.hint)
        context.exit(failed.code)


def _travel(journey: Journey, subject: Subject) -> None:
    layout, log, vkeys = subject.layout, subject.log, subject.vkeys
    with journey.hop("probe log configured") as seen:
        seen.append(_configure(layout, log))
    with journey.hop("core answers") as seen:
        core = core_status(layout)
        if core is None:
            raise HopFailed(
                "no core answers at the state folder's socket", "witness run starts it", code=WORLD
            )
        if not core.ready:
            raise HopFailed(f"the core is not ready: {'; '.join(core.reasons)}")
        seen.append(f"process {core.pid}")
    with journey.hop("front answers") as seen:
        prefix = _front(subject)
        seen.append(prefix.geturl())
    with journey.hop("size learnt") as seen:
        known = _known_size(prefix, log)
        seen.append(f"the witness has size {known}")
    with journey.hop("checkpoint cosigned") as seen:
        size, cosignatures = _grow(prefix, log, known)
        seen.append(f"size {size}")
    with journey.hop("cosignatures verify") as seen:
        seen.extend(_verify(log.checkpoint(size).text(), _lines(cosignatures), vkeys))
    with journey.hop("core shows the size") as seen:
        seen.append(f"size {_core_size(layout, log, size)}")
    with journey.hop("monitors get the checkpoint") as seen:
        answer = _request(prefix, "GET", f"/{origin_hash(log.origin).hex()}/checkpoint")
        seen.append(f"size {_monitored(answer, log, vkeys, size)}")


def _front(subject: Subject) -> SplitResult:
    """The prefix of the endpoints, once something answers there."""
    url = subject.url
    prefix = urlsplit(url.rstrip("/") if url else _own_url(subject.layout) + subject.path_prefix)
    answer = _request(prefix, "GET", "/healthz")
    # A proxy or a bastion before a public address need not pass /healthz on; that something answers will do.
    if url is None and answer.status != http.client.OK:
        raise HopFailed(f"GET /healthz: {answer.status} {answer.line()}")
    return prefix


def _configure(layout: StateLayout, log: ProbeLog) -> str:
    """Makes the probe's log known to the witness, once."""
    settings = LogSettings(contact="witness probe")
    with LogBook(layout.database) as book:
        with book.transaction():
            added = book.add(log.origin, (log.key.vkey,), settings, source="probe", now=int(time.time()))
        record, _ = book.get(log.origin)
    if record.disabled:
        raise HopFailed(f"the log {log.origin} is disabled", f"witness logs enable {log.origin}")
    return f"added {log.origin}" if added.new else log.origin


def _own_url(layout: StateLayout) -> str:
    """The address of the daemon's first public listener."""
    front = front_status(layout)
    if front is None:
        raise HopFailed("no front answers at the state folder's socket", "witness run starts it", code=WORLD)
    for listening in front["front"]["listening"]:
        parts = urlsplit(listening)
        if parts.scheme == "http":
            # Bound to every interface, it is reached by this machine's own address.
            host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")  # noqa: S104
            return f"http://{host}:{parts.port}" if host else str(listening)
    raise HopFailed("the front has no TCP listener", "name its address with --url", code=WORLD)


def _request(prefix: SplitResult, method: str, path: str, body: bytes | None = None) -> Answer:
    secure = prefix.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(prefix.hostname or "", prefix.port, timeout=TIMEOUT)
    try:
        connection.request(method, prefix.path + path, body=body)
        response = connection.getresponse()
        return Answer(
            response.status, response.headers.get("Content-Type", ""), response.read(_MAX_ANSWER + 1)
        )
    except (OSError, http.client.HTTPException) as error:
        reason = f"{method} {prefix.geturl()}{path}: {error or type(error).__name__}"
        raise HopFailed(reason, "is that the address that witness status shows?", code=WORLD) from error
    finally:
        connection.close()


def _known_size(prefix: SplitResult, log: ProbeLog) -> int:
    """The size that the witness has, learnt as tlog-witness says: from the 409 to a wrong old size.

    A checkpoint of size 1 from size 0 is accepted where there is none yet. A witness that runs takes a log
    that was just added up within a second; until then it is unknown (404).
    """
    until = time.monotonic() + TAKE_UP
    while True:
        answer = _request(prefix, "POST", "/add-checkpoint", log.submission(0, 1))
        if answer.status != http.client.NOT_FOUND or time.monotonic() > until:
            break
        time.sleep(0.1)
    if answer.status == http.client.OK:
        return 1
    return _conflict(answer)


def _conflict(answer: Answer) -> int:
    """The size in a 409."""
    if answer.status != http.client.CONFLICT:
        hint = ""
        if answer.status == http.client.NOT_FOUND:
            hint = "does this address lead to the witness of this state folder?"
        raise HopFailed(f"add-checkpoint: {answer.status} {answer.line()}", hint)
    # SPEC tlog-witness: "The response MUST have a Content-Type of text/x.tlog.size" and "MUST consist of the
    # tree size of the latest cosigned checkpoint in decimal, followed by a newline".
    digits = answer.body.removesuffix(b"\n")
    if answer.content_type != _SIZE_TYPE or answer.body != digits + b"\n" or not digits.isdigit():
        raise HopFailed(f"a 409 of the type {answer.content_type!r} with the body {answer.body[:40]!r}")
    return int(digits)


def _grow(prefix: SplitResult, log: ProbeLog, known: int) -> tuple[int, bytes]:
    """Adds one leaf; the new size and the cosignature lines."""
    for _ in range(TRIES):
        answer = _request(prefix, "POST", "/add-checkpoint", log.submission(known, known + 1))
        if answer.status == http.client.OK:
            return known + 1, answer.body
        known = _conflict(answer)
    raise HopFailed(f"another probe was faster {TRIES} times", "let one probe end before the next")


def _lines(cosignatures: bytes) -> tuple[Signature, ...]:
    """The signature lines that add-checkpoint answered."""
    try:
        return parse_signature_lines(cosignatures)
    except MalformedNote as error:
        raise HopFailed(f"the answer is not signature lines: {error.reason}") from error


def _verify(text: bytes, signatures: tuple[Signature, ...], vkeys: tuple[VerifierKey, ...]) -> list[str]:
    """Checks that every key of the witness has cosigned the text, just now; what was seen."""
    try:
        found = {each.key: each for each in verify_note(Note(text, signatures), vkeys)}
    except InvalidNoteSignature as error:
        raise HopFailed(f"a cosignature does not verify: {error}") from error
    seen = []
    for vkey in vkeys:
        algorithm = algorithm_of(vkey)
        if vkey not in found:
            raise HopFailed(f"there is no cosignature by the {algorithm} key {vkey.name}+{vkey.key_id.hex()}")
        timestamp = cosignature_timestamp(vkey, found[vkey].signature.value)
        if timestamp is None or abs(time.time() - timestamp) > CLOCK:
            raise HopFailed(
                f"the {algorithm} cosignature has the timestamp {timestamp}", "is the clock right?"
            )
        seen.append(algorithm)
    return seen


def _core_size(layout: StateLayout, log: ProbeLog, size: int) -> int:
    try:
        note = core_checkpoint(layout, origin_hash(log.origin))
    except CoreError as error:
        raise HopFailed(f"the core: {error}") from error
    return _grown(note, size)


def _monitored(answer: Answer, log: ProbeLog, vkeys: tuple[VerifierKey, ...], size: int) -> int:
    """Checks what a monitor gets."""
    if answer.status != http.client.OK:
        raise HopFailed(f"GET checkpoint: {answer.status} {answer.line()}")
    shown = _grown(answer.body, size)
    note = parse_note(answer.body)
    if note.text != log.checkpoint(shown).text():
        raise HopFailed("the checkpoint is not the one that was cosigned")
    _verify(note.text, note.signatures, vkeys)
    return shown


def _grown(note: bytes, size: int) -> int:
    """The size of a checkpoint that must not be behind `size`: another probe may have grown it further."""
    try:
        shown = parse_checkpoint(parse_note(note).text).size
    except (MalformedNote, MalformedCheckpoint) as error:
        raise HopFailed(f"this is no checkpoint: {error}") from error
    if shown < size:
        raise HopFailed(f"it shows size {shown} after size {size} was cosigned")
    return shown
