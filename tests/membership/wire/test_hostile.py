"""Any bytes at all: only our error comes out, in bounded memory."""

import time
import tracemalloc
from contextlib import suppress
from random import Random

import attrs
import msgpack
import pytest
from attrs import AttrsInstance
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.coordinates import decode_ack_payload
from proglog_trio.membership.wire.encryption import encrypt
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import compressed_layer
from proglog_trio.membership.wire.memberlist import MESSAGE_CLASSES, NodeState, PushPullHeader
from proglog_trio.membership.wire.msgpack_structs import encode_struct
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import _CLASSES, Member, decode_serf, encode_serf
from proglog_trio.membership.wire.stream import StreamLimits
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.membership.wire.tags import decode_tags
from tests.membership.wire.at_once import decode_packet, encode_stream
from tests.membership.wire.strategies import messages, mutations, serf_messages, stream_messages, wrong_maps

KEYRING = Keyring((b"k" * 16,))
MIB = 1024 * 1024


def keys_of(struct: type[AttrsInstance]) -> list[str]:
    return [attribute.metadata["wire"][0] for attribute in attrs.fields(struct)]


KEYS = {
    **{number: keys_of(message) for number, message in MESSAGE_CLASSES.items()},
    6: ["Nodes", "UserStateLen", "Join"],
    9: ["Algo", "Buf"],
    13: ["Error"],
}
SERF_KEYS = {
    **{number: keys_of(message) for number, message in _CLASSES.items()},
    6: keys_of(Member),
    9: ["DestAddr", "DestName"],
}
wrong_messages = st.sampled_from(sorted(KEYS)).flatmap(
    lambda number: wrong_maps(KEYS[number]).map(
        lambda value: bytes((number,)) + bytes(msgpack.packb(value, use_bin_type=False))
    )
)
wrong_serf_messages = st.sampled_from(sorted(SERF_KEYS)).flatmap(
    lambda number: wrong_maps(SERF_KEYS[number]).map(
        lambda value: bytes((number,)) + bytes(msgpack.packb(value, use_bin_type=False))
    )
)
any_packets = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda number, rest: bytes((number,)) + rest, st.integers(0, 13) | st.just(244), st.binary(max_size=60)),
    wrong_messages,
    mutations(
        st.lists(messages, min_size=1, max_size=4).flatmap(
            lambda some: st.sampled_from((False, True)).map(lambda flag: encode_packets(some, compress=flag)[0])
        )
    ),
)
any_streams = st.one_of(
    any_packets, mutations(st.builds(lambda m, c: encode_stream(m, compress=c), stream_messages, st.booleans()))
)


@given(any_packets, st.booleans(), st.booleans())
def test_packets(data: bytes, encrypted: bool, compressed: bool) -> None:
    if compressed:
        data = compressed_layer(data)
    if encrypted:
        data = encrypt(data, keyring=KEYRING, associated=b"", nonce=bytes(12))
    try:
        contents = decode_packet(data, keyring=KEYRING if encrypted else None)
    except DecodingError as error:
        assert str(error).startswith("packet: ")  # noqa: PT017 - that nothing is raised is right as well
    else:
        assert all(isinstance(error, DecodingError) for error in contents.errors)


@given(any_streams, st.booleans(), st.booleans(), st.integers(1, 40))
def test_streams(data: bytes, encrypted: bool, compressed: bool, size: int) -> None:
    if compressed:
        data = compressed_layer(data)
    if encrypted:
        header = b"\x0a" + (len(data) + 29).to_bytes(4, "big")
        data = header + encrypt(data, keyring=KEYRING, associated=header, nonce=bytes(12))
    whole = StreamDecoder(keyring=KEYRING if encrypted else None)
    pieces = StreamDecoder(keyring=KEYRING if encrypted else None)
    results = []
    for decoder, step in ((whole, len(data) or 1), (pieces, size)):
        message = None
        try:
            for start in range(0, len(data), step):
                message = decoder.feed(data[start : start + step])
            decoder.end()
        except DecodingError as error:
            results.append(str(error))
        else:
            results.append(repr(message))
        assert decoder.buffered_bytes == 0
    if "there can be" not in results[0]:  # how much is missing is seen at different places
        assert results[0] == results[1]


@given(
    st.one_of(
        st.binary(max_size=100),
        st.builds(lambda number, rest: bytes((number,)) + rest, st.integers(0, 10), st.binary(max_size=60)),
        wrong_serf_messages,
        mutations(serf_messages.map(encode_serf)),
    )
)
def test_serf_messages(data: bytes) -> None:
    for decode in (decode_serf, decode_tags, decode_ack_payload):
        try:
            decode(data)
        except DecodingError as error:
            assert error.where  # noqa: PT017 - that nothing is raised is right as well


NESTED = [
    b"\x91" * 60_000,
    b"\x81\xa1a" * 20_000,
    b"\xdc\xff\xff" * 20_000,
    b"\xdd\xff\xff\xff\xff" * 12_000,
    b"\xdf\xff\xff\xff\xff" * 12_000,
    b"\xdb\xff\xff\xff\xff",
    b"\xdc\xff\x00" + b"\x80" * 0xFF00,
    b"\xdc\x80\x00" + b"\xdc\x00\x00" * 10_000,
    b"\xc9\xff\xff\xff\xff\x00",
    b"\xc1" * 100,
    b"\x9f" * 60_000,
]


@pytest.mark.parametrize("value", NESTED, ids=[value[:6].hex() for value in NESTED])
def test_a_packet_cannot_ask_for_much(value: bytes) -> None:
    packets = [prefix + value for prefix in (b"\x00\x81\xa7Unknown", b"\x08\x02\x81\xa6Events", b"\x02\x81\xa7Payload")]
    packets += map(compressed_layer, packets[:])
    started = time.process_time()
    tracemalloc.start()
    try:
        for data in packets:
            with suppress(DecodingError):
                decode_packet(data)
                decode_serf(data[1:])
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 10


def test_a_stream_cannot_ask_for_much() -> None:
    """Streams of a quarter of a mebibyte, of what is larger in memory than on the wire."""
    node = encode_struct(NodeState(vsn=b"\1\5\2\2\5\4"))
    small = b"\x81\xa3Vsn\xa6\1\5\2\2\5\4"
    size = MIB // 4
    count = size // len(small)
    streams = [
        b"\x06" + encode_struct(PushPullHeader(count, 0)) + small * count,
        b"\x06" + encode_struct(PushPullHeader(size, 0)) + b"\x80" * size,
        b"\x06" + encode_struct(PushPullHeader(size, 0)) + node,
        b"\x09\x81\xa1a\xdd\x00\x04\x00\x00" + b"\x80" * size,
        b"\x00\x81\xa1a\xdd\x00\x04\x00\x00" + b"\x80" * size,
    ]
    for data in streams:
        tracemalloc.start()
        try:
            decoder = StreamDecoder()
            with suppress(DecodingError):
                for start in range(0, len(data), 65536):
                    decoder.feed(data[start : start + 65536])
                    assert decoder.buffered_bytes <= 2 * 65536
                decoder.end()
            assert decoder.buffered_bytes == 0
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * MIB


def test_random_streams_never_hold_more_than_their_bound() -> None:
    generator = Random(11)
    limits = StreamLimits(state_bytes=4096, nodes=100, message_bytes=8192)
    for _ in range(300):
        decoder = StreamDecoder(limits=limits)
        data = (
            bytes((generator.choice((0, 2, 6, 8, 9, 13)),)) + b"\x81\xa3Buf\xdb\x00\x00" + generator.randbytes(20_000)
        )
        with suppress(DecodingError):
            for start in range(0, len(data), 512):
                decoder.feed(data[start : start + 512])
                assert decoder.buffered_bytes <= 8192 + 512
            decoder.end()
        assert decoder.buffered_bytes == 0
