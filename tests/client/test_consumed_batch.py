import msgpack
import pytest

from proglog_trio.client.consumed_batch import ConsumedBatch, SkippedRange
from proglog_trio.client.errors import MalformedRecord
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import payload_crc
from tests.client.test_consumer_core import ORIGINS

ORIGIN = ORIGINS[1]


def batch_of(payload: bytes, count: int, first: int = 0) -> ConsumedBatch:
    header = FrameHeader(ORIGIN, 100, count, 7, len(payload), payload_crc(payload)).sealed()
    skipped = (SkippedRange(3, 10, "gone"),)
    return ConsumedBatch(header, payload, 10, first, count - first, Position.empty(), skipped)


def packed(*records: object, first: int = 0) -> ConsumedBatch:
    return batch_of(msgpack.packb(list(records)), len(records), first)


def test_values_and_records() -> None:
    batch = packed([b"a"], [b"b", b"key"], [b"c", None, {"name": b"content"}, 5, "later element"])
    assert batch.values() == [b"a", b"b", b"c"]
    assert [record[:6] for record in batch] == [
        (b"a", None, {}, None, 10, ORIGIN),
        (b"b", b"key", {}, None, 11, ORIGIN),
        (b"c", None, {"name": b"content"}, 5, 12, ORIGIN),
    ]
    assert [record.sequence for record in batch.records()] == [100, 101, 102]
    assert (len(batch), batch.next_offset, batch.log_time) == (3, 13, 7)
    with pytest.raises(IndexError):
        batch.record(3)


def test_an_empty_value_is_nil_or_empty() -> None:
    assert packed([b"", b"key"], [None, b"key"]).values() == [b"", b""]


@pytest.mark.parametrize("unpacked_before", [False, True])
def test_parts(unpacked_before: bool) -> None:
    batch = packed([b"a"], [b"b"], [b"c"], [b"d"], first=1)
    if unpacked_before:
        batch.values()
    part = batch.part(1)
    assert part.values() == [b"c", b"d"]
    assert (part.base_offset, part.base_sequence, part.skipped) == (12, 102, ())
    assert Position.decode(part.position).next_sequence(ORIGIN) == 104
    middle = batch.part(0, 2)
    assert middle.values() == [b"b", b"c"]
    assert middle.skipped == batch.skipped
    assert Position.decode(middle.position).next_sequence(ORIGIN) == 103
    assert len(batch.part(3)) == 0
    for first, count in ((4, None), (-1, None), (0, 4), (2, -1)):
        with pytest.raises(IndexError):
            batch.part(first, count)


# What a foreign producer may have put where a record should stand.
BAD = ["text", b"bytes", 5, None, {0: b"map"}, [], ["text value"], [5], [b"v", "key"], [b"v", None, {"k": 1}]]
VALUE_IS_READABLE = [False] * 8 + [True] * 2


@pytest.mark.parametrize(("bad", "readable"), list(zip(BAD, VALUE_IS_READABLE, strict=True)))
def test_a_malformed_record_spoils_only_itself(bad: object, readable: bool) -> None:
    batch = packed([b"a"], bad, [b"c"])
    with pytest.raises(MalformedRecord) as caught:
        batch.records()
    assert (caught.value.offset, caught.value.sequence, caught.value.count) == (11, 101, 1)
    assert caught.value.origin == str(ORIGIN)
    assert batch.record(2).value == b"c"
    if not readable:
        with pytest.raises(MalformedRecord):
            batch.values()
    assert batch.part(0, 1).values() + batch.part(2).values() == [b"a", b"c"]


# Records that msgpack itself stumbles over when it makes objects of the whole array.
UNPACKABLE = [
    b"\x91" + b"\x81\x80\xc0",  # a map with a map as its key
    b"\xd6\xff\xff\xff\xff\xff",  # a msgpack timestamp that is well formed; the next is not
    b"\xd5\xff\x00\x00",
    b"\x92\xc4\x01v\xa1\xff",  # a key of text that is not UTF-8
    b"\x93\xc4\x01v\xc0\x81\xa1\xff\xc4\x00",  # a header whose name is not UTF-8
]


@pytest.mark.parametrize("bad", UNPACKABLE)
def test_a_record_that_cannot_be_unpacked_spoils_only_itself(bad: bytes) -> None:
    batch = batch_of(b"\x93\x91\xc4\x01a" + bad + b"\x91\xc4\x01c", 3)
    assert batch.record(0).value == b"a"
    assert batch.record(2).value == b"c"
    with pytest.raises(MalformedRecord) as caught:
        batch.record(1)
    assert caught.value.offset == 11
    assert batch.part(2).values() == [b"c"]


@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\x93\x91\xc4\x01a", b"\x91\x91\xc4\x01a"])
def test_an_array_that_cannot_be_read(payload: bytes) -> None:
    batch = batch_of(payload, 3)
    with pytest.raises(MalformedRecord, match="batch of 3 records at offset 10") as caught:
        batch.values()
    assert (caught.value.offset, caught.value.count) == (10, 3)
