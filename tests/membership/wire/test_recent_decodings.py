from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import (
    BROADCAST_TYPES,
    Alive,
    Message,
    Ping,
    UserMessage,
    decode_message,
    encode_message,
)
from proglog_trio.membership.wire.packet import decode_packet_steps, encode_packets
from proglog_trio.membership.wire.recent_decodings import MAX_DECODINGS, MAX_KEPT_BYTES, RecentDecodings
from proglog_trio.steps import complete
from tests.membership.wire.strategies import messages as any_messages


def alive(number: int, meta: bytes = b"") -> Alive:
    return Alive(incarnation=number, node="a", addr=b"\x7f\0\0\1", port=1, meta=meta, vsn=bytes((1, 5, 2, 2, 5, 4)))


class Counted:
    """decode_message, and how often it was called with what."""

    def __init__(self) -> None:
        self.calls = Counter[bytes]()
        self.recent: RecentDecodings[Message] = RecentDecodings(self._decode, BROADCAST_TYPES)

    def _decode(self, data: bytes) -> Message:
        self.calls[data] += 1
        return decode_message(data)


@given(st.lists(st.tuples(st.binary(max_size=60) | any_messages.map(encode_message), st.integers(1, 3)), max_size=20))
def test_it_says_what_the_decoder_says_however_often(wanted: list[tuple[bytes, int]]) -> None:
    counted = Counted()
    for data, times in wanted:
        expected = _said(decode_message, data)
        for _ in range(times):
            assert _said(counted.recent, data) == expected


def _said(decode: Callable[[bytes], Message], data: bytes) -> Message | str:
    try:
        return decode(data)
    except DecodingError as error:
        return str(error)


def test_a_broadcast_is_read_once() -> None:
    counted = Counted()
    data = encode_message(alive(1))
    assert counted.recent(data) is counted.recent(data)
    assert counted.calls[data] == 1


@pytest.mark.parametrize("message", [Ping(seq_no=1, node="a"), UserMessage(b"x")])
def test_what_comes_once_is_not_kept(message: Message) -> None:
    counted = Counted()
    data = encode_message(message)
    counted.recent(data)
    counted.recent(data)
    assert counted.calls[data] == 2


def test_what_is_kept_is_bounded_and_the_newest() -> None:
    counted = Counted()
    messages = [encode_message(alive(number)) for number in range(MAX_DECODINGS + 1)]
    for data in messages:
        counted.recent(data)
    counted.recent(messages[-1])
    counted.recent(messages[1])
    assert counted.calls[messages[-1]] == counted.calls[messages[1]] == 1
    counted.recent(messages[0])
    assert counted.calls[messages[0]] == 2


def test_what_is_too_large_for_a_packet_is_not_kept() -> None:
    counted = Counted()
    # What follows a message's body is ignored, and need not be the same.
    data = encode_message(alive(1)) + bytes(MAX_KEPT_BYTES)
    for _ in range(2):
        assert counted.recent(data) == alive(1)
    assert counted.calls[data] == 2


@given(st.lists(any_messages, min_size=1, max_size=8))
def test_packets_are_read_by_it(messages: list[Message]) -> None:
    recent = RecentDecodings(decode_message, BROADCAST_TYPES)
    for packet in encode_packets(messages) * 2:
        assert complete(decode_packet_steps(packet, decode=recent)) == complete(decode_packet_steps(packet))
