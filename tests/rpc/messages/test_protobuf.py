"""Reading and writing against protobuf's own classes: the same messages of the same bytes, and one error for the rest.

What is short and what is long goes two ways: everything goes both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import betterproto2
import hypothesis.strategies as st
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import example, given, settings

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages import protobuf
from proglog_trio.rpc.messages.conversion import MESSAGES_AT_ONCE
from proglog_trio.rpc.messages.descriptors import message_class as runtime_class
from proglog_trio.rpc.messages.protobuf import (
    CUT_OUT_ABOVE_BYTES,
    LISTED_BYTES,
    LONG_BYTES,
    MessageTooLong,
    WireError,
    bytes_field_header,
    encode_message,
    read_message_steps,
    varint,
)
from proglog_trio.steps import complete

MAX_REST_BYTES = 64 * 1024
EXAMPLES = settings().max_examples
# The same code reads each of fifty classes: a third of the default profile's examples for each are a thousand for it.
few = settings(max_examples=EXAMPLES if EXAMPLES > 100 else EXAMPLES // 3)
CLASSES: list[type[betterproto2.Message]] = [
    found for found in vars(log_v1).values() if isinstance(found, type) and issubclass(found, betterproto2.Message)
]


def reference(message_class: type[betterproto2.Message]) -> Any:
    """The class of the same message that protobuf itself makes."""
    return runtime_class(message_class.__name__)


@contextlib.contextmanager
def all_is_long() -> Iterator[None]:
    """Make every message one that is looked through, and nearly every value one that is cut out."""
    with mock.patch.object(protobuf, "CUT_OUT_ABOVE_BYTES", 0), mock.patch.object(protobuf, "LONG_BYTES", 9):
        yield


def read_message(kind: type[Any], data: bytes, max_rest_bytes: int) -> Any:
    return complete(read_message_steps(kind, data, max_rest_bytes))


WAYS = [pytest.param(contextlib.nullcontext, id="short"), pytest.param(all_is_long, id="long")]
Way = Callable[[], contextlib.AbstractContextManager[None]]


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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message_class", CLASSES)
@few
@given(data=st.data())
def test_messages_are_read_and_written_as_protobuf_does(
    message_class: type[betterproto2.Message], way: Way, data: st.DataObject
) -> None:
    theirs = reference(message_class)
    encoded = data.draw(encodings(theirs.DESCRIPTOR))
    with way():
        message = read_message(message_class, encoded, MAX_REST_BYTES)
        written = encode_message(message)
    agrees(message, theirs.FromString(encoded))
    agrees(message_class.parse(bytes(message)), theirs.FromString(encoded))
    assert theirs.FromString(written) == theirs.FromString(encoded)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message_class", CLASSES)
@few
@given(data=st.data())
def test_any_bytes_give_what_protobuf_makes_of_them_or_the_one_error(
    message_class: type[betterproto2.Message], way: Way, data: st.DataObject
) -> None:
    theirs = reference(message_class)
    pieces = st.lists(st.one_of(fields, encodings(theirs.DESCRIPTOR), st.binary(max_size=30)), max_size=5)
    encoded = b"".join(data.draw(pieces))
    encoded = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        with way():
            message = read_message(message_class, encoded, MAX_REST_BYTES)
    except WireError:
        return
    try:
        expected = theirs.FromString(encoded)
    except DecodeError:
        pytest.fail(f"protobuf refuses what was read as {message}")
    agrees(message, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message_class", CLASSES)
@few
@given(data=st.data())
def test_what_is_cut_off_is_refused(message_class: type[betterproto2.Message], way: Way, data: st.DataObject) -> None:
    theirs = reference(message_class)
    encoded = data.draw(encodings(theirs.DESCRIPTOR))
    encoded = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        expected = theirs.FromString(encoded)
    except DecodeError:
        with way(), pytest.raises(WireError):
            read_message(message_class, encoded, MAX_REST_BYTES)
    else:
        with way():
            message = read_message(message_class, encoded, MAX_REST_BYTES)
        agrees(message, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("message_class", "encoded"),
    [
        (log_v1.ProduceBatchRequest, b"\x0a\x05ab"),
        (log_v1.ProduceBatchRequest, b"\x1d\x01\x02"),
        (log_v1.ProduceBatchRequest, b"\x10\x80"),
        (log_v1.ProduceBatchRequest, b"\x10"),
        (log_v1.ProduceBatchRequest, b"\x10" + b"\xff" * 10 + b"\x01"),
        (log_v1.ProduceBatchRequest, b"\x00\x01"),
        (log_v1.ProduceBatchRequest, b"\x0b"),
        (log_v1.ProduceBatchRequest, b"\x3a\x02\x08\x80"),
        (log_v1.ConsumeBatchesResponse, b"\x12\x07abcdefg"),
        (log_v1.Server, b"\x0a\x01\xff"),
    ],
)
def test_what_is_no_message(message_class: type[betterproto2.Message], way: Way, encoded: bytes) -> None:
    with way(), pytest.raises(WireError):
        read_message(message_class, encoded, MAX_REST_BYTES)


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (b"\x0a\x05ab", "field 1 has 5 bytes, 2 are here"),
        (b"\x1d\x01\x02", "field 3 has 4 bytes, 2 are here"),
        (b"\x10\x80", "a number is cut off"),
        (b"\x10", "a number is cut off"),
        (b"\x10" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x0b\x0c", "wire type 3"),
    ],
)
def test_reasons_why_a_long_message_is_none(encoded: bytes, words: str) -> None:
    with all_is_long(), pytest.raises(WireError, match=words):
        read_message(log_v1.ProduceBatchRequest, encoded, MAX_REST_BYTES)


def test_an_unknown_group_is_passed_over() -> None:
    encoded = b"\x0b\x10\x07\x0c" + bytes(log_v1.ProduceBatchRequest(count=3))
    assert read_message(log_v1.ProduceBatchRequest, encoded, MAX_REST_BYTES) == log_v1.ProduceBatchRequest(count=3)


def test_the_last_of_a_oneof_counts() -> None:
    both = bytes(log_v1.ConsumeBatchesRequest(offset=7)) + bytes(log_v1.ConsumeBatchesRequest(position=b"there"))
    request = read_message(log_v1.ConsumeBatchesRequest, both, MAX_REST_BYTES)
    assert (request.offset, request.position) == (None, b"there")


def test_a_message_given_twice_is_merged() -> None:
    nodes = bytes(log_v1.ProduceRequest(acknowledgement=log_v1.Acknowledgement(nodes=3)))
    level = bytes(
        log_v1.ProduceRequest(acknowledgement=log_v1.Acknowledgement(level=log_v1.AcknowledgementLevel.NODES))
    )
    merged = read_message(log_v1.ProduceRequest, nodes + level, MAX_REST_BYTES).acknowledgement
    assert merged == log_v1.Acknowledgement(level=log_v1.AcknowledgementLevel.NODES, nodes=3)


@given(number=st.integers(-(2**31), 2**31 - 1))
def test_enum_numbers_that_nobody_knows(number: int) -> None:
    theirs = reference(log_v1.ConsumeBatchesRequest)(anchor=number)
    anchor = read_message(log_v1.ConsumeBatchesRequest, theirs.SerializeToString(), MAX_REST_BYTES).anchor
    assert anchor == number
    assert isinstance(anchor, log_v1.ConsumeBatchesRequestAnchor)


def test_numbers_in_no_packed_list() -> None:
    encoded = b"".join(field_bytes(2, 1, number.to_bytes(8, "little")) for number in (1, 2)) + b"\x12\x08" + bytes(8)
    assert read_message(log_v1.ConsumeBatchesResponse, encoded, MAX_REST_BYTES).base_offsets == [1, 2, 0]


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
    with pytest.raises(MessageTooLong):
        read_message(log_v1.ProduceBatchRequest, encoded, MAX_REST_BYTES)
    assert time.process_time() - begun < 2.0, "it takes some 20 ms"


@pytest.mark.parametrize("part", [b"\x12\x02\x0a\x00", b"\x1a\x02\x2a\x00", b"\x1a\x00"])
def test_many_messages_in_one_are_read_in_steps(part: bytes) -> None:
    """How long each step takes is measured with a node, by fuzz.holds."""
    many = MAX_REST_BYTES // LISTED_BYTES // 2
    steps = read_message_steps(log_v1.PullRequest, part * many, MAX_REST_BYTES)
    assert sum(1 for _ in steps) >= many // MESSAGES_AT_ONCE


@pytest.mark.parametrize("part", [b"\x12\x02\x0a\x00", b"\x1a\x04\x2a\x00\x2a\x00", b"\x1a\x00"])
def test_how_many_messages_are_in_lists_is_bounded(part: bytes) -> None:
    """Wherever the lists are: each takes a hundred times as many bytes as the shortest has."""
    many = MAX_REST_BYTES // LISTED_BYTES + 1
    with pytest.raises(MessageTooLong, match=f"more than {many - 1} messages in lists"):
        read_message(log_v1.PullRequest, part * many, MAX_REST_BYTES)


def test_bytes_inside_of_fields_count_and_long_values_do_not() -> None:
    headers = {f"{number:02}": bytes(LONG_BYTES) for number in range(10)}
    request = log_v1.ProduceRequest(record=log_v1.Record(value=bytes(100_000), headers=headers))
    encoded = bytes(request)
    # Of the record and its value tag and length, and of each header those of itself and of its two parts, and its key.
    rest = 4 + 4 + 10 * (3 + 4 + 3)
    assert read_message(log_v1.ProduceRequest, encoded, rest) == request
    with pytest.raises(MessageTooLong, match=f"more than {rest - 1} beside long values"):
        read_message(log_v1.ProduceRequest, encoded, rest - 1)


# -- long byte strings -------------------------------------------------------------------------------------------------

SHORT, LONG, LONGER = b"short", b"l" * (CUT_OUT_ABOVE_BYTES + 1), b"m" * (2 * CUT_OUT_ABOVE_BYTES)


@pytest.mark.parametrize("payloads", [(LONG,), (LONG, LONGER), (LONGER, SHORT), (SHORT, LONG), (LONG, SHORT, LONGER)])
def test_the_last_of_several_payloads_counts(payloads: tuple[bytes, ...]) -> None:
    encoded = b"".join(bytes(log_v1.ProduceBatchRequest(payload=each, count=7)) for each in payloads)
    expected = log_v1.ProduceBatchRequest(payload=payloads[-1], count=7)
    assert read_message(log_v1.ProduceBatchRequest, encoded, MAX_REST_BYTES) == expected


def test_a_long_position_in_a_oneof() -> None:
    position, offset = log_v1.ConsumeBatchesRequest(position=LONG), log_v1.ConsumeBatchesRequest(offset=7)
    for first, last in ((position, offset), (offset, position)):
        assert read_message(log_v1.ConsumeBatchesRequest, bytes(first) + bytes(last), MAX_REST_BYTES) == last


@pytest.mark.parametrize(
    "message",
    [
        log_v1.ProduceBatchRequest(payload=LONG, count=3),
        log_v1.ConsumeBatchesRequest(position=LONG, until_end=True),
        log_v1.ConsumeResponse(record=log_v1.Record(value=LONG, key=LONGER, headers={"h": LONG}, offset=5)),
        log_v1.PullResponse(frames=LONG, positions=log_v1.Positions(writing=LONGER, more_follows=True)),
    ],
)
def test_long_byte_strings_are_written(message: betterproto2.Message) -> None:
    written = encode_message(message)
    assert reference(type(message)).FromString(written) == reference(type(message)).FromString(bytes(message))
    assert read_message(type(message), written, 10 * len(LONGER)) == message


@example(number=1, length=0)
@given(number=st.integers(1, 2**29 - 1), length=st.integers(0, 300))
def test_a_field_of_bytes_written_by_itself(number: int, length: int) -> None:
    content = bytes(length)
    encoded = bytes_field_header(number, length) + content
    fields = list(betterproto2.parse_fields(encoded))
    assert [(field.number, field.value) for field in fields] == [(number, content)]


def test_varint() -> None:
    for number, encoded in ((0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (2**32, b"\x80\x80\x80\x80\x10")):
        assert varint(number) == encoded
