import msgpack
import pytest
from hypothesis import given

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.serf import (
    ConflictResponse,
    Join,
    KeyRequest,
    Member,
    NodeFilter,
    Query,
    Relay,
    RelayAddress,
    RelayHeader,
    SerfMessage,
    TagFilter,
    UnknownFilter,
    decode_serf,
    encode_serf,
)
from proglog_trio.membership.wire.state import SerfPushPull
from tests.membership.wire.strategies import serf_messages


def packed(number: int, value: object) -> bytes:
    return bytes((number,)) + bytes(msgpack.packb(value, use_bin_type=False))


@given(serf_messages)
def test_round_trip(message: SerfMessage) -> None:
    assert decode_serf(encode_serf(message)) == message


def test_filters() -> None:
    sent = [
        b"\0" + msgpack.packb(["a", "b"]),
        b"\1" + msgpack.packb({"Tag": "role", "Expr": "^web"}),
        b"\7new",
        b"\0\xc0",
    ]
    query = decode_serf(packed(4, {"ID": 5, "Filters": sent}))
    assert query == Query(
        id=5, filters=(NodeFilter(("a", "b")), TagFilter("role", "^web"), UnknownFilter(b"\7new"), NodeFilter())
    )


def test_nobody_is_known_under_a_contested_name() -> None:
    assert decode_serf(b"\x06\xc0") == ConflictResponse(None)
    assert encode_serf(ConflictResponse()) == b"\x06\xc0"
    assert decode_serf(b"\x06\x80") == ConflictResponse(Member())


def test_a_relayed_message_is_what_follows_the_header() -> None:
    message = encode_serf(Join(3, "a"))
    relay = Relay(RelayHeader(RelayAddress(b"\x0a\0\0\1", 7946), "b"), message)
    decoded = decode_serf(encode_serf(relay))
    assert decoded == relay
    assert isinstance(decoded, Relay)
    assert decode_serf(decoded.payload) == Join(3, "a")


def test_nil_for_everything() -> None:
    keys = ("LTime", "StatusLTimes", "LeftMembers", "EventLTime", "Events", "QueryLTime")
    assert decode_serf(packed(2, dict.fromkeys(keys))) == SerfPushPull()


def test_a_key_is_raw_bytes() -> None:
    assert decode_serf(packed(7, {"Key": bytes(range(16))})) == KeyRequest(bytes(range(16)))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Serf message: has no bytes"),
        (b"\x0a\x80", "Serf message: is of unknown type 10"),
        (b"\x00", "Serf leave message: needs at least 1 bytes"),
        (packed(1, {"LTime": -1}), "Serf join message: LTime: is -1"),
        (packed(4, {"ID": 2**32}), "Serf query message: ID: is 4294967296"),
        (packed(4, {"RelayFactor": 256}), "Serf query message: RelayFactor: is 256"),
        (packed(4, {"Timeout": -1}), "Serf query message: Timeout: is -1"),
        (packed(4, {"Filters": [b"\0\x01"]}), "Serf query message: Filters: element 0: is 1, no list"),
        (packed(4, {"Filters": [b"\1"]}), "Serf query message: Filters: element 0: needs at least"),
        (packed(2, {"Events": [None, {"Events": [{"Name": 1}]}]}), "Events: element 1: Events: element 0: Name: is 1"),
        (packed(2, {"StatusLTimes": {"a": 2**64 - 1, "b": "x"}}), "StatusLTimes: 'b': is b'x', no integer"),
        (packed(6, {"Status": 9}), "Serf conflict_response message: Status: is 9"),
        (packed(9, {"DestName": "b"}), "Serf relay message: DestAddr: is missing"),
        (packed(9, {"DestAddr": {"IP": b"1"}}), "Serf relay message: DestAddr: IP: has 1 bytes"),
    ],
)
def test_refuses(data: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decode_serf(data)
