"""Packets and streams where there is a keyring, and what is not encrypted is taken all the same."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import Ack, IndirectPing, Message, Ping
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.stream import StreamMessage
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from tests.membership.wire.at_once import decode_packet, encode_stream
from tests.membership.wire.strategies import labels, messages, stream_messages

MINE, OTHER = Keyring((bytes(range(16)), bytes(32))), Keyring((b"x" * 16,))


@given(st.lists(messages, min_size=1, max_size=5), labels, st.booleans(), st.booleans())
def test_packets_are_read_whether_they_are_encrypted_or_not(
    sent: list[Message], label: bytes, encrypted: bool, checksum: bool
) -> None:
    keyring = MINE if encrypted else None
    for packet in encode_packets(sent, keyring=keyring, label=label, checksum=checksum):
        read = decode_packet(packet, keyring=MINE, label=label, verify=False)
        assert read.was_plain != encrypted
        assert read.messages == decode_packet(packet, keyring=keyring, label=label).messages
        if not encrypted:
            with pytest.raises(DecodingError):
                decode_packet(packet, keyring=MINE, label=label)


@pytest.mark.parametrize("length", [0, 1, 12, 200])
def test_a_plain_ping_looks_like_an_encrypted_packet_and_is_read(length: int) -> None:
    """Its type is the number of a version of the encryption."""
    for ping in (Ping(1, "n" * length), IndirectPing(1, bytes(4), 1, "n" * length, nack=True)):
        (packet,) = encode_packets([ping], compress=False)
        assert packet[0] in (0, 1)
        assert decode_packet(packet, keyring=MINE, verify=False).messages == (ping,)


@given(st.lists(messages, min_size=1, max_size=3))
def test_a_packet_with_another_key_is_said_to_be_one(sent: list[Message]) -> None:
    for packet in encode_packets(sent, keyring=OTHER):
        with pytest.raises(NotDecrypted, match="not encrypted with any key"):
            decode_packet(packet, keyring=MINE, verify=False)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x00")
@example(b"\x01" + bytes(40))
def test_of_any_bytes_only_our_own_error_comes(data: bytes) -> None:
    with contextlib.suppress(DecodingError):
        decode_packet(data, keyring=MINE, verify=False)
    decoder = StreamDecoder(keyring=MINE, verify=False)
    with contextlib.suppress(DecodingError):
        decoder.feed(data)


@given(stream_messages, labels, st.booleans(), st.booleans())
def test_streams_are_read_whether_they_are_encrypted_or_not(
    message: StreamMessage, label: bytes, encrypted: bool, from_dialler: bool
) -> None:
    data = encode_stream(message, keyring=MINE if encrypted else None, label=label, from_dialler=from_dialler)
    decoder = StreamDecoder(keyring=MINE, label=label, from_dialler=from_dialler, verify=False)
    assert decoder.feed(data) == message
    assert decoder.was_plain != encrypted
    if not encrypted:
        with pytest.raises(NotDecrypted):
            StreamDecoder(keyring=MINE, label=label, from_dialler=from_dialler).feed(data)


def test_a_stream_with_another_key_is_refused() -> None:
    with pytest.raises(NotDecrypted):
        StreamDecoder(keyring=MINE, verify=False).feed(encode_stream(Ack(1, b""), keyring=OTHER))
