from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import PositionError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import LARGEST_POSITION_BYTES, Position, Range

SEQUENCES = st.integers(0, 2**64 - 1)
ORIGINS = st.builds(Origin, st.binary(min_size=16, max_size=16))
RANGES = st.tuples(SEQUENCES, SEQUENCES).map(lambda pair: Range(min(pair), max(pair)))
POSITIONS = st.builds(Position, st.dictionaries(ORIGINS, RANGES, max_size=5))


def sealed(body: bytes, version: int = 1) -> bytes:
    data = bytes([version]) + body
    return data + crc32c(data).to_bytes(4, "big")


@given(POSITIONS)
def test_round_trip(position: Position) -> None:
    assert Position.decode(position.encode()) == position
    turned = Position(dict(reversed(list(position.ranges.items()))))
    assert turned.encode() == position.encode()


@given(POSITIONS, st.data())
def test_damage_is_noticed(position: Position, data: st.DataObject) -> None:
    encoded = bytearray(position.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PositionError):
        Position.decode(bytes(encoded))
    with pytest.raises(PositionError):
        Position.decode(position.encode()[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_a_position_or_a_position_error(data: bytes, with_crc: bool) -> None:
    try:
        position = Position.decode(sealed(data) if with_crc else data)
    except PositionError:
        return
    assert Position.decode(position.encode()) == position


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=17) | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.binary(max_size=17), children, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_any_msgpack_is_a_position_or_a_position_error(body: object) -> None:
    try:
        Position.decode(sealed(msgpack.packb(body)))
    except PositionError as error:
        assert str(error)  # noqa: PT017 - whether it raises is not the question, only what


ORIGIN = bytes(16)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ([], "no map"),
        ({b"short": [0, 1]}, "not 16 bytes"),
        ({"0123456789abcdef": [0, 1]}, "not 16 bytes"),
        ({ORIGIN: [1]}, "no pair"),
        ({ORIGIN: {}}, "no pair"),
        ({ORIGIN: [0, -1]}, "no pair of sequences"),
        ({ORIGIN: [0, True]}, "no pair of sequences"),
        ({ORIGIN: [0, 1.5]}, "no pair of sequences"),
        ({ORIGIN: [3, 2]}, "ends before it begins"),
    ],
)
def test_what_is_wrong_is_named(body: object, what: str) -> None:
    with pytest.raises(PositionError, match=what):
        Position.decode(sealed(msgpack.packb(body)))


def test_newer_version_is_refused_by_name() -> None:
    with pytest.raises(PositionError, match="version 2, this program reads version 1"):
        Position.decode(sealed(msgpack.packb({}), version=2))


@pytest.mark.parametrize("body", [b"\xdf\xff\xff\xff\xff", b"\x81\xc4\x10" + bytes(16) + b"\xdd\xff\xff\xff\xff"])
def test_claims_cost_no_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PositionError):
            Position.decode(sealed(body))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_large_position_is_refused_before_it_is_read() -> None:
    with pytest.raises(PositionError, match="larger than"):
        Position.decode(bytes(LARGEST_POSITION_BYTES + 1))


def test_later_elements_are_ignored() -> None:
    body = msgpack.packb({ORIGIN: [1, 5, "from a later version"]})
    assert Position.decode(sealed(body)).ranges == {Origin(ORIGIN): Range(1, 5)}


@given(POSITIONS, JSON)
def test_an_annex_is_its_holders_own(position: Position, content: object) -> None:
    annex = msgpack.packb(content)
    encoded = position.encode(annex)
    assert Position.decode_with_annex(encoded) == (position, annex)
    assert Position.decode(encoded) == position
    assert Position.decode_with_annex(position.encode()) == (position, b"")


@pytest.mark.parametrize(
    ("annex", "what"), [(b"\x92\x01", "No more data"), (b"\x01\x02", "1 bytes follow"), (b"\xc1", "not msgpack")]
)
def test_an_annex_that_is_none(annex: bytes, what: str) -> None:
    with pytest.raises(PositionError, match=what):
        Position.decode(sealed(msgpack.packb({}) + annex))


def test_advancing() -> None:
    origin, other = Origin(ORIGIN), Origin(b"o" * 16)
    position = Position.empty()
    assert position.next_sequence(origin) == 0
    assert not position.covers(origin, 0, 1)
    position = position.advanced(origin, 3, 6)
    assert position.ranges == {origin: Range(3, 6)}
    assert position.covers(origin, 3, 3)
    assert not position.covers(origin, 3, 4)
    assert position.advanced(origin, 3, 5) is position, "it never moves back"
    assert position.advanced(origin, 6, 9).ranges == {origin: Range(3, 9)}
    assert position.next_sequence(other) == 0
