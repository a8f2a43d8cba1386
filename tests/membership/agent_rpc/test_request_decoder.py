from collections.abc import Sequence
from itertools import pairwise

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.agent_rpc.messages import COMMANDS, FireEvent, Handshake, encoded_answer
from proglog_trio.membership.agent_rpc.request_decoder import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    BodyMalformed,
    Request,
    RequestDecoder,
)
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_structs import encode_struct

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = {
    "str": TEXT,
    "bytes": st.binary(max_size=50),
    "bool": st.booleans(),
    "int": st.integers(0, 200),
    "tuple[str, ...]": st.lists(TEXT, max_size=5).map(tuple),
    "Mapping[str, str]": st.dictionaries(TEXT, TEXT, max_size=5),
}


@st.composite
def requests(draw: st.DrawFn) -> Request:
    command = draw(st.sampled_from(sorted(COMMANDS)))
    kind = COMMANDS[command]
    body = None if kind is None else kind(**{one.name: draw(VALUES[str(one.type)]) for one in attrs.fields(kind)})
    return Request(command, draw(st.integers(0, 2**64 - 1)), body)


def encoded(request: Request) -> bytes:
    header: bytes = msgpack.packb({"Command": request.command, "Seq": request.seq})
    return header + (b"" if request.body is None else encode_struct(request.body))


def decoded(data: bytes, cuts: Sequence[int] = ()) -> list[Request]:
    decoder = RequestDecoder()
    found = []
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(places):
        decoder.feed(data[start:stop])
        while (request := decoder.next()) is not None:
            found.append(request)
            if request.command not in COMMANDS:
                return found
    assert not decoder.is_amid or not data
    return found


@given(st.lists(requests(), max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
def test_requests_come_out_as_they_went_in_whatever_pieces_they_arrive_in(sent: list[Request], cuts: list[int]) -> None:
    assert decoded(b"".join(map(encoded, sent)), cuts) == sent


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_give_requests_or_a_decoding_error(data: bytes, cut: int) -> None:
    decoder = RequestDecoder()
    try:
        for piece in (data[:cut], data[cut:]):
            decoder.feed(piece)
            while (request := decoder.next()) is not None and request.command in COMMANDS:
                pass
    except DecodingError:
        pass


def test_newer_msgpack_is_read_as_well() -> None:
    body = msgpack.packb({"Name": "deploy", "Payload": b"\xff", "Coalesce": True, "Later": [1]}, use_bin_type=True)
    (request,) = decoded(msgpack.packb({"Command": "event", "Seq": 7}) + body)
    assert request == Request("event", 7, FireEvent("deploy", b"\xff", coalesce=True))


def test_a_body_may_be_nil() -> None:
    assert decoded(msgpack.packb({"Command": "handshake", "Seq": 1}) + b"\xc0") == [
        Request("handshake", 1, Handshake())
    ]


def test_nothing_is_read_after_an_unknown_command() -> None:
    assert decoded(msgpack.packb({"Command": "dance", "Seq": 1}) + b"\xc1") == [Request("dance", 1)]


def test_what_is_wrong_with_a_body_is_said_with_its_number() -> None:
    data = msgpack.packb({"Command": "event", "Seq": 9}) + msgpack.packb({"Name": 5})
    with pytest.raises(BodyMalformed, match="body of event: Name: is 5, no bytes") as caught:
        decoded(data)
    assert caught.value.seq == 9


def test_nothing_of_a_secret_is_told() -> None:
    data = msgpack.packb({"Command": "auth", "Seq": 9}) + msgpack.packb({"AuthKey": 123456})
    with pytest.raises(BodyMalformed) as caught:
        decoded(data)
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdb" + (MAX_HEADER_BYTES + 1).to_bytes(4, "big"),
        msgpack.packb({"Command": "event", "Seq": 1}) + b"\xdb" + (MAX_BODY_BYTES + 1).to_bytes(4, "big"),
        msgpack.packb({"Command": "event", "Seq": 1}) + b"\xdd\x00\x01\x00\x00",
        msgpack.packb({"Command": "x" * 65, "Seq": 1}),
        msgpack.packb({"Command": "event", "Seq": -1}),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["header", "body", "elements", "command", "number", "http"],
)
def test_what_is_too_large_is_refused_where_its_length_stands(data: bytes) -> None:
    with pytest.raises(DecodingError):
        decoded(data)


def test_an_answer_is_a_header_and_a_body() -> None:
    unpacker = msgpack.Unpacker()
    unpacker.feed(encoded_answer(3, Handshake(1), error="no"))
    assert list(unpacker) == [{"Seq": 3, "Error": "no"}, {"Version": 1}]
