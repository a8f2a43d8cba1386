"""The reader against protobuf's own: the same messages of the same bytes, and one error for all the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import betterproto2
import hypothesis.strategies as st
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import example, given, settings

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages.descriptors import descriptor_pool
from proglog_trio.rpc.messages.protobuf import (
    TooManyFields,
    WireError,
    bytes_field_header,
    fixed64_list_field,
    read_message,
    varint,
)

MOST_FIELDS = 1000
EXAMPLES = settings().max_examples
# The same code reads each of fifty classes: a third of the default profile's examples for each are a thousand for it.
few = settings(max_examples=EXAMPLES if EXAMPLES > 100 else EXAMPLES // 3)
CLASSES: list[type[betterproto2.Message]] = [
    found for found in vars(log_v1).values() if isinstance(found, type) and issubclass(found, betterproto2.Message)
]


def reference(message_class: type[betterproto2.Message]) -> Any:
    """The class of the same message that protobuf itself makes."""
    return GetMessageClass(descriptor_pool().FindMessageTypeByName(f"log.v1.{message_class.__name__}"))


def agrees(message: betterproto2.Message, theirs: Any) -> None:
    """Check that two messages say the same, by what they are in JSON."""
    assert without_zeros(message.to_dict()) == without_zeros(MessageToDict(theirs))


def without_zeros(value: Any) -> Any:
    """Leave out -0.0, which is a default only to one of them."""
    if isinstance(value, dict):
        return {key: without_zeros(each) for key, each in value.items() if not (isinstance(each, float) and not each)}
    return [without_zeros(each) for each in value] if isinstance(value, list) else value


VALUES: dict[str, st.SearchStrategy[Any]] = {
    betterproto2.TYPE_BOOL: st.booleans(),
    betterproto2.TYPE_BYTES: st.binary(max_size=200),
    betterproto2.TYPE_DOUBLE: st.floats(allow_nan=False),
    betterproto2.TYPE_ENUM: st.integers(0, 2),
    betterproto2.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    betterproto2.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    betterproto2.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    betterproto2.TYPE_SINT64: st.integers(-(2**63), 2**63 - 1),
    betterproto2.TYPE_STRING: st.text(max_size=20),
    betterproto2.TYPE_UINT32: st.integers(0, 2**32 - 1),
    betterproto2.TYPE_UINT64: st.integers(0, 2**64 - 1),
}


@st.composite
def encodings(draw: st.DrawFn, descriptor: Any) -> bytes:
    """An encoding of a message of any content, by protobuf itself."""
    message = GetMessageClass(descriptor)()
    fill(draw, message)
    return bytes(message.SerializeToString())


def is_repeated(field: Any) -> bool:
    """Whether there may be several; protobuf's own word for it is newer than the oldest that is supported."""
    return isinstance(field.default_value, list)


def fill(draw: st.DrawFn, message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value_kind = KINDS[field.message_type.fields_by_name["value"].type]
            getattr(message, field.name).update(
                draw(st.dictionaries(st.text(max_size=5), VALUES[value_kind], max_size=3))
            )
        elif field.message_type is not None and is_repeated(field):
            for _ in range(draw(st.integers(0, 3))):
                fill(draw, getattr(message, field.name).add())
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(draw, getattr(message, field.name))
        elif is_repeated(field):
            getattr(message, field.name).extend(draw(st.lists(VALUES[KINDS[field.type]], max_size=5)))
        else:
            setattr(message, field.name, draw(VALUES[KINDS[field.type]]))


KINDS = {
    1: betterproto2.TYPE_DOUBLE,
    4: betterproto2.TYPE_UINT64,
    3: betterproto2.TYPE_INT64,
    6: betterproto2.TYPE_FIXED64,
    7: betterproto2.TYPE_FIXED32,
    8: betterproto2.TYPE_BOOL,
    9: betterproto2.TYPE_STRING,
    12: betterproto2.TYPE_BYTES,
    13: betterproto2.TYPE_UINT32,
    14: betterproto2.TYPE_ENUM,
    18: betterproto2.TYPE_SINT64,
}


def field_bytes(number: int, form: int, content: bytes) -> bytes:
    return varint(number << 3 | form) + content


fields = st.builds(
    field_bytes,
    st.integers(1, 12),
    st.sampled_from([0, 1, 2, 5]),
    st.one_of(
        st.integers(0, 2**64 - 1).map(varint),
        st.binary(min_size=4, max_size=8),
        st.binary(max_size=20).map(lambda content: varint(len(content)) + content),
    ),
)
"""Fields of any number and form, some of them cut off or of another form than the class has."""


@pytest.mark.parametrize("message_class", CLASSES)
@few
@given(data=st.data())
def test_messages_are_read_as_protobuf_reads_them(
    message_class: type[betterproto2.Message], data: st.DataObject
) -> None:
    theirs = reference(message_class)
    encoded = data.draw(encodings(theirs.DESCRIPTOR))
    message = read_message(message_class, encoded, MOST_FIELDS)
    agrees(message, theirs.FromString(encoded))
    agrees(message_class.parse(bytes(message)), theirs.FromString(encoded))


@pytest.mark.parametrize("message_class", CLASSES)
@few
@given(data=st.data())
def test_any_bytes_give_what_protobuf_makes_of_them_or_the_one_error(
    message_class: type[betterproto2.Message], data: st.DataObject
) -> None:
    theirs = reference(message_class)
    pieces = st.lists(st.one_of(fields, encodings(theirs.DESCRIPTOR), st.binary(max_size=30)), max_size=5)
    encoded = b"".join(data.draw(pieces))
    encoded = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        message = read_message(message_class, encoded, MOST_FIELDS)
    except WireError:
        return
    try:
        expected = theirs.FromString(encoded)
    except DecodeError:
        pytest.fail(f"protobuf refuses what was read as {message}")
    agrees(message, expected)


@pytest.mark.parametrize("message_class", CLASSES)
@few
@given(data=st.data())
def test_what_is_cut_off_is_refused(message_class: type[betterproto2.Message], data: st.DataObject) -> None:
    theirs = reference(message_class)
    encoded = data.draw(encodings(theirs.DESCRIPTOR))
    encoded = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        expected = theirs.FromString(encoded)
    except DecodeError:
        with pytest.raises(WireError):
            read_message(message_class, encoded, MOST_FIELDS)
    else:
        agrees(read_message(message_class, encoded, MOST_FIELDS), expected)


@pytest.mark.parametrize(
    ("message_class", "encoded", "words"),
    [
        (log_v1.ProduceBatchRequest, b"\x0a\x05ab", "field 1 has 5 bytes, 2 are here"),
        (log_v1.ProduceBatchRequest, b"\x1d\x01\x02", "field 3 has 4 bytes, 2 are here"),
        (log_v1.ProduceBatchRequest, b"\x10\x80", "a number is cut off"),
        (log_v1.ProduceBatchRequest, b"\x10", "a number is cut off"),
        (log_v1.ProduceBatchRequest, b"\x10" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (log_v1.ProduceBatchRequest, b"\x00\x01", "no field number 0"),
        (log_v1.ProduceBatchRequest, b"\x0b\x0c", "wire type 3"),
        (log_v1.ProduceBatchRequest, b"\x3a\x02\x08\x80", "a number is cut off"),
        (log_v1.ConsumeBatchesResponse, b"\x12\x07abcdefg", "the list base_offsets is cut off"),
        (log_v1.Server, b"\x0a\x01\xff", "the text id is not UTF-8"),
    ],
)
def test_reasons(message_class: type[betterproto2.Message], encoded: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        read_message(message_class, encoded, MOST_FIELDS)


def test_the_last_of_a_oneof_counts() -> None:
    both = bytes(log_v1.ConsumeBatchesRequest(offset=7)) + bytes(log_v1.ConsumeBatchesRequest(position=b"there"))
    request = read_message(log_v1.ConsumeBatchesRequest, both, MOST_FIELDS)
    assert (request.offset, request.position) == (None, b"there")


def test_a_message_given_twice_is_merged() -> None:
    nodes = bytes(log_v1.ProduceRequest(acknowledgement=log_v1.Acknowledgement(nodes=3)))
    level = bytes(
        log_v1.ProduceRequest(acknowledgement=log_v1.Acknowledgement(level=log_v1.AcknowledgementLevel.NODES))
    )
    merged = read_message(log_v1.ProduceRequest, nodes + level, MOST_FIELDS).acknowledgement
    assert merged == log_v1.Acknowledgement(level=log_v1.AcknowledgementLevel.NODES, nodes=3)


@given(number=st.integers(-(2**31), 2**31 - 1))
def test_enum_numbers_that_nobody_knows(number: int) -> None:
    theirs = reference(log_v1.ConsumeBatchesRequest)(anchor=number)
    anchor = read_message(log_v1.ConsumeBatchesRequest, theirs.SerializeToString(), MOST_FIELDS).anchor
    assert anchor == number
    assert isinstance(anchor, log_v1.ConsumeBatchesRequestAnchor)


def test_numbers_in_no_packed_list() -> None:
    encoded = b"".join(field_bytes(2, 1, number.to_bytes(8, "little")) for number in (1, 2)) + b"\x12\x08" + bytes(8)
    assert read_message(log_v1.ConsumeBatchesResponse, encoded, MOST_FIELDS).base_offsets == [1, 2, 0]


@pytest.mark.parametrize(
    "part",
    [
        lambda: b"\x10\x01",
        lambda: b"\xf8\x01\x01",
        lambda: b"\xfa\x01\x00",
        lambda: b"\x3a\x02\x08\x01",
    ],
    ids=["known", "unknown", "empty", "nested"],
)
def test_the_time_is_bounded(part: Callable[[], bytes]) -> None:
    encoded = part() * (4 * 1024 * 1024 // len(part()))
    begun = time.process_time()
    with pytest.raises(TooManyFields):
        read_message(log_v1.ProduceBatchRequest, encoded, 16_384)
    assert time.process_time() - begun < 2.0, "it takes some 20 ms"


def test_fields_inside_of_fields_count() -> None:
    record = log_v1.ProduceRequest(record=log_v1.Record(headers={str(number): b"" for number in range(10)}))
    # The record, ten headers, and of each its key.
    assert read_message(log_v1.ProduceRequest, bytes(record), 31) == record
    with pytest.raises(TooManyFields):
        read_message(log_v1.ProduceRequest, bytes(record), 20)


@example(number=1, length=0)
@given(number=st.integers(1, 2**29 - 1), length=st.integers(0, 300))
def test_a_field_of_bytes_written_by_itself(number: int, length: int) -> None:
    content = bytes(length)
    encoded = bytes_field_header(number, length) + content
    fields = list(betterproto2.parse_fields(encoded))
    assert [(field.number, field.value) for field in fields] == [(number, content)]


@given(numbers=st.lists(st.integers(0, 2**64 - 1)))
def test_a_list_written_by_itself(numbers: list[int]) -> None:
    whole = log_v1.ConsumeBatchesResponse(base_offsets=numbers)
    assert fixed64_list_field(2, numbers) == bytes(whole)


def test_varint() -> None:
    for number, encoded in ((0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (2**32, b"\x80\x80\x80\x80\x10")):
        assert varint(number) == encoded
