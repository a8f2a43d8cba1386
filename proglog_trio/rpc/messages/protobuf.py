"""The generated messages on the wire: read from the bytes of strangers, and written around large fields.

betterproto2 writes messages well, but its parser (0.10) trusts the sender: it takes a message that is cut off for a
whole one, puts a number where a byte string belongs, copies all unknown fields again for each of them, and raises
errors of many kinds. The reader here goes by the field descriptions of the same classes and keeps to the rules of
https://protobuf.dev/programming-guides/encoding: fields that are unknown or of another wire type are passed over, the
last of several values counts, a message that is given twice is merged. Groups, which proto3 does not have, are refused.

A field may be written by itself: two encodings of a message, one after the other, are the encoding of both together.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import betterproto2
from attrs import define, evolve, frozen
from betterproto2 import FieldMetadata

from proglog_trio.steps import Steps, complete

MessageType = TypeVar("MessageType", bound=betterproto2.Message)

# Wire types
_VARINT, _FIXED_64, _LENGTH_DELIMITED, _FIXED_32 = 0, 1, 2, 5
_SIZES = {_FIXED_64: 8, _FIXED_32: 4}
_ABSENT: dict[int, Any] = {_VARINT: 0, _LENGTH_DELIMITED: b"", _FIXED_32: bytes(4), _FIXED_64: bytes(8)}
"""What a map's entry holds where it does not say."""
_32_BITS = 2**32 - 1
_64_BITS = 2**64 - 1
_LARGEST_FIELD_NUMBER = 2**29 - 1
_FIXED_FORMATS = {
    betterproto2.TYPE_FIXED32: "I",
    betterproto2.TYPE_SFIXED32: "i",
    betterproto2.TYPE_FLOAT: "f",
    betterproto2.TYPE_FIXED64: "Q",
    betterproto2.TYPE_SFIXED64: "q",
    betterproto2.TYPE_DOUBLE: "d",
}


class WireError(ValueError):
    """Bytes that are no message, with the reason."""


class TooManyFields(WireError):
    """A message with more fields than a reader will look at."""


# -- writing -----------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Return a number the way protobuf encodes lengths."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def bytes_field_header(number: int, length: int) -> bytes:
    """Return what stands before the content of a field of bytes: put all three together with the rest of the message.

    A large field that betterproto2 writes is copied four times.
    """
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def fixed64_list_field(number: int, values: Sequence[int]) -> bytes:
    """Return a whole field of repeated fixed64: 5000 numbers in 0.1 ms, where betterproto2 needs 2.6."""
    if not values:
        return b""
    return bytes_field_header(number, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_message(message_class: type[MessageType], data: bytes, max_fields: int) -> MessageType:
    """Return the message of these bytes.

    Args:
        message_class: a generated class.
        data: an encoded message.
        max_fields: how many fields it may have, those inside of its fields included: what bounds the time it takes.

    Raises:
        WireError: the bytes are no such message; TooManyFields if they have more.
    """
    return complete(read_message_steps(message_class, data, max_fields))


def read_message_steps(message_class: type[MessageType], data: bytes, max_fields: int) -> Steps[MessageType]:
    """Do as read_message, in steps."""
    values = yield from _values(message_class, data, _Budget(max_fields))
    return message_class(**values)


FIELDS_AT_ONCE = 128
"""In one step of reading: half a millisecond."""


@define
class _Budget:
    left: int
    _spent: int = 0

    def spend(self) -> None:
        self.left -= 1
        self._spent += 1
        if self.left < 0:
            raise TooManyFields("the message has too many fields")

    @property
    def step_is_over(self) -> bool:
        """Whether many fields were read since this was last true."""
        if self._spent < FIELDS_AT_ONCE:
            return False
        self._spent = 0
        return True


@frozen
class _Field:
    """How to read a field.

    Attributes:
        name: in the class.
        form: the wire type of one value.
        convert: makes the value of what _split gives.
        repeated: the value is a list of such.
        packed: how values stand in a packed list, as struct has it, "" for varints; None: they cannot.
        message: the class of a message.
        entry: the key and the value of a map.
        others: the other fields of its oneof.
    """

    name: str
    form: int
    convert: Callable[[Any], Any] = bytes
    repeated: bool = False
    packed: str | None = None
    message: type[betterproto2.Message] | None = None
    entry: tuple[_Field, _Field] | None = None
    others: tuple[str, ...] = ()


def _values(message_class: type[betterproto2.Message], data: bytes, budget: _Budget) -> Steps[dict[str, Any]]:
    fields = _fields_of(message_class)
    values: dict[str, Any] = {}
    messages: dict[str, tuple[_Field, bytes]] = {}
    for number, form, content in _split(data, budget):
        if budget.step_is_over:
            yield
        field = fields.get(number)
        if field is None:
            continue
        name = field.name
        if form != field.form:
            if field.repeated and field.packed is not None and form == _LENGTH_DELIMITED:
                values.setdefault(name, []).extend((yield from _unpacked(field, field.packed, content, budget)))
            continue
        if field.entry is not None:
            key, value = yield from _map_entry(field.entry, content, budget)
            values.setdefault(name, {})[key] = value
        elif field.repeated:
            values.setdefault(name, []).append((yield from _value(field, content, budget)))
        elif field.message is not None:
            # Read when all of it is here: two encodings of a message make one.
            messages[name] = (field, messages[name][1] + content if name in messages else content)
        else:
            values[name] = field.convert(content)
        for other in field.others:
            values.pop(other, None)
            messages.pop(other, None)
    for name, (field, content) in messages.items():
        values[name] = yield from _value(field, content, budget)
    return values


def _value(field: _Field, content: Any, budget: _Budget) -> Steps[Any]:  # noqa: ANN401 - of any type that a field can have
    if field.message is not None:
        return field.message(**(yield from _values(field.message, content, budget)))
    return field.convert(content)


def _map_entry(entry: tuple[_Field, _Field], data: bytes, budget: _Budget) -> Steps[tuple[Any, Any]]:
    found = [_ABSENT[field.form] for field in entry]
    for number, form, content in _split(data, budget):
        if number <= len(entry) and form == entry[number - 1].form:
            found[number - 1] = content
    key = yield from _value(entry[0], found[0], budget)
    return key, (yield from _value(entry[1], found[1], budget))


def _unpacked(field: _Field, packed: str, content: bytes, budget: _Budget) -> Steps[list[Any]]:
    if packed:
        size = struct.calcsize(packed)
        if len(content) % size:
            raise WireError(f"the list {field.name} is cut off")
        return list(struct.unpack(f"<{len(content) // size}{packed}", content))
    values = []
    place = 0
    while place < len(content):
        budget.spend()
        if budget.step_is_over:
            yield
        number, place = _read_varint(content, place)
        values.append(field.convert(number))
    return values


def _split(data: bytes, budget: _Budget) -> Iterator[tuple[int, int, Any]]:
    """Yield the number, the wire type and the content of each field: a number for a varint, else bytes."""
    place, end = 0, len(data)
    while place < end:
        budget.spend()
        tag, place = _read_varint(data, place)
        number, form = tag >> 3, tag & 7
        if not 0 < number <= _LARGEST_FIELD_NUMBER:
            raise WireError(f"there is no field number {number}")
        if form == _VARINT:
            value, place = _read_varint(data, place)
            yield number, form, value
            continue
        if form == _LENGTH_DELIMITED:
            length, place = _read_varint(data, place)
        elif form in _SIZES:
            length = _SIZES[form]
        else:
            raise WireError(f"field {number} has the wire type {form}, which proto3 does not have")
        if length > end - place:
            raise WireError(f"field {number} has {length} bytes, {end - place} are here")
        yield number, form, data[place : place + length]
        place += length


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place and the place after it."""
    try:
        number = data[place]
        if number < 0x80:
            return number, place + 1
        number &= 0x7F
        for shift in range(7, 64, 7):
            place += 1
            byte = data[place]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number & _64_BITS, place + 1
    except IndexError:
        raise WireError("a number is cut off") from None
    raise WireError("a number has more than 64 bits")


# -- what the generated classes say of their fields --------------------------------------------------------------------


@functools.cache
def _fields_of(message_class: type[betterproto2.Message]) -> dict[int, _Field]:
    """Return how to read the fields of a class, by their numbers."""
    hints = typing.get_type_hints(message_class)
    described = [
        (field.name, FieldMetadata.get(field))
        for field in dataclasses.fields(message_class)  # type: ignore[arg-type]  # generated classes are dataclasses
    ]
    fields = {}
    for name, meta in described:
        group = {other for other, its_meta in described if meta.group and its_meta.group == meta.group}
        fields[meta.number] = evolve(_field(name, meta, hints[name]), others=tuple(group - {name}))
    return fields


def _field(name: str, meta: FieldMetadata, hint: Any) -> _Field:  # noqa: ANN401 - hints have no common type
    kind = meta.proto_type
    # Of "list[Skipped]", "bytes | None", "dict[str, bytes]".
    arguments = typing.get_args(hint) or (hint,)
    repeated = bool(meta.repeated)
    if meta.map_meta is not None:
        key, value = meta.map_meta
        entry = (_field("key", key, arguments[0]), _field("value", value, arguments[1]))
        return _Field(name, _LENGTH_DELIMITED, entry=entry)
    if kind == betterproto2.TYPE_MESSAGE:
        return _Field(name, _LENGTH_DELIMITED, repeated=repeated, message=arguments[0])
    if kind == betterproto2.TYPE_BYTES:
        return _Field(name, _LENGTH_DELIMITED, repeated=repeated)
    if kind == betterproto2.TYPE_STRING:
        return _Field(name, _LENGTH_DELIMITED, functools.partial(_text, name), repeated)
    if kind == betterproto2.TYPE_ENUM:
        return _Field(name, _VARINT, functools.partial(_enum, arguments[0]), repeated, "")
    if kind in _FIXED_FORMATS:
        packed = _FIXED_FORMATS[kind]
        form = _FIXED_64 if struct.calcsize(packed) == _SIZES[_FIXED_64] else _FIXED_32
        return _Field(name, form, functools.partial(_fixed, f"<{packed}"), repeated, packed)
    return _Field(name, _VARINT, _NUMBERS[kind], repeated, "")


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WireError(f"the text {name} is not UTF-8") from None


def _enum(enum_class: type[betterproto2.Enum], number: int) -> betterproto2.Enum:
    # A number that is not known becomes a member without a name.
    return enum_class(_signed(32, number))


def _fixed(form: str, content: bytes) -> float:
    value: float = struct.unpack(form, content)[0]
    return value


def _signed(bits: int, number: int) -> int:
    sign = 1 << bits - 1
    return ((number & (1 << bits) - 1) ^ sign) - sign


def _zigzag(bits: int, number: int) -> int:
    number &= (1 << bits) - 1
    return number >> 1 ^ -(number & 1)


_NUMBERS: dict[str, Callable[[int], int]] = {
    betterproto2.TYPE_BOOL: bool,
    betterproto2.TYPE_UINT32: _32_BITS.__and__,
    betterproto2.TYPE_UINT64: int,
    betterproto2.TYPE_INT32: functools.partial(_signed, 32),
    betterproto2.TYPE_INT64: functools.partial(_signed, 64),
    betterproto2.TYPE_SINT32: functools.partial(_zigzag, 32),
    betterproto2.TYPE_SINT64: functools.partial(_zigzag, 64),
}
