"""Go's gob encoding (https://pkg.go.dev/encoding/gob), as much of it as configurations on devices need.

One value of a struct type, its fields integers, bytes, strings, Booleans, slices of bytes and, one level
down, structs of the same. The stream describes its types itself, and is believed in nothing: every length
is bounded by the bytes that are left, and nothing recurses but that one level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Value = int | bytes | bool | list[bytes] | dict[str, "Value"]
"""A field's value; a struct's are by name, and zero values are left out, as gob does."""

_MAX_TYPES: Final = 32
_MAX_FIELDS: Final = 32
_MAX_MESSAGES: Final = 64

_BOOL, _INT, _UINT, _BYTES, _STRING = 1, 2, 3, 5, 6
_BASIC: Final = (_BOOL, _INT, _UINT, _BYTES, _STRING)
_SLICE_FIELD, _STRUCT_FIELD = 2, 3  # of the encoding's own struct wireType


class MalformedGob(Exception):
    """The stream is not gob, or holds what is not read here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Slice:
    element: int


@dataclass(frozen=True, slots=True)
class _Struct:
    fields: tuple[tuple[str, int], ...]


_Types = dict[int, _Slice | _Struct]


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise MalformedGob("ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def uint(self) -> int:
        first = self.take(1)[0]
        if first < 0x80:  # noqa: PLR2004 - the encoding's own bound of one-byte numbers
            return first
        count = 0x100 - first
        if count > 8:  # noqa: PLR2004 - bytes of 64 bits
            raise MalformedGob("an integer of more than 64 bits")
        return int.from_bytes(self.take(count), "big")

    def signed(self) -> int:
        value = self.uint()
        return ~(value >> 1) if value & 1 else value >> 1

    def blob(self) -> bytes:
        return self.take(self.uint())

    def text(self) -> str:
        try:
            return self.blob().decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedGob("a name that is not UTF-8") from error

    def next_field(self, field: int) -> int:
        """The number of the struct's next field, from 1, or 0 at its end; `field` is the last one's."""
        delta = self.uint()
        if delta > _MAX_FIELDS:
            raise MalformedGob("more fields than are read here")
        return field + delta if delta else 0


def parse_gob(data: bytes) -> dict[str, Value]:
    """The first value of a stream, which must be a struct; only zeros may follow it.

    Raises:
        MalformedGob: for anything else.
    """
    types: _Types = {}
    reader = _Reader(data)
    for _ in range(_MAX_MESSAGES):
        message = _Reader(reader.blob())
        type_id = message.signed()
        if type_id >= 0:
            value = _struct(message, types, type_id, nested=False)
            if message.at != len(message.data):
                raise MalformedGob("a message longer than its value")
            if data[reader.at :].strip(b"\x00"):
                raise MalformedGob("something follows the value")
            return value
        if len(types) == _MAX_TYPES:
            raise MalformedGob("more types than are read here")
        types[-type_id] = _definition(message)
    raise MalformedGob("more messages than are read here")


def _definition(message: _Reader) -> _Slice | _Struct:
    """A `wireType`: of its fields, the one that is set says what kind of type it is."""
    kind = message.next_field(0)
    if kind == _SLICE_FIELD:
        definition: _Slice | _Struct = _slice_type(message)
    elif kind == _STRUCT_FIELD:
        definition = _struct_type(message)
    else:
        raise MalformedGob("a type that is not read here")
    if message.uint() != 0 or message.at != len(message.data):
        raise MalformedGob("a type definition that goes on")
    return definition


def _common_type(message: _Reader) -> None:
    """`CommonType`: a name and the type's own number, neither of which decides anything."""
    field = message.next_field(0)
    while field:
        if field == 1:
            message.blob()
        elif field == 2:  # noqa: PLR2004
            message.signed()
        else:
            raise MalformedGob("a type definition that is not read here")
        field = message.next_field(field)


def _slice_type(message: _Reader) -> _Slice:
    element = 0
    field = message.next_field(0)
    while field:
        if field == 1:
            _common_type(message)
        elif field == 2:  # noqa: PLR2004
            element = message.signed()
        else:
            raise MalformedGob("a type definition that is not read here")
        field = message.next_field(field)
    return _Slice(element)


def _struct_type(message: _Reader) -> _Struct:
    fields: list[tuple[str, int]] = []
    field = message.next_field(0)
    while field:
        if field == 1:
            _common_type(message)
        elif field == 2:  # noqa: PLR2004
            count = message.uint()
            if count > _MAX_FIELDS:
                raise MalformedGob("more fields than are read here")
            fields = [_field_type(message) for _ in range(count)]
        else:
            raise MalformedGob("a type definition that is not read here")
        field = message.next_field(field)
    if len({name for name, _ in fields}) != len(fields):
        raise MalformedGob("a field's name stands twice")
    return _Struct(tuple(fields))


def _field_type(message: _Reader) -> tuple[str, int]:
    name, type_id = "", 0
    field = message.next_field(0)
    while field:
        if field == 1:
            name = message.text()
        elif field == 2:  # noqa: PLR2004
            type_id = message.signed()
        else:
            raise MalformedGob("a type definition that is not read here")
        field = message.next_field(field)
    return name, type_id


def _struct(message: _Reader, types: _Types, type_id: int, *, nested: bool) -> dict[str, Value]:
    definition = types.get(type_id)
    if not isinstance(definition, _Struct):
        raise MalformedGob("not a struct that the stream has described")
    values: dict[str, Value] = {}
    field = message.next_field(0)
    while field:
        if field > len(definition.fields):
            raise MalformedGob("a field that its type has not")
        name, field_type = definition.fields[field - 1]
        if field_type in _BASIC:
            values[name] = _basic(message, field_type)
        elif isinstance(types.get(field_type), _Slice):
            values[name] = _byte_slices(message, types, field_type)
        elif nested:
            raise MalformedGob("structs within structs within structs")
        else:
            values[name] = _struct(message, types, field_type, nested=True)
        field = message.next_field(field)
    return values


def _basic(message: _Reader, type_id: int) -> Value:
    if type_id == _INT:
        return message.signed()
    if type_id in (_BYTES, _STRING):
        return message.blob()
    value = message.uint()
    if type_id == _BOOL and value not in (0, 1):
        raise MalformedGob("a Boolean that is neither")
    return bool(value) if type_id == _BOOL else value


def _byte_slices(message: _Reader, types: _Types, type_id: int) -> list[bytes]:
    definition = types.get(type_id)
    if not isinstance(definition, _Slice) or definition.element != _BYTES:
        raise MalformedGob("a slice of what is not read here")
    count = message.uint()
    if count > len(message.data) - message.at:  # each takes a byte at least
        raise MalformedGob("ends too early")
    return [message.blob() for _ in range(count)]
