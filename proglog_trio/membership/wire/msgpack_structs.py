"""Structs on the wire: attrs classes and the maps, keyed by the protocol's field names, that stand for them.

The rules are those of the protocol's msgpack in its old form, in which text and byte strings are both `raw`: unknown
keys are ignored, missing keys and nil are the zero value (an error only where the protocol has no use for the zero
value, such as an address of no bytes), the last of two equal keys counts, and keys are written in alphabetical order.
Integers have to be in their range, both ways.

Text is decoded as UTF-8 with `surrogateescape`: names, tags and the like are bytes to other members, any bytes, and
have to come out again as they went in; one badly named member must not make the states of all others unreadable. Who
shows such text, or gives it to what takes UTF-8 only, has to replace the surrogates.

What is wrong with an object that came is a DecodingError, with one of our own that cannot be sent a ValueError.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeVar

import attrs
import msgpack
from attrs import AttrsInstance, frozen

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_extent import FEW_ITEMS, Extent, unpack

_WIRE = "wire"
Struct = TypeVar("Struct", bound=AttrsInstance)


def _shown(value: object) -> str:
    """Return something short for whatever was sent, which may be large, or nested deeper than repr goes."""
    if isinstance(value, bytes | str):
        return repr(value) if len(value) <= 40 else f"{value[:40]!r}…"
    if isinstance(value, int | float | None):
        return repr(value)
    size = f" of {len(value)}" if isinstance(value, list | dict) else ""
    return f"a {type(value).__name__}{size}"


class Kind(ABC):
    """What a field holds: how it is read and written.

    Attributes:
        required: whether the zero value is none that the field can have.
    """

    required: bool = False

    @property
    @abstractmethod
    def zero(self) -> Any:  # noqa: ANN401 - each kind has its own type
        """The value when the key is missing or nil."""

    @abstractmethod
    def decode(self, value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """Return the Python value of what msgpack gave, which is not None, or raise DecodingError."""

    @abstractmethod
    def encode(self, value: Any) -> Any:  # noqa: ANN401 - each kind has its own type
        """Return what msgpack is to write, or raise ValueError."""


class Unsigned(Kind):
    """An integer from 0 to below 2 to the power of bits."""

    zero = 0

    def __init__(self, bits: int) -> None:
        self._limit = 1 << bits

    def decode(self, value: object) -> int:
        """Return value if it is an integer in the range."""
        if type(value) is not int:
            raise DecodingError(f"is {_shown(value)}, no integer")
        if not 0 <= value < self._limit:
            raise DecodingError(f"is {value}, not from 0 to {self._limit - 1}")
        return value

    def encode(self, value: int) -> int:
        """Return value if it is in the range."""
        if not 0 <= value < self._limit:
            raise ValueError(f"{value} is not from 0 to {self._limit - 1}")
        return value


class Enumeration(Kind):
    """One of the numbers of an enumeration, which has a 0."""

    def __init__(self, members: type[IntEnum]) -> None:
        self._members = members
        self._number = Unsigned(32)

    @property
    def zero(self) -> IntEnum:
        """The member that has the number 0."""
        return self._members(0)

    def decode(self, value: object) -> IntEnum:
        """Return the member that value is the number of."""
        number = self._number.decode(value)
        try:
            return self._members(number)
        except ValueError:
            raise DecodingError(f"is {number}, none of {', '.join(map(repr, self._members))}") from None

    def encode(self, value: IntEnum) -> int:
        """Return the number of a member."""
        return int(self._members(value))


class Boolean(Kind):
    """True or false."""

    zero = False

    def decode(self, value: object) -> bool:
        """Return value if it is true or false."""
        if value is not True and value is not False:
            raise DecodingError(f"is {_shown(value)}, neither true nor false")
        return value

    def encode(self, value: bool) -> bool:
        """Return value."""
        return value


class Floating(Kind):
    """A number; neither infinite nor NaN."""

    zero = 0.0

    def decode(self, value: object) -> float:
        """Return value as a float if it is a finite number."""
        if type(value) not in (float, int) or not math.isfinite(value):  # type: ignore[arg-type]  # it is one of the two
            raise DecodingError(f"is {_shown(value)}, no finite number")
        return float(value)  # type: ignore[arg-type]  # it is one of the two

    def encode(self, value: float) -> float:
        """Return value if it is finite."""
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        return float(value)


class Raw(Kind):
    """Bytes: at most max_bytes, or exactly one of some lengths."""

    zero = b""

    def __init__(self, max_bytes: int | None = None, lengths: tuple[int, ...] = ()) -> None:
        self._max_bytes = max_bytes
        self._lengths = lengths
        self.required = bool(lengths) and 0 not in lengths

    def decode(self, value: object) -> bytes:
        """Return value if it is bytes, and not too many."""
        if type(value) is not bytes:
            raise DecodingError(f"is {_shown(value)}, no bytes")
        wrong = self._wrong_length(value)
        if wrong:
            raise DecodingError(wrong)
        return value

    def encode(self, value: bytes) -> bytes:
        """Return value if it has a length that it may have."""
        wrong = self._wrong_length(value)
        if wrong:
            raise ValueError(wrong)
        return value

    def _wrong_length(self, value: bytes) -> str | None:
        if self._max_bytes is not None and len(value) > self._max_bytes:
            return f"has {len(value)} bytes, more than {self._max_bytes}"
        if self._lengths and len(value) not in self._lengths:
            return f"has {len(value)} bytes, not {' or '.join(map(str, self._lengths))}"
        return None


class Text(Kind):
    """Text of at most max_bytes in UTF-8; what is not UTF-8 is kept as surrogates."""

    zero = ""

    def __init__(self, max_bytes: int | None = None) -> None:
        self._raw = Raw(max_bytes)

    def decode(self, value: object) -> str:
        """Return the text of bytes, if they are not too many."""
        return self._raw.decode(value).decode("utf-8", "surrogateescape")

    def encode(self, value: str) -> bytes:
        """Return the bytes of text."""
        return self._raw.encode(value.encode("utf-8", "surrogateescape"))


class Sequence(Kind):
    """A list of one kind, as a tuple.

    With holes, nil may stand in place of an element.
    """

    zero = ()

    def __init__(self, kind: Kind, *, holes: bool = False) -> None:
        self._kind = kind
        self._holes = holes

    def decode(self, value: object) -> tuple[object, ...]:
        """Return a tuple of the elements of a list."""
        if type(value) is not list:
            raise DecodingError(f"is {_shown(value)}, no list")
        elements = []
        for index, element in enumerate(value):
            try:
                if element is None:
                    elements.append(None if self._holes else _zero(self._kind))
                else:
                    elements.append(self._kind.decode(element))
            except DecodingError as error:
                raise error.within(f"element {index}") from None
        return tuple(elements)

    def encode(self, value: tuple[object, ...]) -> list[object]:
        """Return a list of the elements."""
        return [None if element is None else self._kind.encode(element) for element in value]


class Table(Kind):
    """A map from text to one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._text = Text()

    @property
    def zero(self) -> dict[str, object]:
        """An empty map, a new one each time."""
        return {}

    def decode(self, value: object) -> dict[str, object]:
        """Return a map from text."""
        if type(value) is not dict:
            raise DecodingError(f"is {_shown(value)}, no map")
        entries = {}
        for key, element in value.items():
            name = self._text.decode(key)
            try:
                entries[name] = _zero(self._kind) if element is None else self._kind.decode(element)
            except DecodingError as error:
                raise error.within(_shown(name)) from None
        return entries

    def encode(self, value: Mapping[str, object]) -> dict[bytes, object]:
        """Return a map from bytes, in the order of its keys."""
        return {self._text.encode(key): self._kind.encode(value[key]) for key in sorted(value)}


class Nested(Kind):
    """A struct in a struct."""

    def __init__(self, struct: type[AttrsInstance], *, required: bool = False) -> None:
        self._struct = struct
        self.required = required

    @property
    def zero(self) -> AttrsInstance:
        """The struct with zero values only."""
        return self._struct()

    def decode(self, value: object) -> object:
        """Return the struct that a map stands for."""
        return from_map(self._struct, value)

    def encode(self, value: AttrsInstance) -> dict[bytes, object]:
        """Return the map that stands for a struct."""
        return to_map(value)


def _zero(kind: Kind) -> object:
    if kind.required:
        raise DecodingError("is missing")
    return kind.zero


def wire(name: str, kind: Kind, *, omit_zero: bool = False) -> Any:  # noqa: ANN401 - as attrs.field
    """Declare an attribute of a struct.

    Args:
        name: the protocol's name of the field.
        kind: what it holds.
        omit_zero: leave the key out when the value is the zero value.
    """
    return attrs.field(factory=lambda: kind.zero, metadata={_WIRE: (name, kind, omit_zero)})


def wire_name(attribute: attrs.Attribute[Any]) -> str:
    """Return the protocol's name of an attribute that was declared with wire."""
    name: str = attribute.metadata[_WIRE][0]
    return name


@frozen
class _Field:
    name: str
    key: bytes
    attribute: str
    kind: Kind
    omit_zero: bool


@functools.cache
def _fields(struct: type[AttrsInstance]) -> tuple[_Field, ...]:
    """Return the fields of a class, in the order of its attributes."""
    fields = []
    for attribute in attrs.fields(struct):
        name, kind, omit_zero = attribute.metadata[_WIRE]
        fields.append(_Field(name, name.encode(), attribute.name, kind, omit_zero))
    return tuple(fields)


@functools.cache
def _sorted_fields(struct: type[AttrsInstance]) -> tuple[_Field, ...]:
    return tuple(sorted(_fields(struct), key=lambda field: field.key))


def from_map(struct: type[Struct], value: object) -> Struct:
    """Return the struct that an unpacked map stands for.

    Raises:
        DecodingError: it is no map, or the value of a field is none that it can have.
    """
    if type(value) is not dict:
        raise DecodingError(f"is {_shown(value)}, no map")
    values = []
    for field in _fields(struct):
        element = value.get(field.key)
        try:
            values.append(_zero(field.kind) if element is None else field.kind.decode(element))
        except DecodingError as error:
            raise error.within(field.name) from None
    return struct(*values)


def to_map(struct: AttrsInstance) -> dict[bytes, object]:
    """Return the map that stands for a struct.

    Raises:
        ValueError: the value of a field is out of its range.
    """
    values: dict[bytes, object] = {}
    for field in _sorted_fields(type(struct)):
        value = getattr(struct, field.attribute)
        if field.omit_zero and value == field.kind.zero:
            continue
        try:
            values[field.key] = field.kind.encode(value)
        except ValueError as error:
            raise ValueError(f"{type(struct).__name__}.{field.attribute}: {error}") from None
    return values


def decode_object(data: bytes, start: int = 0, max_items: int = FEW_ITEMS) -> tuple[Any, int]:
    """Return the object that begins at data[start], and where it ends.

    Args:
        data: msgpack.
        start: where the object begins.
        max_items: the most elements that all lists and maps in it may have.

    Raises:
        DecodingError: it is cut off, too large or no msgpack.
    """
    extent = Extent(len(data) - start, max_items)
    if not extent.advance(data, start):
        raise DecodingError(f"is cut off after {len(data) - start} bytes")
    return unpack(data, start, extent.length), start + extent.length


def decode_struct(struct: type[Struct], data: bytes, start: int = 0, max_items: int = FEW_ITEMS) -> tuple[Struct, int]:
    """Return the struct that begins at data[start], and where it ends. The arguments are those of decode_object.

    Raises:
        DecodingError: as decode_object and from_map.
    """
    value, end = decode_object(data, start, max_items)
    return from_map(struct, value), end


def encode_object(value: object) -> bytes:
    """Return the msgpack, in its old form, of bytes, numbers, lists, maps and None."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def encode_struct(struct: AttrsInstance) -> bytes:
    """Return the msgpack of a struct.

    Raises:
        ValueError: as to_map.
    """
    return encode_object(to_map(struct))
