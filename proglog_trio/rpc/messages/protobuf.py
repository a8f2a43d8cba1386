"""Messages on the wire: read and written by protobuf's own runtime (upb), within bounds, and around long byte strings.

The runtime is C and knows all rules of https://protobuf.dev/programming-guides/encoding. But it has no bound other than
the bytes that it is given, of which two may make an object; and it copies byte strings into its message and out again.
So

- a message has a bound in bytes, beside its long values. One that is longer is looked through before the runtime gets
  it: its payload or frames may have megabytes, everything else together has not;
- payload and frames do not pass through the runtime: they are cut out of what is read, and written by themselves. Two
  encodings of a message, one after the other, are the encoding of both together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import betterproto2
from attrs import define, field
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from proglog_trio.rpc.messages.conversion import Converter, TooManyListed, converter_of
from proglog_trio.steps import Steps

MessageType = TypeVar("MessageType")

LONG_BYTES = 1024
"""A byte string, a text or a message from this length on is looked at by itself when a message is looked through."""
CUT_OUT_ABOVE_BYTES = 64 * 1024
"""Byte strings in messages up to this length pass through the runtime, which is as fast then."""
LISTED_BYTES = 16
"""What a message in a list has on average, at least: most name an origin. As an object it has twenty times as many."""
_FIELDS_AT_ONCE = 128
"""In one step of looking through: a tenth of a millisecond."""

# Wire types
_VARINT, _FIXED_64, _LENGTH_DELIMITED, _FIXED_32 = 0, 1, 2, 5
_SIZES = {_FIXED_64: 8, _FIXED_32: 4}
_KINDS_OF_LONG_VALUES = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE)
"""Byte strings and texts, and messages, which may have some: not packed lists, of which each byte may be an object."""


class WireError(ValueError):
    """Bytes that are no message, with the reason."""


class MessageTooLong(WireError):
    """A message with more beside its long values than a reader will look at, or with too many messages in lists."""

    def __init__(self, max_rest_bytes: int, max_listed: int | None = None) -> None:
        super().__init__(
            f"has more than {max_rest_bytes} beside long values"
            if max_listed is None
            else f"has more than {max_listed} messages in lists"
        )


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
    """Return what stands before the content of a field of bytes, which the rest of the message follows."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def encode_message(message: betterproto2.Message) -> bytes:
    """Return the bytes of a generated message.

    Raises:
        ValueError, TypeError: a field's value is none that it can have.
    """
    converter = converter_of(type(message))
    fields = converter.fields_of(message)
    long = _take_long(converter, fields)
    rest: bytes = converter.runtime(**fields).SerializeToString()
    return b"".join((*long, rest)) if long else rest


def _take_long(converter: Converter[Any], fields: dict[str, Any]) -> list[bytes]:
    """Take long byte strings out of a message's fields, and return them encoded."""
    number_of = converter.runtime.DESCRIPTOR.fields_by_name
    parts: list[bytes] = []
    for name in converter.byte_strings:
        if len(fields[name] or b"") > CUT_OUT_ABOVE_BYTES:
            content = fields.pop(name)
            parts += (bytes_field_header(number_of[name].number, len(content)), content)
    for _, name, inner in converter.messages:
        if fields[name] is not None and (found := _take_long(inner, fields[name])):
            found.append(inner.runtime(**fields.pop(name)).SerializeToString())
            parts += (bytes_field_header(number_of[name].number, sum(map(len, found))), *found)
    return parts


# -- reading -----------------------------------------------------------------------------------------------------------


def read_message_steps(
    kind: type[MessageType], data: bytes, max_rest_bytes: int, *, views: Collection[str] = ()
) -> Steps[MessageType]:
    """Return, in steps, the message of these bytes.

    Args:
        kind: a generated class, or one of the runtime.
        data: an encoded message.
        max_rest_bytes: how much it may have beside long values, those inside of its fields included: what bounds the
            time that it takes. And for each LISTED_BYTES of these it may have one message in a list.
        views: names of byte strings that are views of data where they are long, for a reader that takes them apart.

    Raises:
        WireError: the bytes are no such message; MessageTooLong if they have more.
    """
    converter: Converter[Any] | None = converter_of(kind) if issubclass(kind, betterproto2.Message) else None
    runtime: Any = kind if converter is None else converter.runtime
    cuttable: Sequence[str] = () if converter is None else converter.byte_strings
    rest, cut_out = data, {}
    if len(data) > max_rest_bytes or (cuttable and len(data) > CUT_OUT_ABOVE_BYTES):
        long = _LongValues(data, max_rest_bytes, cuttable, len(data))
        yield from long.find(runtime.DESCRIPTOR, 0, len(data), is_whole=True)
        rest, cut_out = long.rest, long.cut_out
    try:
        message: MessageType = runtime.FromString(rest)
    except DecodeError as error:
        raise WireError(str(error)) from None
    if converter is not None:
        max_listed = max_rest_bytes // LISTED_BYTES
        try:
            message = yield from converter.generated_of(message, max_listed)  # type: ignore[arg-type]  # the runtime's it was
        except TooManyListed:
            raise MessageTooLong(max_rest_bytes, max_listed) from None
        for name, (begin, end) in cut_out.items():
            # Otherwise it was given again, or another field of its oneof was.
            if getattr(message, name) == _PLACEHOLDER:
                setattr(message, name, (memoryview(data) if name in views else data)[begin:end])
    return message


_PLACEHOLDER = b"\0cut out\0"
"""Stands in a message where a byte string was cut out of it. A sender who writes it too, as the later of two values of
one field, has the earlier one read: its own message, and no other's."""


@define(eq=False)
class _LongValues:
    """Looks through one message for its long values, and for how much it has beside them.

    Attributes:
        data: the message.
        max_rest_bytes: how much there may be beside long values.
        cuttable: the names of the byte strings that are to be cut out where they are long.
        left_bytes: how long the message is without the long values that were found: what is beside them is never more,
            whatever is still to be looked at, and the runtime may have it once this is little.
        cut_out: where what was cut out begins and ends, by its field's name; of several the last.
        _rest_bytes: how much was found beside long values: never more than max_rest_bytes, nor than left_bytes.
        _pieces: the message up to _cut_to, with placeholders.
    """

    data: bytes
    max_rest_bytes: int
    cuttable: Sequence[str]
    left_bytes: int
    cut_out: dict[str, tuple[int, int]] = field(factory=dict)
    _rest_bytes: int = 0
    _fields: int = 0
    _pieces: list[bytes] = field(factory=list)
    _cut_to: int = 0

    @property
    def rest(self) -> bytes:
        """The message with a placeholder for each byte string that was cut out.

        So the runtime decides, by protobuf's rules, which of several values of a field counts, and which of a oneof.
        """
        return b"".join((*self._pieces, self.data[self._cut_to :]))

    def find(self, message: Descriptor, place: int, end: int, *, is_whole: bool) -> Steps[None]:
        """Look, in steps, through a message that stands at a place: the whole, or one inside of it.

        Ends when the rest is short enough, whatever it is: most often after the payload, with which senders begin.

        Raises:
            MessageTooLong: there is too much beside long values.
            WireError: it is no message.
        """
        while place < end and self.left_bytes > min(self.max_rest_bytes, CUT_OUT_ABOVE_BYTES):
            began = place
            tag, place = _read_varint(self.data, place)
            number, form = tag >> 3, tag & 7
            length_at, length = place, _SIZES.get(form, 0)
            if form == _VARINT:
                _, place = _read_varint(self.data, place)
            elif form == _LENGTH_DELIMITED:
                length, place = _read_varint(self.data, place)
            elif form not in _SIZES:
                raise WireError(f"field {number} has the wire type {form}, which proto3 does not have")
            following = place + length
            if following > end:
                raise WireError(f"field {number} has {length} bytes, {end - place} are here")
            described = message.fields_by_number.get(number)
            # What is not known is kept as it is, like a byte string.
            kind = FieldDescriptor.CPPTYPE_STRING if described is None else described.cpp_type
            if length < LONG_BYTES or kind not in _KINDS_OF_LONG_VALUES:
                self._count(following - began)
            else:
                self._count(place - began)
                if described is not None and described.message_type is not None:
                    # It may have a long value of its own: a record's value. That stays where it is.
                    yield from self.find(described.message_type, place, following, is_whole=False)
                else:
                    self.left_bytes -= length
                    if is_whole and described is not None and described.name in self.cuttable:
                        self._pieces += (self.data[self._cut_to : length_at], varint(len(_PLACEHOLDER)), _PLACEHOLDER)
                        self.cut_out[described.name] = (place, following)
                        self._cut_to = following
            place = following
            if self._fields % _FIELDS_AT_ONCE == 0:
                yield

    def _count(self, size: int) -> None:
        self._fields += 1
        self._rest_bytes += size
        if self._rest_bytes > self.max_rest_bytes:
            raise MessageTooLong(self.max_rest_bytes)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place and the place after it."""
    number = 0
    try:
        for shift in range(0, 64, 7):
            byte = data[place]
            place += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number, place
    except IndexError:
        raise WireError("a number is cut off") from None
    raise WireError("a number has more than 64 bits")
