from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.encryption import encrypt
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import compressed_layer
from proglog_trio.membership.wire.memberlist import (
    DEFAULT_VSN,
    Ack,
    ErrorMessage,
    NodeState,
    Ping,
    PushPull,
    PushPullHeader,
    UserMessage,
    UserMessageHeader,
)
from proglog_trio.membership.wire.msgpack_structs import encode_struct
from proglog_trio.membership.wire.stream import StreamLimits, StreamMessage
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from tests.membership.wire.at_once import encode_stream
from tests.membership.wire.strategies import keyrings, labels, stream_messages

MIB = 1024 * 1024
KEYRING = Keyring((b"k" * 16,))
NODE = NodeState("a", b"\x7f\0\0\1", 7946, b"\xff\x80", 3, vsn=DEFAULT_VSN)
PUSH_PULL = PushPull((NODE, NODE), b"state", join=True)


def decode(data: bytes, **options: Keyring | bytes | bool | StreamLimits | None) -> StreamMessage:
    decoder = StreamDecoder(**options)  # type: ignore[arg-type]  # the tests below give the right ones
    message = decoder.feed(data)
    if message is None:
        decoder.end()
    assert message is not None
    return message


@given(
    stream_messages,
    st.none() | keyrings,
    labels,
    st.booleans(),
    st.booleans(),
    st.integers(1, 50),
    st.randoms(use_true_random=False),
)
def test_round_trip_in_pieces(
    message: StreamMessage,
    keyring: Keyring | None,
    label: bytes,
    from_dialler: bool,
    compress: bool,
    size: int,
    random: Random,
) -> None:
    data = encode_stream(
        message,
        keyring=keyring,
        label=label,
        from_dialler=from_dialler,
        compress=compress,
        random_bytes=random.randbytes,
    )
    decoder = StreamDecoder(keyring=keyring, label=label, from_dialler=from_dialler)
    for start in range(0, len(data) - size, size):
        assert decoder.feed(data[start : start + size]) is None
    last = (len(data) - 1) // size * size if len(data) > size else 0
    assert decoder.feed(data[last:]) == message
    assert decoder.feed(b"anything more") == message
    assert decoder.buffered_bytes == 0
    decoder.end()


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("keyring", [None, KEYRING])
def test_every_cut_is_noticed_at_the_end_only(keyring: Keyring | None, compress: bool) -> None:
    data = encode_stream(PUSH_PULL, keyring=keyring, compress=compress)
    for length in range(len(data)):
        decoder = StreamDecoder(keyring=keyring)
        assert decoder.feed(data[:length]) is None
        with pytest.raises(DecodingError, match=f"stream: ended after {length} bytes, before its message was whole"):
            decoder.end()


def test_the_order_of_the_layers() -> None:
    assert encode_stream(Ping(1, "a"), compress=False) == b"\x00\x82\xa4Node\xa1a\xa5SeqNo\x01"
    assert encode_stream(Ping(1, "a"))[0] == 9
    data = encode_stream(PUSH_PULL, keyring=KEYRING, label=b"blue")
    assert data[:7] == b"\xf4\x04blue\x0a"
    assert int.from_bytes(data[7:11], "big") == len(data) - 11
    assert encode_stream(PUSH_PULL, keyring=KEYRING, label=b"blue", from_dialler=False)[0] == 10


def test_node_states_are_not_held_as_bytes() -> None:
    decoder = StreamDecoder()
    node = encode_struct(NODE)
    decoder.feed(b"\x06" + encode_struct(PushPullHeader(1000, 0)))
    for _ in range(999):
        assert decoder.feed(node) is None
        assert decoder.buffered_bytes <= len(node)
    message = decoder.feed(node)
    assert message == PushPull((NODE,) * 1000)


def test_what_is_too_long_is_refused_before_it_comes() -> None:
    for data, problem in (
        (b"\x06" + encode_struct(PushPullHeader(0, 20 * MIB + 1)), "UserStateLen: is 20971521, more than 20971520"),
        (b"\x06" + encode_struct(PushPullHeader(16_385, 0)), "Nodes: is 16385, more than 16384"),
        (b"\x08" + encode_struct(UserMessageHeader(MIB + 1)), "UserMsgLen: is 1048577, more than 1048576"),
        (b"\x09\x82\xa4Algo\x00\xa3Buf\xdb\xff\xff\xff\xff", "compressed part: needs at least 42949673"),
        (b"\x09\x82\xa4Algo\x00\xa3Buf\xdb\x00\x80\x00\x00", "compressed part: needs at least 83886"),
        (b"\x00\x81\xa4Node\xdb\x00\x01\x00\x00", "ping message: needs at least 65547 bytes, there can be 65536"),
        (
            b"\x06" + encode_struct(PushPullHeader(5, 0)) + b"\x81\xa4Meta\xda\xff\xff",
            "node state 1 of 5: needs at least",
        ),
    ):
        decoder = StreamDecoder()
        with pytest.raises(DecodingError, match=problem):
            decoder.feed(data)
        assert decoder.buffered_bytes == 0
        with pytest.raises(DecodingError, match=problem):
            decoder.feed(b"more")
        with pytest.raises(DecodingError, match=problem):
            decoder.end()
    with pytest.raises(DecodingError, match="encrypted part: has 20971521 bytes, more than 20971520"):
        StreamDecoder(keyring=KEYRING).feed(b"\x0a\x01\x40\x00\x01")


def test_limits_can_be_lower() -> None:
    limits = StreamLimits(state_bytes=4, nodes=1, message_bytes=100)
    with pytest.raises(DecodingError, match="Nodes: is 2, more than 1"):
        decode(encode_stream(PUSH_PULL, compress=False), limits=limits)
    with pytest.raises(DecodingError, match="UserStateLen: is 5, more than 4"):
        decode(encode_stream(PushPull((), b"12345")), limits=limits)
    with pytest.raises(DecodingError, match="stream: compressed part: LZW data: holds more than 100 bytes"):
        decode(encode_stream(PushPull((), bytes(100))), limits=limits)
    assert decode(encode_stream(PushPull((), b"1234")), limits=limits) == PushPull((), b"1234")


def test_a_plain_message_is_bounded_as_a_whole() -> None:
    limits = StreamLimits(state_bytes=500, message_bytes=500)
    decoder = StreamDecoder(limits=limits)
    decoder.feed(b"\x06" + encode_struct(PushPullHeader(100, 0)))
    node = encode_struct(NODE)
    with pytest.raises(DecodingError, match=r"node state \d of 100: needs at least"):
        decoder.feed(node * 10)
    assert decoder.buffered_bytes == 0


def test_a_bomb_is_refused() -> None:
    bomb = compressed_layer(b"\x08" + bytes(2 * MIB))
    with pytest.raises(DecodingError, match="holds more than 1048576 bytes"):
        decode(bomb, limits=StreamLimits(message_bytes=MIB))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x05\x80", "stream: dead message: is none that a stream can carry here"),
        (b"\xfe", "stream: message of unknown type 254: is none that a stream can carry here"),
        (b"\xf4\x04blue\x00\x80", "stream: label: is of another cluster"),
        (b"\xf4\x00", "stream: label: is of another cluster"),
        (b"\x0a\x00\x00\x00\x20", "stream: is encrypted, and there is no keyring"),
        (compressed_layer(b""), "stream: compressed part: holds no bytes"),
        (compressed_layer(compressed_layer(b"\x00\x80")), "compressed part: compress message: is none that a stream"),
        (compressed_layer(b"\x06" + encode_struct(PushPullHeader(0, 5)) + b"1234"), "there can be 4 bytes"),
        (compressed_layer(b"\x00\x81"), "compressed part: ping message: needs at least 3 bytes, there can be 1"),
        (compressed_layer(b"\x00\x81\xa4No"), "compressed part: ping message: needs at least"),
        (b"\x09\x81\xa4Algo\x05", "stream: compressed part: Algo: is 5, not 0"),
        (b"\x00\x81\xa5SeqNo\xff", "stream: ping message: SeqNo: is -1"),
        (
            compressed_layer(b"\x06" + encode_struct(PushPullHeader(2, 0)) + encode_struct(NODE) + b"\x81\xa4Name"),
            "push_pull message: node state 2 of 2: needs at least",
        ),
    ],
)
def test_refuses(data: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decode(data)


def test_a_label_comes_from_the_dialler_only() -> None:
    data = encode_stream(Ack(1), label=b"blue")
    assert decode(data, label=b"blue") == Ack(1)
    for label in (b"red", b"grey", b""):
        with pytest.raises(DecodingError, match="label: is of another cluster"):
            decode(data, label=label)
    with pytest.raises(DecodingError, match="label: is missing"):
        decode(encode_stream(Ack(1)), label=b"blue")
    with pytest.raises(DecodingError, match="has_label message: is none that a stream can carry here"):
        decode(data, label=b"blue", from_dialler=False)


def test_a_keyring_keeps_others_out() -> None:
    data = encode_stream(PUSH_PULL, keyring=KEYRING, label=b"blue")
    assert decode(data, keyring=Keyring((b"o" * 24, *KEYRING.keys)), label=b"blue") == PUSH_PULL
    with pytest.raises(DecodingError, match="encrypted part: is not encrypted with any key"):
        decode(data, keyring=Keyring((b"o" * 24,)), label=b"blue")
    with pytest.raises(DecodingError, match="encrypted part: is not encrypted with any key"):
        decode(data.replace(b"blue", b"grey", 1), keyring=KEYRING, label=b"grey")
    with pytest.raises(DecodingError, match="stream: is not encrypted: it begins with a compress message"):
        decode(encode_stream(PUSH_PULL), keyring=KEYRING)


def test_the_length_is_bound_to_the_encryption() -> None:
    sealed = encrypt(b"\x00\x80", keyring=KEYRING, associated=b"\x0a\x00\x00\x00\x1e", nonce=bytes(12))
    with pytest.raises(DecodingError, match="not encrypted with any key"):
        decode(b"\x0a\x00\x00\x00\x1f" + sealed, keyring=KEYRING)


def test_an_error_message() -> None:
    assert decode(encode_stream(ErrorMessage("no such node"))) == ErrorMessage("no such node")


def test_does_not_send_what_nobody_takes() -> None:
    with pytest.raises(ValueError, match="20971521 bytes of user state are more than"):
        encode_stream(PushPull((), bytes(20 * MIB + 1)))
    with pytest.raises(ValueError, match="the user message has 1048577 bytes"):
        encode_stream(UserMessage(bytes(MIB + 1)))
    with pytest.raises(ValueError, match="the encrypted message has 209715"):
        encode_stream(PushPull((), bytes(20 * MIB)), keyring=KEYRING, compress=False)
    with pytest.raises(ValueError, match=r"NodeState\.vsn"):
        encode_stream(PushPull((NodeState("a"),)))


@pytest.mark.parametrize(
    "odd",
    [
        {b"Meta": b"m" * 600},
        {b"Addr": b"\x7f\0\0\1\1"},
        {b"Name": b"n" * 600},
        {b"Vsn": b"\1\5"},
        {b"Port": 70_000},
        {b"State": 9},
        {b"Incarnation": -1},
    ],
)
def test_one_odd_member_hides_no_other(odd: dict[bytes, object]) -> None:
    fields = msgpack.unpackb(encode_struct(NODE), raw=True)
    nodes = [encode_struct(NODE), msgpack.packb({**fields, **odd}, use_bin_type=False), encode_struct(NODE)]
    message = decode(b"\x06" + encode_struct(PushPullHeader(3, 4)) + b"".join(nodes) + b"1234")
    assert message == PushPull((NODE, NODE), b"1234", refused=1)
