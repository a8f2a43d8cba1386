import msgpack
import pytest
from hypothesis import given

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import (
    DEFAULT_VSN,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Ping,
    UserMessage,
    decode_message,
    encode_message,
)
from tests.membership.wire.strategies import messages

ALIVE = {"Incarnation": 1, "Node": "a", "Addr": b"\x7f\0\0\1", "Port": 7946, "Meta": None, "Vsn": DEFAULT_VSN}


def packed(number: int, value: object) -> bytes:
    return bytes((number,)) + bytes(msgpack.packb(value, use_bin_type=False))


@given(messages)
def test_round_trip(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


def test_a_ping_without_source_does_not_send_it() -> None:
    assert encode_message(Ping(7, "b")) == b"\x00\x82\xa4Node\xa1b\xa5SeqNo\x07"


def test_bytes_after_a_message_are_ignored() -> None:
    assert decode_message(encode_message(Dead(1, "a", "b")) + b"more") == Dead(1, "a", "b")


def test_a_user_message_is_everything_to_the_end() -> None:
    assert decode_message(b"\x08\x00\x01") == UserMessage(b"\x00\x01")


def test_an_alive_message_of_an_agent() -> None:
    assert decode_message(packed(4, ALIVE)) == Alive(1, "a", b"\x7f\0\0\1", 7946, b"", DEFAULT_VSN)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "has no bytes"),
        (b"\x00", "ping message: needs at least 1 bytes, there can be 0"),
        (b"\xfe", "message of unknown type 254: is none that a packet can carry here"),
        (b"\x06\x80", "push_pull message: is none that a packet can carry here"),
        (b"\x07\x00", "compound message: is none that a packet can carry here"),
        (b"\x0d\x80", "err message: is none that a packet can carry here"),
        (packed(4, ALIVE | {"Vsn": b"\1\5\2"}), "alive message: Vsn: has 3 bytes, not 6"),
        (packed(4, ALIVE | {"Vsn": None}), "alive message: Vsn: is missing"),
        (packed(4, ALIVE | {"Addr": b"12345"}), "alive message: Addr: has 5 bytes, not 4 or 16"),
        (packed(4, ALIVE | {"Meta": bytes(513)}), "alive message: Meta: has 513 bytes, more than 512"),
        (packed(4, ALIVE | {"Node": "n" * 513}), "alive message: Node: has 513 bytes, more than 512"),
        (packed(4, ALIVE | {"Port": 65536}), "alive message: Port: is 65536"),
        (packed(4, ALIVE | {"Incarnation": 2**32}), "alive message: Incarnation: is 4294967296"),
        (packed(1, {"SeqNo": 1}), "indirect_ping message: Target: is missing"),
        (packed(0, {"SourceAddr": b"1"}), "ping message: SourceAddr: has 1 bytes, not 0 or 4 or 16"),
        (packed(0, [1]), r"ping message: is a list of 1, no map"),
    ],
)
def test_refuses(data: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decode_message(data)


@pytest.mark.parametrize(
    "message", [Alive(1, "a", b"", 1, b"", DEFAULT_VSN), Ping(-1), IndirectPing(1, b"1234", 2**16)]
)
def test_does_not_send_what_nobody_takes(message: Message) -> None:
    with pytest.raises(ValueError, match=r"Alive.addr|Ping.seq_no|IndirectPing.port"):
        encode_message(message)
