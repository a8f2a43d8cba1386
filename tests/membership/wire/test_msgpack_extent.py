import math

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_extent import FEW_ITEMS, MAX_CONTAINERS, Extent, unpack
from tests.membership.wire.strategies import msgpack_objects

MANY_ITEMS = 1 << 22


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other) or (isinstance(one, float) and isinstance(other, float) and math.isnan(one))


@given(msgpack_objects, st.booleans(), st.binary(max_size=4), st.binary(max_size=4))
def test_measures_what_msgpack_writes(value: object, new_form: bool, before: bytes, after: bytes) -> None:
    packed = msgpack.packb(value, use_bin_type=new_form)
    data = before + packed + after
    extent = Extent(len(packed), MANY_ITEMS)
    assert extent.advance(data, len(before))
    assert extent.length == len(packed)
    assert same(unpack(data, len(before), extent.length), value)


@given(msgpack_objects)
def test_goes_on_where_it_stopped(value: object) -> None:
    packed = msgpack.packb(value, use_bin_type=False)
    extent = Extent(len(packed), MANY_ITEMS)
    for length in range(len(packed)):
        assert not extent.advance(packed[:length], 0)
    assert extent.advance(packed, 0)


@pytest.mark.parametrize(
    "packed",
    [
        msgpack.packb(value, use_bin_type=new_form)
        for new_form in (False, True)
        for value in (
            *(1, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63, -1, -32, -33, -128, -129, -32769, -(2**40)),
            *(b"", b"x" * 31, b"x" * 32, b"x" * 255, b"x" * 256, b"x" * 65536, "text", "x" * 300),
            *(
                [],
                [1] * 15,
                [1] * 16,
                [1] * 70000,
                {},
                {str(n): n for n in range(15)},
                {str(n): n for n in range(70000)},
            ),
            *(1.5, msgpack.Timestamp(5), msgpack.Timestamp(2**35, 7)),
            *(msgpack.ExtType(5, bytes(size)) for size in (0, 1, 2, 3, 4, 8, 16, 17, 300, 70000)),
        )
    ]
    + [b"\xca\x3f\x80\x00\x00"],
    ids=lambda packed: f"{packed[0]:02x}-{len(packed)}",
)
def test_every_form(packed: bytes) -> None:
    extent = Extent(len(packed), MANY_ITEMS)
    assert extent.advance(packed, 0)
    assert extent.length == len(packed)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xdd\xff\xff\xff\xff", "more than"),
        (b"\xdf\xff\xff\xff\xff", "more than"),
        (b"\xdc\x00\x64", "needs at least 103 bytes, there can be 100"),
        (b"\xde\x00\x41", f"byte 3: has more than {FEW_ITEMS} elements"),
        (b"\xdb\xff\xff\xff\xff", "needs at least 4294967300 bytes, there can be 100"),
        (b"\xc6\xff\xff\xff\xff", "needs at least"),
        (b"\xc9\xff\xff\xff\xff", "needs at least"),
        (b"\x91\xc1", "byte 1: byte 0xc1 is no msgpack"),
    ],
)
def test_refuses_at_once(data: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        Extent(100).advance(data, 0)


def test_refuses_what_multiplies_in_memory() -> None:
    maps = b"\xdd" + (MAX_CONTAINERS + 1).to_bytes(4, "big") + b"\x80" * (MAX_CONTAINERS + 1)
    with pytest.raises(DecodingError, match="more than"):
        Extent(len(maps), MANY_ITEMS).advance(maps, 0)
    with pytest.raises(DecodingError, match="more than"):
        Extent(2**40, MANY_ITEMS).advance(b"\xdd" + (MANY_ITEMS + 1).to_bytes(4, "big"), 0)


@pytest.mark.parametrize("data", [b"\x91" * 5000 + b"\x90", b"\x81\xa1a" * 5000 + b"\x80"])
def test_refuses_nesting(data: bytes) -> None:
    with pytest.raises(DecodingError, match="lists and maps"):
        Extent(len(data), MANY_ITEMS).advance(data, 0)


@pytest.mark.parametrize("data", [b"\x81\x01\x01", b"\x81\x90\x01"])
def test_unpack_refuses_odd_keys(data: bytes) -> None:
    extent = Extent(len(data), MANY_ITEMS)
    assert extent.advance(data, 0)
    with pytest.raises(DecodingError, match="is no msgpack"):
        unpack(data, 0, extent.length)
