from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.snapshot.lines import (
    MAX_LINE_BYTES,
    Clocks,
    HasLeft,
    Header,
    Line,
    LineDamaged,
    RememberedMember,
    decode_line,
    encode_line,
)
from tests.membership.snapshot.strategies import HEADERS, LINES

VERSION = bytes((1, 5, 2, 2, 5, 4))


@given(st.one_of(HEADERS, LINES))
def test_what_is_written_is_read_whatever_a_name_is(line: Line) -> None:
    encoded = encode_line(line)
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    assert encoded.isascii()
    assert decode_line(encoded[:-1]) == line


@given(st.binary(max_size=300))
def test_whatever_else_there_is_is_damage(data: bytes) -> None:
    with pytest.raises(LineDamaged):
        decode_line(data)


@given(st.one_of(HEADERS, LINES), st.data())
def test_a_changed_or_cut_line_is_damage(line: Line, data: st.DataObject) -> None:
    encoded = encode_line(line)[:-1]
    place = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(changed), encoded[:place]):
        with pytest.raises(LineDamaged):
            decode_line(damaged)


@given(st.text(), st.text(max_size=200))
def test_a_whole_line_of_nonsense_is_damage(word: str, value: str) -> None:
    with pytest.raises(LineDamaged):
        decode_line(_with_checksum(f"{word} {json.dumps(value)}".encode("utf-8", "surrogatepass")))


MEMBER = {
    "name": "b", "address": "10.0.0.2", "port": 8401, "tags": {"role": "web"}, "version": VERSION.hex(), "time": 7,
    "gone_at": 0, "answered": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""), ("name", "x" * 513), ("name", None), ("name", "\ud800"), ("address", "here"), ("address", 7),
        ("port", -1), ("port", 65_536), ("port", True), ("port", 1.5), ("tags", []), ("tags", {"role": 1}),
        ("version", "01"), ("version", "zz"), ("time", -1), ("time", 2**64), ("time", None), ("gone_at", 2**60),
        ("answered", 1),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_damage(key: str, value: object) -> None:
    assert decode_line(_with_checksum(b"alive " + json.dumps(MEMBER).encode())) == RememberedMember(
        "b", bytes((10, 0, 0, 2)), 8401, {"role": "web"}, MemberStatus.ALIVE, VERSION, 7, 0, has_answered=True
    )
    with pytest.raises(LineDamaged, match="nothing that is understood"):
        decode_line(_with_checksum(b"alive " + json.dumps({**MEMBER, key: value}).encode()))
    less = {name: value for name, value in MEMBER.items() if name != key}
    with pytest.raises(LineDamaged, match="nothing that is understood"):
        decode_line(_with_checksum(b"alive " + json.dumps(less).encode()))


def test_deep_and_long_lines_are_damage() -> None:
    with pytest.raises(LineDamaged):
        decode_line(_with_checksum(b"forgotten " + b"[" * 8000))
    with pytest.raises(LineDamaged):
        decode_line(_with_checksum(b"lived " + b"1" * 8000))
    with pytest.raises(LineDamaged, match="bytes"):
        decode_line(_with_checksum(b"forgotten " + b'"' + b"x" * MAX_LINE_BYTES + b'"'))


def test_the_longest_member_fits_into_a_line() -> None:
    # 512 bytes of a name, each six in JSON, and as many of tags.
    name = b"\x80" * 512
    member = RememberedMember(
        name.decode("utf-8", "surrogateescape"),
        bytes(16),
        65_535,
        {chr(1) * 255: chr(2) * 255},
        MemberStatus.FAILED,
        VERSION,
        2**64 - 1,
        2**53,
    )
    line = encode_line(member)
    assert len(line) <= MAX_LINE_BYTES
    assert decode_line(line[:-1]) == member


def test_lines_can_be_read_by_people() -> None:
    assert encode_line(Clocks(9, 3, 1))[9:] == b'clocks {"member":9,"event":3,"query":1}\n'
    assert encode_line(Header("9f", "orders"))[9:] == b'snapshot {"format":1,"owner":"9f","cluster":"orders"}\n'
    assert encode_line(HasLeft())[9:] == b"leave null\n"


def _with_checksum(text: bytes) -> bytes:
    return b"%08x %s" % (zlib.crc32(text), text)
