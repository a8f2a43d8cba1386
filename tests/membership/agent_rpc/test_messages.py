"""Answers in their bytes: the form of msgpack that agents use, whatever members call themselves."""

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership import Coordinate
from proglog_trio.membership.agent_rpc.messages import (
    CoordinateReport,
    MemberEventRecord,
    MemberRecord,
    QueryRecord,
    UserEventRecord,
    encoded,
    encoded_answer,
)

# Any bytes, as what is no UTF-8 is kept.
TEXT = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
MEMBERS = st.builds(
    MemberRecord,
    name=TEXT,
    addr=st.binary(min_size=4, max_size=16),
    port=st.integers(0, 65535),
    tags=st.dictionaries(TEXT, TEXT, max_size=4),
    status=st.sampled_from(["alive", "left"]),
    protocol_min=st.integers(0, 255),
)


def read(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", strict_map_key=False)
    unpacker.feed(data)
    return list(unpacker)


@given(st.lists(MEMBERS, min_size=1, max_size=3), st.integers(0, 2**64 - 1), TEXT)
def test_answers_are_read_as_they_were_written(members: list[MemberRecord], seq: int, error: str) -> None:
    header, body = read(encoded_answer(seq, MemberEventRecord("member-join", tuple(members)), error=error))
    assert header == {"Seq": seq, "Error": error}
    assert body["Event"] == "member-join"
    for written, found in zip(members, body["Members"], strict=True):
        assert (found["Name"], found["Addr"], found["Tags"]) == (written.name, written.addr, written.tags)
        assert (found["Port"], found["ProtocolMin"], found["Status"]) == (
            written.port,
            written.protocol_min,
            written.status,
        )


def test_byte_strings_are_bin_and_empty_ones_nil() -> None:
    assert encoded(QueryRecord("done")) == b"\x83\xa4Type\xa4done\xa4From\xa0\xa7Payload\xc0"
    event = UserEventRecord("user", 1, "x", b"p", coalesce=False)
    assert b"\xa7Payload\xc4\x01p" in encoded(event)
    assert b"\xa4Name\xa1x" in encoded(event)


def test_an_unknown_place_has_no_vector() -> None:
    assert read(encoded(CoordinateReport()))[0] == {
        "Ok": False,
        "Coord": {"Vec": None, "Error": 0.0, "Adjustment": 0.0, "Height": 0.0},
    }
    known = CoordinateReport(Coordinate((0.5,) * 8, 1.5, 0.0, 0.1), ok=True)
    assert read(encoded(known))[0]["Coord"]["Vec"] == [0.5] * 8
