import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import compressed_layer
from proglog_trio.membership.wire.memberlist import (
    DEFAULT_VSN,
    Alive,
    Dead,
    Message,
    Nack,
    Ping,
    UserMessage,
    encode_message,
)
from proglog_trio.membership.wire.packet import encode_packets, packet_overhead
from tests.membership.wire.at_once import decode_packet
from tests.membership.wire.strategies import keyrings, labels, messages

KEYRING = Keyring((b"k" * 16,))
ALIVE = Alive(1, "a", b"\x7f\0\0\1", 7946, b"\xff\x80", DEFAULT_VSN)


@given(
    st.lists(messages, max_size=20),
    st.none() | keyrings,
    labels,
    st.booleans(),
    st.booleans(),
    st.integers(0, 1500),
    st.randoms(use_true_random=False),
)
def test_round_trip(
    some: list[Message],
    keyring: Keyring | None,
    label: bytes,
    checksum: bool,
    compress: bool,
    max_bytes: int,
    random: Random,
) -> None:
    packets = encode_packets(
        some,
        max_bytes=max_bytes,
        keyring=keyring,
        label=label,
        checksum=checksum,
        compress=compress,
        random_bytes=random.randbytes,
    )
    decoded: list[Message] = []
    overhead = packet_overhead(keyring=keyring, label=label, checksum=checksum)
    for packet in packets:
        contents = decode_packet(packet, keyring=keyring, label=label)
        assert not contents.errors
        decoded += contents.messages
        longest = max(len(encode_message(message)) for message in contents.messages)
        assert len(packet) <= max(max_bytes, longest + overhead)
        assert len(contents.messages) == 1 or len(packet) <= max_bytes
    assert decoded == some


def test_as_many_messages_in_a_packet_as_fit() -> None:
    part = encode_message(Nack(1))
    six = 2 + 6 * (2 + len(part))
    assert [len(packet) for packet in encode_packets([Nack(1)] * 14, max_bytes=six, compress=False)] == [six, six, 24]
    assert len(encode_packets([Nack(1)] * 12, max_bytes=six + 5, checksum=True, compress=False)) == 2
    assert len(encode_packets([Nack(1)] * 12, max_bytes=six + 4, checksum=True, compress=False)) == 3


def test_at_most_255_messages_in_a_packet() -> None:
    packets = encode_packets([Nack(1)] * 600, max_bytes=60_000)
    assert [len(decode_packet(packet).messages) for packet in packets] == [255, 255, 90]


def test_what_was_encoded_before_is_taken_as_it_is() -> None:
    assert encode_packets([encode_message(ALIVE)]) == encode_packets([ALIVE])


def test_a_message_that_is_too_large_for_a_packet_gets_its_own() -> None:
    large = UserMessage(bytes(range(256)) * 8)
    packets = encode_packets([Nack(1), large, Nack(2), Nack(3)], compress=False)
    assert [decode_packet(packet).messages for packet in packets] == [(Nack(1),), (large,), (Nack(2), Nack(3))]
    with pytest.raises(ValueError, match="a packet of 65508 bytes, more than 65507"):
        encode_packets([UserMessage(bytes(65507))], compress=False)


def test_only_what_gets_smaller_is_compressed() -> None:
    repetitive = UserMessage(b"again " * 100)
    assert encode_packets([repetitive])[0][0] == 9
    assert encode_packets([repetitive], compress=False)[0][0] == 8
    unrepeated = UserMessage(bytes(range(256)))
    assert encode_packets([unrepeated])[0] == encode_message(unrepeated)


def test_the_order_of_the_layers() -> None:
    packet = encode_packets([UserMessage(b"again " * 100)], checksum=True, label=b"blue")[0]
    assert packet[:6] == b"\xf4\x04blue"
    assert packet[6] == 12
    assert int.from_bytes(packet[7:11], "big") == zlib.crc32(packet[11:])
    assert packet[11] == 9


def test_one_bad_part_costs_only_itself() -> None:
    parts = [
        encode_message(Nack(1)),
        b"\xfe",
        encode_message(Nack(2)),
        b"",
        b"\x04\x80",
        b"\x07\x00",
        encode_message(Nack(3)),
    ]
    contents = decode_packet(encode_packets(parts)[0])
    assert contents.messages == (Nack(1), Nack(2), Nack(3))
    assert [str(error) for error in contents.errors] == [
        "packet: part 2 of 7: message of unknown type 254: is none that a packet can carry here",
        "packet: part 4 of 7: has no bytes",
        "packet: part 5 of 7: alive message: Addr: is missing",
        "packet: part 6 of 7: compound message: is none that a packet can carry here",
    ]


def test_the_parts_before_a_cut_are_kept() -> None:
    contents = decode_packet(encode_packets([Nack(1), Nack(2), Nack(3)], compress=False)[0][:-9])
    assert contents.messages == (Nack(1), Nack(2))
    assert [str(error) for error in contents.errors] == ["packet: part 3 of 3: is cut off after 0 of 9 bytes"]


def test_a_compound_packet_of_nothing() -> None:
    assert decode_packet(b"\x07\x00").messages == ()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "packet: has no bytes"),
        (b"\x07", "packet: compound: is cut off after 1 bytes"),
        (b"\x07\x02\x00\x01\x00", "packet: compound: is cut off after 5 bytes, in the lengths"),
        (b"\x0c\x00\x00", "packet: does not match its checksum"),
        (b"\x0c\x00\x00\x00\x00\x0b\x80", "packet: does not match its checksum"),
        (b"\x09\x80", "packet: compressed part: LZW data: has no end code"),
        (b"\x09\x81\xa4Algo\x01", "packet: compressed part: Algo: is 1, not 0"),
        (compressed_layer(compressed_layer(b"\x0b\x80")), "compress message: is none that a packet can carry here"),
        (compressed_layer(b"\x0c\x00\x00\x00\x00"), "has_crc message: is none that a packet can carry here"),
        (b"\x0a\x00\x00\x00\x00", "encrypt message: is none that a packet can carry here"),
        (b"\xf4", "packet: label: is empty or cut off"),
        (b"\xf4\x00\x0b\x80", "packet: label: is empty or cut off"),
        (b"\xf4\x05blue", "packet: label: is empty or cut off"),
        (b"\xf4\x04blue\x0b\x80", "packet: label: is of another cluster"),
    ],
)
def test_refuses(data: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decode_packet(data)


def test_a_label_keeps_others_out() -> None:
    packet = encode_packets([Nack(1)], label=b"blue")[0]
    assert decode_packet(packet, label=b"blue").messages == (Nack(1),)
    with pytest.raises(DecodingError, match="packet: label: is of another cluster"):
        decode_packet(packet, label=b"red")
    with pytest.raises(DecodingError, match="packet: label: is missing"):
        decode_packet(b"\x0b\x80", label=b"red")


def test_a_keyring_keeps_others_out() -> None:
    packet = encode_packets([Dead(1, "a", "b")], keyring=KEYRING, random_bytes=bytes)[0]
    assert decode_packet(packet, keyring=Keyring((b"o" * 32, *KEYRING.keys))).messages == (Dead(1, "a", "b"),)
    with pytest.raises(DecodingError, match="packet: encrypted part: is not encrypted with any key"):
        decode_packet(packet, keyring=Keyring((b"o" * 16,)))
    with pytest.raises(DecodingError, match="packet: encrypted part: "):
        decode_packet(encode_packets([Ping(1, "a" * 40)])[0], keyring=KEYRING)
    with pytest.raises(DecodingError, match="packet: "):
        decode_packet(packet)


def test_the_label_is_bound_to_the_encryption() -> None:
    packet = encode_packets([Nack(1)], keyring=KEYRING, label=b"blue")[0]
    with pytest.raises(DecodingError, match="is not encrypted with any key"):
        decode_packet(packet.replace(b"blue", b"grey", 1), keyring=KEYRING, label=b"grey")


def test_a_bomb_is_refused() -> None:
    bomb = compressed_layer(b"\x08" + bytes(64 * 1024))
    assert len(bomb) < 2000
    with pytest.raises(DecodingError, match="packet: compressed part: LZW data: holds more than 65536 bytes"):
        decode_packet(bomb)
