"""YAML read into frozen dataclasses, strictly: every fault names the key's path and the line.

A dataclass's fields are the keys that may stand in a mapping. A field is made by one of `text`, `whole`,
`seconds`, `switch`, `words`, `section` or `sections`, which say what its value must be. Nothing is
converted: a number where text belongs is a fault, and so is a key that nobody knows or that stands twice.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import yaml

_TAG: Final = "tag:yaml.org,2002:"
_READ: Final = "read"
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SECTION: Final = "section"
_T = TypeVar("_T")

MAX_DEPTH: Final = 32
"""Mappings and lists within each other, at most."""


class YamlFault(Exception):
    """The text is not what it must be.

    Attributes:
        line: counted from 1; 0 where the fault has no place.
        path: the key, with dots between the mappings it stands in; empty for the whole text.
        reason: what is wrong, one plain line.
    """

    def __init__(self, line: int, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.line = line
        self.path = path
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A node of the YAML text, and the path of the keys that lead to it."""

    node: yaml.Node
    path: str

    def fault(self, reason: str) -> YamlFault:
        """A fault of this place."""
        return YamlFault(self.node.start_mark.line + 1, self.path, reason)

    def at(self, key: str) -> str:
        """The path of a key of this mapping."""
        return f"{self.path}.{key}" if self.path else key


Reader = Callable[[Place], Any]


def compose(data: bytes) -> Place:
    """The text's root node.

    Raises:
        YamlFault: it is not YAML, or is empty.
    """
    # libyaml reads a list of 44,000 logs in seconds; the loader in Python takes a minute.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(data, loader)
        node = yaml.compose(data, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlFault(line, "", f"not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise YamlFault(0, "", f"not YAML: {' '.join(str(error).split())}") from error
    if node is None:
        raise YamlFault(1, "", "empty")
    return Place(node, "")


def _check_depth(data: bytes, loader: type[yaml.SafeLoader]) -> None:
    """Refuses deep nesting by the events, which take no stack: libyaml's composer would overflow it."""
    depth = 0
    for event in yaml.parse(data, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise YamlFault(line, "", "nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def entries(place: Place) -> dict[str, Place]:
    """The values of a mapping by their keys.

    Raises:
        YamlFault: it is no mapping, a key is no text, or a key stands twice.
    """
    if not isinstance(place.node, yaml.MappingNode):
        raise place.fault("must be a mapping of keys to values")
    found: dict[str, Place] = {}
    for key_node, value_node in place.node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{_TAG}str":
            raise Place(key_node, place.path).fault("a key must be plain text")
        key = key_node.value
        if key in found:
            raise Place(key_node, place.at(key)).fault("stands twice")
        found[key] = Place(value_node, place.at(key))
    return found


def items(place: Place) -> Iterator[Place]:
    """The places of a list.

    Raises:
        YamlFault: it is no list.
    """
    if not isinstance(place.node, yaml.SequenceNode):
        raise place.fault("must be a list")
    for number, node in enumerate(place.node.value):
        yield Place(node, f"{place.path}[{number}]")


def read(cls: type[_T], place: Place) -> _T:
    """A mapping as an instance of a dataclass whose fields this module's functions made.

    Raises:
        YamlFault: anything in it is not as its field says, is unknown, or is missing.
    """
    found = entries(place)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in found.items():
        if key not in fields:
            raise value.fault(f"unknown key; known here: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in found:
            values[name] = _value(field, found[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise YamlFault(place.node.start_mark.line + 1, place.at(name), "is missing")
    return cls(**values)


def known_keys(cls: type[Any], path: str = "") -> Iterator[str]:
    """The paths of all keys that `read` takes; the mappings of a list stand under `[]`."""
    for field in dataclasses.fields(cls):
        below = f"{path}.{field.name}" if path else field.name
        yield below
        if _SECTION in field.metadata:
            inner, many = field.metadata[_SECTION]
            yield from known_keys(inner, f"{below}[]" if many else below)


def _value(field: dataclasses.Field[Any], place: Place) -> Any:
    if _tag(place) == "null":
        if field.default is None:
            return None
        raise place.fault("has no value")
    return field.metadata[_READ](place)


def _tag(place: Place) -> str:
    return place.node.tag.removeprefix(_TAG) if isinstance(place.node, yaml.ScalarNode) else ""


# --- What a field's value may be ---

REQUIRED: Final = dataclasses.MISSING
"""As a default: the key must be there."""


def text(
    default: Any = REQUIRED, *, check: Callable[[str], str | None] | None = None, one_of: tuple[str, ...] = ()
) -> Any:
    """Text; `check` returns what is wrong with it, or None."""

    def of(place: Place) -> str:
        if _tag(place) != "str":
            raise place.fault(f"must be text{_shown(place)}; quotes make text of anything")
        value: str = place.node.value
        if not is_unicode(value):
            raise place.fault("must be text that UTF-8 can hold")
        if one_of and value not in one_of:
            raise place.fault(f"must be one of {', '.join(one_of)}{_shown(place)}")
        wrong = check(value) if check else None
        if wrong:
            raise place.fault(wrong if repr(value) in wrong else f"{wrong}{_shown(place)}")
        return value

    return _field(default, of)


def day(default: Any = REQUIRED) -> Any:
    """A day as `2026-11-23`, with quotes or without: YAML takes it for a time of its own."""

    def of(place: Place) -> str:
        value = place.node.value
        if _tag(place) not in {"str", "timestamp"} or not _DAY.fullmatch(value):
            raise place.fault(f"must be a day, year-month-day{_shown(place)}")
        try:
            dt.date.fromisoformat(value)
        except ValueError:
            raise place.fault(f"must be a day that there is{_shown(place)}") from None
        return str(value)

    return _field(default, of)


def choice(default: str, *, one_of: tuple[str, ...]) -> Any:
    """One of some words, by its letters: `off` too, which YAML takes for a switch."""

    def of(place: Place) -> str:
        value: str = place.node.value
        if _tag(place) not in {"str", "bool"} or value not in one_of:
            raise place.fault(f"must be one of {', '.join(one_of)}{_shown(place)}")
        return value

    return _field(default, of)


def whole(default: Any = REQUIRED, *, least: int, most: int) -> Any:
    """A whole number from `least` to `most`."""
    return _field(default, functools.partial(_number, frozenset({"int"}), least, most, "a whole number"))


def seconds(default: Any = REQUIRED, *, least: float, most: float) -> Any:
    """A number of seconds from `least` to `most`, whole or not."""
    of = functools.partial(_number, frozenset({"int", "float"}), least, most, "a number of seconds")
    return _field(default, lambda place: float(of(place)))


def switch(default: Any = REQUIRED) -> Any:
    """True or false."""

    def of(place: Place) -> bool:
        if _tag(place) != "bool":
            raise place.fault(f"must be true or false{_shown(place)}")
        return bool(yaml.SafeLoader.bool_values[place.node.value.lower()])

    return _field(default, of)


def words(default: Any = REQUIRED, *, one_of: tuple[str, ...] = ()) -> Any:
    """A list of texts, none of them twice; not empty where `one_of` says which there may be."""

    def of(place: Place) -> tuple[str, ...]:
        found: list[str] = []
        for item in items(place):
            word = item.node.value
            if _tag(item) != "str":
                raise item.fault(f"must be text{_shown(item)}")
            if one_of and word not in one_of:
                raise item.fault(f"must be one of {', '.join(one_of)}{_shown(item)}")
            if word in found:
                raise item.fault(f"{word!r} stands twice")
            found.append(word)
        if one_of and not found:
            raise place.fault(f"must name at least one of {', '.join(one_of)}")
        return tuple(found)

    return _field(default, of)


def section(cls: type[Any]) -> Any:
    """A mapping of its own; where it is absent, all its keys have their defaults."""
    metadata = {_READ: functools.partial(read, cls), _SECTION: (cls, False)}
    return dataclasses.field(default_factory=cls, metadata=metadata)


def sections(cls: type[Any]) -> Any:
    """A list of mappings, empty where it is absent."""

    def of(place: Place) -> tuple[Any, ...]:
        return tuple(read(cls, item) for item in items(place))

    return dataclasses.field(default=(), metadata={_READ: of, _SECTION: (cls, True)})


def _field(default: Any, of: Reader) -> Any:
    if default is REQUIRED:
        return dataclasses.field(metadata={_READ: of})
    return dataclasses.field(default=default, metadata={_READ: of})


def _number(tags: frozenset[str], least: float, most: float, what: str, place: Place) -> float:
    wanted = f"must be {what} from {least:g} to {most:g}"
    if _tag(place) not in tags:
        raise place.fault(f"{wanted}{_shown(place)}")
    try:
        # YAML 1.1 reads 010 as eight and 1:30 as ninety: what people mean by those is anybody's guess.
        number = int(place.node.value) if _tag(place) == "int" else float(place.node.value)
    except ValueError as error:
        raise place.fault(f"{wanted}{_shown(place)}") from error
    if str(place.node.value).lstrip("-+")[:1] == "0" and number >= 1:
        raise place.fault(f"{wanted}, without leading zeros{_shown(place)}")
    if not least <= number <= most:  # false for .nan too
        raise place.fault(f"{wanted}{_shown(place)}")
    return number


def is_unicode(value: str) -> bool:
    """Whether UTF-8 can hold the text: escapes, and arguments of a command, make some that it cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


_MOST_SHOWN: Final = 60  # characters of a wrong value that an error repeats


def _shown(place: Place) -> str:
    if not isinstance(place.node, yaml.ScalarNode):
        return ""
    value = place.node.value
    return f", not {value[:_MOST_SHOWN]!r}{'…' if len(value) > _MOST_SHOWN else ''}"
