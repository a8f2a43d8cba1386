from __future__ import annotations

import pytest

from proglog_trio.membership.serf.spreading import MAX_STREAMED_BYTES
from proglog_trio.membership.swim.effects import SendByStream, SendPacket
from proglog_trio.membership.wire.memberlist import UserMessage, decode_message
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import QueryResponse, Relay, UserEvent, decode_serf, encode_serf
from tests.membership.serf.cores import HERE, THERE, TestedCore, alive, endpoint_of, query, user


def with_others(count: int) -> TestedCore:
    node = TestedCore.make(probe_interval=10_000.0, probe_timeout=9000.0)  # nobody answers here
    for number in range(count):
        node.receive(alive(f"n{number}", endpoint=endpoint_of(number)))
    node.advance(60)
    return node


def streamed(node: TestedCore) -> list[SendByStream]:
    return [effect for effect in node.take() if isinstance(effect, SendByStream)]


def test_an_event_that_fits_into_no_packet_goes_by_streams() -> None:
    node = with_others(20)
    node.core.fire("large", bytes(5000), coalesce=False, max_bytes=9000)
    sending = streamed(node)
    assert len({effect.target for effect in sending}) == len(sending) == 8
    assert HERE not in {effect.target for effect in sending}
    event = decode_serf(sending[0].payload)
    assert isinstance(event, UserEvent)
    assert (event.name, len(event.payload)) == ("large", 5000)


def test_an_event_that_came_by_a_stream_goes_on_once() -> None:
    node = with_others(5)
    payload = encode_serf(UserEvent(ltime=4, name="large", payload=bytes(5000), cc=False))
    node.core.receive(payload)
    assert {effect.payload for effect in streamed(node)} == {payload}
    node.core.receive(payload)
    assert not streamed(node)


def test_what_no_member_would_send_is_not_sent_on() -> None:
    node = with_others(5)
    node.core.receive(encode_serf(UserEvent(ltime=4, name="l", payload=bytes(MAX_STREAMED_BYTES), cc=False)))
    assert len(list(node.core.events.recent.items())) == 1
    assert not streamed(node)
    assert node.core.refused.too_large == 1


@pytest.mark.parametrize("more", [0, 1])
def test_the_largest_that_is_gossiped_fits_into_a_packet(more: int) -> None:
    node = with_others(1)
    room = node.core.swim.outbox.largest_broadcast - 1
    empty = len(encode_serf(UserEvent(ltime=1, name="e", payload=bytes(300), cc=False))) - 300
    node.core.fire("e", bytes(room - empty + more), coalesce=False, max_bytes=9000)
    effects = node.advance(5)
    assert any(isinstance(effect, SendByStream) for effect in effects) == bool(more)
    packets = [effect for effect in effects if isinstance(effect, SendPacket)]
    carrying = [packet for packet in packets if any(len(message) > 1000 for message in packet.messages)]
    assert bool(carrying) != bool(more)
    for packet in carrying:
        (encoded,) = encode_packets(packet.messages, max_bytes=1400, checksum=True, compress=False)
        assert len(encoded) <= 1400


def test_an_answer_that_fits_into_no_packet_goes_by_a_stream_also_when_it_is_relayed() -> None:
    node = with_others(5)
    node.receive(user(query(flags=0, relay_factor=2)))
    node.take()
    node.core.querying.answer(5, 7, bytes(5000), 9000)
    sending = streamed(node)
    assert sending[0].target == THERE
    assert len({effect.target for effect in sending}) == 3
    answer, relay, _ = (decode_serf(effect.payload) for effect in sending)
    assert isinstance(answer, QueryResponse)
    assert len(answer.payload) == 5000
    assert isinstance(relay, Relay)
    # And who is to pass it on does so by a stream too.
    helper = with_others(1)
    helper.core.receive(encode_serf(relay))
    (passed_on,) = streamed(helper)
    assert passed_on.target == THERE
    assert decode_serf(passed_on.payload) == answer


def test_the_largest_single_message_fits_into_a_packet() -> None:
    node = with_others(0)
    largest = node.core.swim.outbox.largest_message - 1
    for size, by_stream in ((largest, False), (largest + 1, True)):
        node.core.spreading.send(bytes(size), THERE)
        (effect,) = node.take()
        assert isinstance(effect, SendByStream) is by_stream
        if isinstance(effect, SendPacket):
            (encoded,) = encode_packets(effect.messages, max_bytes=1400, checksum=True, compress=False)
            assert len(encoded) <= 1400
            assert decode_message(effect.messages[0]) == UserMessage(bytes(size))
