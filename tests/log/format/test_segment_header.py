from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import DataDirectoryError, SegmentError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import Salt
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import (
    HEADER_PREFIX_BYTES,
    MissingRange,
    OriginState,
    SegmentHeader,
    header_length,
)

U64 = st.integers(0, 2**64 - 1)
ORIGINS = st.builds(Origin, st.binary(min_size=16, max_size=16))
STATES = st.builds(
    OriginState,
    U64,
    U64,
    st.integers(0, 2**32 - 1),
    U64,
    st.lists(st.tuples(U64, U64), max_size=2).map(tuple),
    st.lists(st.builds(MissingRange, U64, U64, U64), max_size=2).map(tuple),
    st.none() | U64,
)
EIGHT = st.binary(min_size=8, max_size=8)
HEADERS = st.builds(
    SegmentHeader,
    EIGHT,
    st.text(max_size=10),
    st.builds(Salt, EIGHT),
    U64,
    U64,
    U64,
    st.dictionaries(ORIGINS, STATES, max_size=3),
    running=st.none() | U64,
)
SAMPLE = SegmentHeader(
    bytes(8),
    "cluster",
    Salt(bytes(8)),
    3,
    4,
    5,
    {Origin(bytes(16)): OriginState(1, 2, 3, 4, ((1, 2),)), Origin(b"x" * 16): OriginState(5, 5, emptied=7)},
)


def sealed(body: bytes, version: int = 1) -> bytes:
    data = b"\x93PLS" + version.to_bytes(2, "big") + bytes(2) + (16 + len(body)).to_bytes(4, "big") + body
    return data + crc32c(data).to_bytes(4, "big")


@given(HEADERS)
def test_round_trip(header: SegmentHeader) -> None:
    data = header.encode()
    assert SegmentHeader.decode(data) == header
    assert header_length(data[:HEADER_PREFIX_BYTES]) == len(data)


def test_every_bit_and_every_byte_counts() -> None:
    data = SAMPLE.encode()
    for position in range(len(data)):
        with pytest.raises(SegmentError):
            SegmentHeader.decode(data[:position])
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(SegmentError):
                SegmentHeader.decode(bytes(changed))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_segment_error(data: bytes) -> None:
    for each in (data, sealed(data)):
        with pytest.raises(SegmentError):
            SegmentHeader.decode(each)
    with pytest.raises(SegmentError):
        header_length(data)


VALUES = st.recursive(
    st.none() | st.integers(-5, 2**64 - 1) | st.binary(max_size=17) | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.binary(max_size=17), children, max_size=2),
    max_leaves=5,
)


@given(
    st.sampled_from(
        ["directory_id", "cluster_name", "salt", "base_offset", "created", "high_mark", "origins", "running"]
    ),
    VALUES,
)
def test_body_with_one_other_value_is_a_header_or_a_segment_error(key: str, value: object) -> None:
    body = msgpack.unpackb(SAMPLE.encode()[HEADER_PREFIX_BYTES:-4], strict_map_key=False)
    body[key] = value
    try:
        header = SegmentHeader.decode(sealed(msgpack.packb(body)))
    except SegmentError:
        return
    assert isinstance(header.salt.data, bytes)
    assert len(header.directory_id) == 8
    assert all(isinstance(origin, Origin) for origin in header.origins)


@pytest.mark.parametrize("body", [b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x90", b"\x05", b""])
def test_body_that_is_no_map(body: bytes) -> None:
    with pytest.raises(SegmentError):
        SegmentHeader.decode(sealed(body))


def test_missing_and_additional_keys() -> None:
    body = msgpack.unpackb(SAMPLE.encode()[HEADER_PREFIX_BYTES:-4], strict_map_key=False)
    body["from a later version"] = 1
    assert SegmentHeader.decode(sealed(msgpack.packb(body))) == SAMPLE
    del body["salt"]
    with pytest.raises(SegmentError, match="salt"):
        SegmentHeader.decode(sealed(msgpack.packb(body)))


def test_newer_version_is_told_from_damage() -> None:
    with pytest.raises(DataDirectoryError, match="format version 7, this program reads version 2"):
        SegmentHeader.decode(sealed(b"whatever", version=7))


def test_claimed_length_is_bounded() -> None:
    for length in (0, 15, 2**28 + 1, 2**32 - 1):
        with pytest.raises(SegmentError, match=f"says that it has {length} bytes"):
            header_length(b"\x93PLS" + bytes(4) + length.to_bytes(4, "big"))
