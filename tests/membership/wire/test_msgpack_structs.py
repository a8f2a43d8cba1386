import math
from enum import IntEnum

import msgpack
import pytest
from attrs import frozen

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_structs import (
    Boolean,
    Enumeration,
    Floating,
    Nested,
    Raw,
    Sequence,
    Table,
    Text,
    Unsigned,
    decode_struct,
    encode_struct,
    wire,
)


class Colour(IntEnum):
    RED = 0
    BLUE = 1


COLOUR = Enumeration(Colour)


@frozen
class Inner:
    number: int = wire("Number", Unsigned(8))


INNER = Nested(Inner)


@frozen
class Outer:
    zulu: int = wire("Zulu", Unsigned(16))
    alpha: str = wire("Alpha", Text(8))
    flag: bool = wire("Flag", Boolean())
    share: float = wire("Share", Floating())
    data: bytes = wire("Data", Raw(4))
    colour: Colour = wire("Colour", COLOUR)  # noqa: RUF009 - declares, gives no value
    inner: Inner = wire("Inner", INNER)  # noqa: RUF009 - declares, gives no value
    some: tuple[Inner | None, ...] = wire("Some", Sequence(Nested(Inner), holes=True))
    table: dict[str, int] = wire("Table", Table(Unsigned(8)))  # noqa: RUF009 - declares, gives no value
    rare: int = wire("Rare", Unsigned(8), omit_zero=True)


@frozen
class Placed:
    place: bytes = wire("Place", Raw(lengths=(2, 4)))


FULL = Outer(7, "ä", True, 0.5, b"\xff", Colour.BLUE, Inner(3), (Inner(1), None), {"b": 2, "a": 1}, 9)


def decode(value: object) -> Outer:
    data = msgpack.packb(value, use_bin_type=False)
    outer, end = decode_struct(Outer, data)
    assert end == len(data)
    return outer


def test_round_trip() -> None:
    assert decode_struct(Outer, encode_struct(FULL))[0] == FULL


def test_keys_are_in_alphabetical_order_and_all_raw_is_old() -> None:
    unpacked = msgpack.unpackb(encode_struct(Outer(alpha="x" * 8, data=b"1234")), raw=True)
    assert list(unpacked) == [b"Alpha", b"Colour", b"Data", b"Flag", b"Inner", b"Share", b"Some", b"Table", b"Zulu"]
    assert encode_struct(Placed(b"1234")) == b"\x81\xa5Place\xa41234"


def test_missing_keys_and_nil_are_zero_values_and_unknown_keys_are_ignored() -> None:
    assert decode({}) == Outer()
    assert decode({"Unknown": [{"deep": {}}], "Zulu": 5}) == Outer(5)
    keys = ("Zulu", "Alpha", "Flag", "Share", "Data", "Colour", "Inner", "Some", "Table", "Rare")
    assert decode(dict.fromkeys(keys)) == Outer()
    assert decode({"Table": {"a": None}, "Some": [None, {}]}) == Outer(table={"a": 0}, some=(None, Inner()))
    assert Outer().table is not Outer().table


def test_the_last_of_two_equal_keys_counts() -> None:
    data = b"\x82\xa4Zulu\x01\xa4Zulu\x02"
    assert decode_struct(Outer, data) == (Outer(2), len(data))


def test_text_of_any_bytes_survives() -> None:
    outer = decode({"Alpha": b"\xff\xc3("})
    assert outer.alpha == "\udcff\udcc3("
    assert msgpack.unpackb(encode_struct(outer), raw=True)[b"Alpha"] == b"\xff\xc3("


def test_integers_may_stand_for_floating_numbers_and_be_of_any_width() -> None:
    assert decode({"Share": 3}).share == 3.0
    assert decode_struct(Outer, b"\x81\xa4Zulu\xd3\0\0\0\0\0\0\0\x05")[0].zulu == 5


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "is 7, no map"),
        (None, "is None, no map"),
        ({"Zulu": 65536}, "Zulu: is 65536, not from 0 to 65535"),
        ({"Zulu": -1}, "Zulu: is -1, not from 0 to 65535"),
        ({"Zulu": True}, "Zulu: is True, no integer"),
        ({"Zulu": 1.0}, "Zulu: is 1.0, no integer"),
        ({"Zulu": b"1" * 99}, r"Zulu: is b'1{40}'…, no integer"),
        ({"Alpha": "123456789"}, "Alpha: has 9 bytes, more than 8"),
        ({"Alpha": 1}, "Alpha: is 1, no bytes"),
        ({"Flag": 1}, "Flag: is 1, neither true nor false"),
        ({"Share": math.nan}, "Share: is nan, no finite number"),
        ({"Share": -math.inf}, "Share: is -inf, no finite number"),
        ({"Share": True}, "Share: is True, no finite number"),
        ({"Data": b"12345"}, "Data: has 5 bytes, more than 4"),
        ({"Colour": 2}, "Colour: is 2, none of <Colour.RED: 0>, <Colour.BLUE: 1>"),
        ({"Colour": 1.0}, "Colour: is 1.0, no integer"),
        ({"Inner": {"Number": 256}}, "Inner: Number: is 256, not from 0 to 255"),
        ({"Some": {}}, "Some: is a dict of 0, no list"),
        ({"Some": [{}, {"Number": -1}]}, "Some: element 1: Number: is -1"),
        ({"Table": []}, r"Table: is a list of 0, no map"),
        ({"Table": {"key": "x"}}, "Table: 'key': is b'x', no integer"),
    ],
)
def test_refuses(value: object, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decode(value)


def test_a_field_without_a_zero_value_is_required() -> None:
    for data in (b"\x80", b"\x81\xa5Place\xc0"):
        with pytest.raises(DecodingError, match="Place: is missing"):
            decode_struct(Placed, data)
    with pytest.raises(DecodingError, match="Place: has 3 bytes, not 2 or 4"):
        decode_struct(Placed, b"\x81\xa5Place\xa3abc")


def test_refuses_what_is_cut_off() -> None:
    data = encode_struct(FULL)
    for length in range(len(data)):
        with pytest.raises(DecodingError, match=r"is cut off|needs at least"):
            decode_struct(Outer, data[:length])


@pytest.mark.parametrize(
    ("struct", "problem"),
    [
        (Outer(zulu=65536), "Outer.zulu: 65536 is not from 0 to 65535"),
        (Outer(alpha="123456789"), "Outer.alpha: has 9 bytes, more than 8"),
        (Outer(alpha="\ud800"), "Outer.alpha: .*surrogates not allowed"),
        (Outer(share=math.nan), "Outer.share: nan is not finite"),
        (Outer(inner=Inner(-1)), "Outer.inner: Inner.number: -1 is not from 0 to 255"),
        (Placed(), "Placed.place: has 0 bytes, not 2 or 4"),
    ],
)
def test_does_not_send(struct: Outer | Placed, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        encode_struct(struct)


def test_the_error_says_where() -> None:
    with pytest.raises(DecodingError) as caught:
        decode({"Inner": {"Number": 256}})
    assert caught.value.where == ("Inner", "Number")
    assert caught.value.what == "is 256, not from 0 to 255"
    assert str(caught.value.within("packet")) == "packet: Inner: Number: is 256, not from 0 to 255"
