"""The pages for people, as functions from values to HTML: no script, no resource from anywhere.

Everything that a log, an operator or the core says is escaped, and what does not print is shown as its escape
sequence, so that no origin can dress itself up as another.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from witness.core.wire import CoreStatus, LogInfo
    from witness.front.settings import About
    from witness.front.view import Logs

STYLE = """
:root { color-scheme: light dark; --ink: #1a1c1e; --paper: #fcfcfa; --line: #d8d8d2; --dim: #62666a;
  --good: #1b6e3c; --bad: #a3261b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e0; --paper: #17191b; --line: #3a3d40;
  --dim: #9a9ea2; --good: #6cc48c; --bad: #f08b80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
code { font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
code.vkey { display: block; user-select: all; border: 1px solid var(--line); border-radius: 4px;
  padding: .4rem .6rem; margin: .3rem 0; }
.good { color: var(--good); } .bad { color: var(--bad); } .dim { color: var(--dim); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.origin { overflow-wrap: anywhere; min-width: 12rem; } dt { color: var(--dim); margin-top: .6rem; }
dd { margin: 0; overflow-wrap: anywhere; } ul { padding-left: 1.2rem; margin: .3rem 0; } a { color: inherit; }
"""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def security_headers() -> tuple[tuple[str, str], ...]:
    """Headers of a page: nothing runs, nothing is fetched, nobody frames it."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    )


def front_page(
    *,
    name: str,
    status: CoreStatus | None,
    problem: str | None,
    logs: Logs | None,
    feeders: Mapping[str, str],
    rows: int,
    now: float,
    operator_links: bool,
) -> str:
    """`GET /`: what this witness is, whether it is well, and the logs it has cosigned lately.

    Args:
        name: the witness's name.
        status: how the core is, or last was; None when it never answered.
        problem: why the core does not answer, or None when it does.
        logs: the configured logs, or None when they are not known.
        feeders: a word on each log's feeder, by origin.
        rows: logs in the table, at most; those cosigned last are shown.
        now: POSIX seconds.
        operator_links: whether the operator's endpoints are served beside this page.
    """
    parts = [f"<h1>{_text(name)}</h1>", '<p class="dim">A transparency-log witness.</p>']
    parts.append(_health(status, problem))
    parts.append("<h2>Verifier keys</h2>")
    parts.append(_vkeys(status))
    parts.append("<h2>Logs</h2>")
    parts.append(_logs(status, logs, feeders, rows, now))
    parts.append("<h2>Endpoints</h2>")
    parts.append(_endpoints(operator_links=operator_links))
    return _document(name, parts)


def about_page(*, name: str, status: CoreStatus | None, about: About) -> str:
    """`GET /about`: what the witness network asks a witness to say of itself, as far as the operator has.

    Args:
        name: the witness's name.
        status: how the core is, or last was; None when it never answered.
        about: the operator's words.
    """
    submission = f"{about.submission_url}/add-checkpoint" if about.submission_url else ""
    monitoring = about.monitoring_url or about.submission_url
    facts = (
        ("Operator", about.operator),
        ("Contact", about.contact),
        ("add-checkpoint URL", submission),
        ("Monitoring", f"{monitoring}/<origin hash>/checkpoint" if monitoring else ""),
        ("Lists of logs", "\n".join(about.lists)),
        ("Lists are read", about.cadence),
        ("Software", f"tlog-witness {status.version}" if status is not None else ""),
        *about.more,
    )
    parts = [f"<h1>About {_text(name)}</h1>", '<p><a href="./">Its state now</a></p>']
    parts.append("<h2>Verifier keys</h2>")
    parts.append(_vkeys(status))
    parts.append("<h2>Facts</h2><dl>")
    for title, value in facts:
        if value:
            lines = "<br>".join(_text(line) for line in value.splitlines())
            parts.append(f"<dt>{_text(title)}</dt><dd>{lines}</dd>")
    parts.append("</dl>")
    return _document(f"About {name}", parts)


def _health(status: CoreStatus | None, problem: str | None) -> str:
    if problem is not None:
        return f'<p class="bad">Not cosigning: {_text(problem)}</p>'
    if status is None:
        return '<p class="bad">Not cosigning: the core has not answered yet</p>'
    if not status.ready:
        reasons = status.reasons or ("the core gives no reason",)
        return f'<p class="bad">Not cosigning:</p>{_list(reasons)}'
    well = '<p class="good">Cosigning.</p>'
    return well + (f"<p>Warnings:</p>{_list(status.warnings)}" if status.warnings else "")


def _vkeys(status: CoreStatus | None) -> str:
    if status is None:
        return '<p class="dim">Not known while the core does not answer.</p>'
    return "".join(f'<code class="vkey">{_text(key.vkey)}</code>' for key in status.keys)


def _logs(
    status: CoreStatus | None, logs: Logs | None, feeders: Mapping[str, str], rows: int, now: float
) -> str:
    if logs is None:
        if status is None:
            return '<p class="dim">Not known while the core does not answer.</p>'
        return f"<p>{status.logs} configured, {status.heads} cosigned so far.</p>"
    cosigned = f", {status.heads} cosigned so far" if status is not None else ""
    parts = [f"<p>{logs.total} configured{cosigned}.</p>"]
    if not logs.listed:
        parts.append('<p class="dim">Too many to list here; <code>witness logs list</code> has them all.</p>')
        return "".join(parts)
    latest = sorted(logs.logs, key=lambda log: (-log.timestamp, log.origin))[:rows]
    if len(latest) < logs.total:
        parts.append(f'<p class="dim">The {len(latest)} cosigned last:</p>')
    if latest:
        parts.append(
            '<div class="scroll"><table><thead><tr><th>Origin</th><th class="n">Size</th>'
            '<th class="n">Cosigned</th><th>Feeder</th></tr></thead><tbody>'
        )
        parts.extend(_row(log, feeders.get(log.origin, ""), now) for log in latest)
        parts.append("</tbody></table></div>")
    return "".join(parts)


def _row(log: LogInfo, feeder: str, now: float) -> str:
    size, age = (str(log.size), _age(now - log.timestamp)) if log.size >= 0 else ("–", "never")
    note = "disabled" if log.disabled else feeder or (log.feeder if log.feeder != "none" else "")
    return (
        f'<tr><td class="origin">{_text(log.origin)}</td><td class="n">{size}</td>'
        f'<td class="n">{age}</td><td>{_text(note)}</td></tr>'
    )


def _endpoints(*, operator_links: bool) -> str:
    operators = (
        '<li><a href="readyz">readyz</a>, <a href="metrics">metrics</a>, '
        '<a href="status.json">status.json</a></li>'
    )
    return (
        "<ul><li><code>POST add-checkpoint</code>, <code>POST sign-subtree</code> "
        '(<a href="https://c2sp.org/tlog-witness">tlog-witness</a>)</li>'
        "<li><code>GET &lt;origin hash&gt;/checkpoint</code> for monitors</li>"
        '<li><a href="about">about</a>, <a href="healthz">healthz</a></li>'
        f"{operators if operator_links else ''}</ul>"
    )


def _list(lines: tuple[str, ...]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _age(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(0, int(seconds))} s ago"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min ago"
    if seconds < _DAY:
        return f"{int(seconds // _HOUR)} h ago"
    return f"{int(seconds // _DAY)} d ago"


def _text(value: str) -> str:
    """Text for HTML. Characters that do not print (controls, direction marks) show as escape sequences."""
    visible = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in value
    )
    return f"<bdi>{html.escape(visible)}</bdi>"


def _document(title: str, parts: list[str]) -> str:
    visible = "".join(char if char.isprintable() else " " for char in title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(visible)}</title><style>{STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )
