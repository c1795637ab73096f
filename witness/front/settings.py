"""What the front is told: typed settings, to and from JSON.

The front's process gets these and nothing else: no key, no database, no YAML.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from witness.core.wire import MAX_BODY

_LEAST = {
    "body_timeout": 0.01,
    "keep_alive": 0.01,
    "drain_timeout": 0.01,
    "max_in_flight": 1,
    "max_reading": 1,
    "max_origins": 0,
    "page_logs": 0,
}
"""The least each number may be."""


class InvalidSettings(ValueError):
    """A setting that cannot be what is meant; `setting` names it."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port to listen on; `host` None means every interface, port 0 one that is free."""

    host: str | None
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket to listen on."""

    path: str


@dataclass(frozen=True, slots=True)
class About:
    """What the operator says of this witness on its page, all of it public.

    The witness network asks for the vkeys (which the core knows), the submission URL, the lists followed and
    how often (witness-network, participate.md: about page). Empty values are left out.

    Attributes:
        operator: who runs it, an organisation or a person.
        contact: how to reach them.
        submission_url: the submission prefix as logs reach it, by a bastion perhaps; no final slash.
        monitoring_url: the monitoring prefix as monitors reach it; empty when it is the submission prefix.
        lists: log lists that are followed, as URLs or names.
        cadence: how often the lists are read, in words.
        more: further facts as (title, text): hardware, key management, availability, notice periods.
    """

    operator: str = ""
    contact: str = ""
    submission_url: str = ""
    monitoring_url: str = ""
    lists: tuple[str, ...] = ()
    cadence: str = ""
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """How the front serves. Times are seconds, sizes bytes.

    Attributes:
        name: the witness's name, for its pages until the core has told it.
        core_socket: path of the core's Unix socket.
        operator_socket: path of a Unix socket where the operator's endpoints are always served, for the
            command line; None for none.
        listen: where the public endpoints are served: `HOST:PORT`, `[IPv6]:PORT`, `:PORT` (every
            interface) or `unix:PATH`.
        operator_listen: where the operator's endpoints are served; empty: beside the public ones.
        prefix: a path before every endpoint of the listeners (`/witness`), or empty. The operator's own
            listeners and socket have none.
        body_limit: of a request's body.
        body_timeout: for a request's body to arrive, from its headers on.
        keep_alive: for which an idle connection is kept open. Logs' clients count on 60 s and more.
        max_in_flight: requests that may wait for the core at once; one more is answered 429.
        max_reading: requests whose body is still arriving; one more is answered 429.
        drain_timeout: for requests in flight to finish once the front is told to stop.
        max_origins: logs up to which metrics have series, and the page rows, of single logs.
        page_logs: rows of the page's table.
        about: what the operator says of the witness.
    """

    name: str
    core_socket: str
    operator_socket: str | None = None
    listen: tuple[str, ...] = ("127.0.0.1:7380",)
    operator_listen: tuple[str, ...] = ()
    prefix: str = ""
    body_limit: int = MAX_BODY
    body_timeout: float = 10.0
    keep_alive: float = 75.0
    max_in_flight: int = 512
    max_reading: int = 512
    drain_timeout: float = 15.0
    max_origins: int = 2000
    page_logs: int = 200
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        """Refuses what cannot work. Raises InvalidSettings."""
        for setting in ("listen", "operator_listen"):
            for address in getattr(self, setting):
                parse_address(address, setting)
        if not self.listen:
            raise InvalidSettings("listen", "no address to listen on")
        if self.prefix and re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.prefix) is None:
            raise InvalidSettings(
                "prefix", f"{self.prefix!r} is no path like /witness, without a final slash"
            )
        if not 0 < self.body_limit <= MAX_BODY:
            raise InvalidSettings(
                "body_limit", f"must be from 1 to {MAX_BODY} bytes, the most the core takes"
            )
        for setting, least in _LEAST.items():
            if getattr(self, setting) < least:
                raise InvalidSettings(setting, f"must be at least {least:g}")

    def to_json(self) -> str:
        """The settings as one line of JSON, which `from_json` reads."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(data: str) -> FrontSettings:
        """The settings that `to_json` wrote.

        Raises:
            InvalidSettings: it did not write them.
        """
        try:
            fields = json.loads(data)
            about = {name: _tuples(value) for name, value in fields.pop("about").items()}
            values = {name: _tuples(value) for name, value in fields.items()}
            return FrontSettings(**values, about=About(**about))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidSettings):
                raise
            raise InvalidSettings("front settings", str(error)) from error


def parse_address(address: str, setting: str = "listen") -> TcpAddress | UnixAddress:
    """Where to listen, from `HOST:PORT`, `[IPv6]:PORT`, `:PORT`, `*:PORT` or `unix:PATH`.

    Raises:
        InvalidSettings: it is of none of these forms; `setting` is named.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path:
            raise InvalidSettings(setting, "unix: without a path")
        return UnixAddress(path)
    host, colon, port = address.rpartition(":")
    if not colon or re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:  # noqa: PLR2004  # a port
        raise InvalidSettings(setting, f"{address!r} is not HOST:PORT, [IPv6]:PORT or unix:PATH")
    if host in ("", "*"):
        return TcpAddress(None, int(port))
    if host.startswith("[") and host.endswith("]"):
        return TcpAddress(host[1:-1], int(port))
    if ":" in host:
        raise InvalidSettings(setting, f"{address!r}: an IPv6 address stands in brackets, [{host}]:{port}")
    return TcpAddress(host, int(port))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
