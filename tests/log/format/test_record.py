from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import PayloadError
from proglog_trio.log.format.record import (
    Record,
    check_payload,
    pack_records,
    pack_values,
    payload_crc,
    record_of_row,
    unpack_records,
    unpack_rows,
)

RECORDS = st.builds(
    Record,
    value=st.binary(min_size=1, max_size=50),
    key=st.none() | st.binary(max_size=20),
    headers=st.none() | st.dictionaries(st.text(max_size=5), st.binary(max_size=5), min_size=1, max_size=3),
    timestamp=st.none() | st.integers(-(2**63), 2**63 - 1),
)


@given(st.lists(RECORDS, min_size=1, max_size=20))
def test_round_trip(records: list[Record]) -> None:
    payload = pack_records(records)
    check_payload(payload, len(records))
    assert unpack_records(payload) == records


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=70))
def test_values_alone_pack_to_the_same(values: list[bytes]) -> None:
    assert pack_values(values) == pack_records([Record(value) for value in values])


@pytest.mark.parametrize(
    ("record", "elements"),
    [
        (Record(b"v"), [b"v"]),
        (Record(b"v", b"k"), [b"v", b"k"]),
        (Record(b"v", headers={"h": b"1"}), [b"v", None, {"h": b"1"}]),
        (Record(b"v", timestamp=5), [b"v", None, None, 5]),
    ],
)
def test_absent_elements_at_the_end_are_left_out(record: Record, elements: list[object]) -> None:
    assert msgpack.unpackb(pack_records([record])) == [elements]


def test_later_elements_are_ignored_and_nil_is_absent() -> None:
    payload = msgpack.packb([[b"v", None, None, None, "from a later version"], [None, b"k"]])
    assert unpack_records(payload) == [Record(b"v"), Record(b"", b"k")]


@pytest.mark.parametrize("records", [[Record(b"")], [Record(b"x"), Record(b"", headers={})]])
def test_empty_record_is_refused(records: list[Record]) -> None:
    with pytest.raises(ValueError, match=f"record {len(records) - 1} is empty"):
        pack_records(records)


def test_empty_value_is_refused() -> None:
    with pytest.raises(ValueError, match="record 1 is empty"):
        pack_values([b"x", b"", b"y"])


def test_timestamp_beyond_64_bits_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="cannot be packed"):
        pack_records([Record(b"x", timestamp=2**70)])


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (5, "is no array"),
        ([], "is no array"),
        (["text"], "value of type str"),
        ([b"v", "text"], "key of type str"),
        ([b"v", None, [1]], "headers that are no map"),
        ([b"v", None, {b"bytes": b""}], "headers that are no map"),
        ([b"v", None, {"h": 1}], "headers that are no map"),
        ([b"v", None, None, "now"], "timestamp"),
        ([b"v", None, None, True], "timestamp"),
        ([b"v", None, None, 2**63], "timestamp"),
    ],
)
def test_malformed_record_is_named_by_its_index(row: object, what: str) -> None:
    payload = msgpack.packb([[b"good"], row])
    check_payload(payload, 2)
    with pytest.raises(PayloadError, match=what) as caught:
        unpack_records(payload)
    assert caught.value.index == 1


def test_header_name_that_is_no_utf8_spoils_its_record_only() -> None:
    payload = b"\x92" + msgpack.packb([b"good"]) + b"\x93\xc4\x01v\xc0\x81\xa1\xff\xc4\x01x"
    rows = unpack_rows(payload)
    assert record_of_row(rows[0], 0) == Record(b"good")
    with pytest.raises(PayloadError) as caught:
        record_of_row(rows[1], 1)
    assert caught.value.index == 1


@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_any_bytes_are_a_payload_or_a_payload_error(data: bytes, count: int) -> None:
    for use in (lambda: unpack_records(data), lambda: check_payload(data, count)):
        try:
            use()
        except PayloadError as error:
            assert str(error)  # noqa: PT017 - whether it raises is not the question, only what


@given(st.lists(RECORDS, min_size=1, max_size=5), st.data())
def test_mutated_payload_is_whole_or_a_payload_error(records: list[Record], data: st.DataObject) -> None:
    payload = bytearray(pack_records(records))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_payload(bytes(payload), len(records))
    except PayloadError:
        return
    assert len(unpack_rows(bytes(payload))) == len(records)


def _is_whole(payload: bytes, count: int) -> bool:
    """Tell by msgpack alone whether a payload is an array of count elements."""
    try:
        elements = msgpack.unpackb(payload, raw=True, strict_map_key=False)
    except (ValueError, TypeError):
        return False
    return isinstance(elements, list) and len(elements) == count


@given(st.binary(max_size=400), st.integers(0, 40), st.data())
def test_values_of_one_length_are_checked_as_all_others(value: bytes, count: int, data: st.DataObject) -> None:
    payload = bytearray(msgpack.packb([[value]] * count))
    for _ in range(data.draw(st.integers(0, 2))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(
            st.sampled_from([0x90, 0x91, 0xC4, 0xC5, 0xC6, 0, 1])
        )
    payload = payload[: data.draw(st.integers(0, len(payload))) or None]
    try:
        check_payload(bytes(payload), count)
    except PayloadError:
        assert not _is_whole(bytes(payload), count)
    else:
        assert _is_whole(bytes(payload), count)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 65_535, 65_536, 200_000])
def test_many_values_of_one_length(length: int, count: int) -> None:
    if length * count > 1 << 21:
        count = max(1, (1 << 21) // length)
    payload = msgpack.packb([[bytes(length)]] * count)
    check_payload(payload, count)
    last = len(payload) - length - 1
    for broken in (payload[:-1], payload + b"\0", payload[:last] + b"\7" + payload[last + 1 :]):
        with pytest.raises(PayloadError):
            check_payload(broken, count)


@pytest.mark.parametrize("payload", [b"\x91\x91\xc6\0", b"\x91\x91\xc6\0\0\0", b"\x91\x91\xc5", b"\x91\x91\xc4"])
def test_values_whose_length_is_cut_off(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="ends in the middle"):
        check_payload(payload, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff\x91",
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\x91\xdb\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,
    ],
)
def test_claims_cost_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        for count in (1, 2**32 - 1):
            with pytest.raises(PayloadError):
                check_payload(data, count)
        with pytest.raises(PayloadError):
            unpack_records(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("payload", "count", "what"),
    [
        (b"", 1, "does not begin with a msgpack array"),
        (b"\xc4\x01x", 1, "does not begin with a msgpack array"),
        (pack_values([b"a", b"b"]), 3, "an array of 2 records, the batch says 3"),
        (pack_values([b"a", b"b"])[:-1], 2, "ends in the middle of a record"),
        (pack_values([b"a"]) + b"\x00", 1, "1 bytes follow"),
        (b"\x91\xc1", 1, "not msgpack near byte 1"),
    ],
)
def test_payload_that_is_not_what_its_batch_says(payload: bytes, count: int, what: str) -> None:
    with pytest.raises(PayloadError, match=what):
        check_payload(payload, count)


def test_crc_is_castagnoli() -> None:
    # The check value of CRC-32C (Koopman): of the digits 1 to 9.
    assert payload_crc(b"123456789") == 0xE3069283
