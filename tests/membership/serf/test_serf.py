from __future__ import annotations

import pytest

from proglog_trio.membership.serf.member import MemberEventKind, MemberStatus
from proglog_trio.membership.serf.serf import Conflict
from proglog_trio.membership.serf.spreading import MAX_STREAMED_BYTES
from proglog_trio.membership.swim.effects import ExchangeState, SendPacket
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import PushPull, UserMessage, decode_message
from proglog_trio.membership.wire.msgpack_structs import encode_object
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_NO_BROADCAST,
    Join,
    NodeFilter,
    QueryResponse,
    Relay,
    RelayAddress,
    RelayHeader,
    UserEvent,
    decode_serf,
    encode_serf,
)
from proglog_trio.membership.wire.state import STATE_PREFIX, Event, EventsAtTime, SerfPushPull
from proglog_trio.steps import complete
from tests.membership.serf.cores import (
    HERE,
    THERE,
    TestedCore,
    alive,
    dead,
    endpoint_of,
    query,
    sent,
    user,
)


def test_a_node_knows_itself() -> None:
    node = TestedCore.make(tags={"rpc_addr": "x:1"})
    (me,) = node.core.snapshot()
    assert (me.name, me.address, me.port, me.tags) == ("me", "10.0.0.1", 7946, {"rpc_addr": "x:1"})
    assert me.status is MemberStatus.ALIVE
    assert node.events() == [("join", "me")]


def test_tags_that_are_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match="512"):
        TestedCore.make(tags={"a": "b" * 600})
    node = TestedCore.make(tags={"a": "1"})
    with pytest.raises(ValueError, match="512"):
        node.core.set_tags({"a": "b" * 600})
    assert node.core.snapshot()[0].tags == {"a": "1"}


def test_tags_spread() -> None:
    a, b = TestedCore.make("a", HERE), TestedCore.make("b", THERE)
    a.exchange(b, join=True)
    b.core.set_tags({"color": "red"})
    a.exchange(b)
    assert a.core.members.by_name["b"].tags == {"color": "red"}
    assert ("update", "b") in a.events()
    assert ("update", "b") in b.events()


def test_meta_that_is_no_tags_makes_a_member_without() -> None:
    node = TestedCore.make()
    message = alive("b")
    object.__setattr__(message, "meta", b"\xff\x81")
    node.receive(message)
    assert node.core.members.by_name["b"].tags == {}


# -- events and queries ------------------------------------------------------------------------------------------------


def test_events_are_passed_on_once() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    event = user(UserEvent(ltime=4, name="deploy", payload=b"1", cc=False))
    node.receive(event, event)
    node.receive(user(UserEvent(ltime=4, name="deploy", payload=b"2", cc=False)))
    assert len(node.core.swim.outbox.queues[3]) == 2
    assert node.core.events.clock.time == 5
    exchanged = decode_serf(complete(node.core.push_pull.local_state_steps(join=False)).user_state)
    assert isinstance(exchanged, SerfPushPull)
    assert exchanged.events == (
        EventsAtTime(ltime=4, events=(Event(name="deploy", payload=b"1"), Event(name="deploy", payload=b"2"))),
    )


def test_events_come_with_the_state_but_not_to_one_who_joins() -> None:
    a, b, c = TestedCore.make("a", HERE), TestedCore.make("b", THERE), TestedCore.make("c", endpoint_of(3))
    a.receive(user(UserEvent(ltime=4, name="deploy", payload=b"1", cc=False)))
    b.exchange(a)
    assert b.core.events.clock.time == a.core.events.clock.time
    assert list(b.core.events.recent.items()) == [(4, [("deploy", b"1")])]
    c.exchange(a, join=True)
    assert list(c.core.events.recent.items()) == []


def test_an_event_that_fits_into_no_packet_is_kept_and_not_gossiped() -> None:
    node = TestedCore.make()
    node.core.receive(encode_serf(UserEvent(ltime=4, name="large", payload=bytes(5000), cc=False)))
    assert len(node.core.swim.outbox.queues[3]) == 0
    assert list(node.core.events.recent.items()) == [(4, [("large", bytes(5000))])]


def test_queries_are_acknowledged_and_passed_on_once() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    node.take()
    node.receive(user(query()), user(query()))
    responses = [message for message in sent(list(node.take())) if isinstance(message, QueryResponse)]
    assert [(response.id, response.from_node, response.flags) for response in responses] == [(7, "me", 1)]
    assert len(node.core.swim.outbox.queues[2]) == 1


def test_queries_for_others_are_only_passed_on() -> None:
    node = TestedCore.make()
    node.take()
    node.receive(user(query(filters=(NodeFilter(("other",)),))))
    assert node.take() == []
    assert len(node.core.swim.outbox.queues[2]) == 1


def test_a_query_that_is_not_to_be_passed_on_is_not() -> None:
    node = TestedCore.make()
    node.receive(user(query(flags=QUERY_FLAG_NO_BROADCAST)))
    assert len(node.core.swim.outbox.queues[2]) == 0


def test_responses_are_relayed_through_others() -> None:
    node = TestedCore.make()
    for number in range(5):
        node.receive(alive(f"n{number}", endpoint=endpoint_of(number)))
    node.take()
    node.receive(user(query(relay_factor=2)))
    packets = [effect for effect in node.take() if isinstance(effect, SendPacket)]
    assert len(packets) == 3
    relays = [message for message in sent(list(packets)) if isinstance(message, Relay)]
    assert len(relays) == 2
    assert len({packet.target for packet in packets}) == 3
    assert relays[0].header.dest_addr.ip == THERE.address
    assert isinstance(decode_serf(relays[0].payload), QueryResponse)


def test_what_is_to_be_relayed_goes_on_unless_it_is_too_large() -> None:
    node = TestedCore.make()
    header = RelayHeader(dest_addr=RelayAddress(ip=THERE.address, port=1234, zone=""), dest_name="other")
    node.receive(UserMessage(encode_serf(Relay(header, b"payload"))))
    (packet,) = node.take()
    assert isinstance(packet, SendPacket)
    assert packet.target.port == 1234
    assert decode_message(packet.messages[0]) == UserMessage(b"payload")
    node.receive(UserMessage(encode_serf(Relay(header, bytes(MAX_STREAMED_BYTES + 1)))))
    assert node.take() == []
    assert node.core.refused.too_large == 1


@pytest.mark.parametrize("payload", [b"", b"\xc8", b"\x00\xc1", b"\x02\x80"])
def test_malformed_messages_count(payload: bytes) -> None:
    node = TestedCore.make()
    node.receive(UserMessage(payload))
    assert node.core.refused.malformed == 1


def test_a_state_that_is_malformed_raises_after_the_members_were_taken() -> None:
    a, b = TestedCore.make("a", HERE), TestedCore.make("b", THERE)
    nodes = complete(b.core.push_pull.local_state_steps(join=False)).nodes
    with pytest.raises(DecodingError):
        complete(a.core.push_pull.merge_steps(PushPull(nodes, b"\x02\xc1")))
    assert a.status("b") is MemberStatus.ALIVE
    complete(a.core.push_pull.merge_steps(PushPull(nodes, encode_serf(Join(ltime=1, node="x")))))
    assert a.core.refused.malformed == 1


# -- other flows -------------------------------------------------------------------------------------------------------


def test_a_restart_at_another_address_is_a_conflict_until_the_name_is_free() -> None:
    node = TestedCore.make()
    node.receive(alive("b", 5, THERE))
    node.receive(alive("b", 9, endpoint_of(9)))
    assert any(event == Conflict("b", endpoint_of(9)) for event in node.said)
    assert node.core.members.by_name["b"].endpoint == THERE
    node.receive(dead("b", 5))
    node.advance(40.0)
    node.receive(alive("b", 1, endpoint_of(9)))
    assert node.status("b") is MemberStatus.ALIVE
    assert node.core.members.by_name["b"].endpoint == endpoint_of(9)
    assert node.events(MemberEventKind.JOIN, MemberEventKind.FAILED)[1:] == [
        ("join", "b"), ("failed", "b"), ("join", "b"),
    ]  # fmt: skip


def test_a_failed_member_is_tried_again() -> None:
    node = TestedCore.make()
    node.receive(alive("b"), dead("b"))
    exchanges = [effect for effect in node.advance(100.0) if isinstance(effect, ExchangeState)]
    assert [(exchange.name, exchange.target, exchange.join) for exchange in exchanges] == [("b", THERE, True)] * 3


def test_one_failed_of_many_is_tried_rarely() -> None:
    node = TestedCore.make(probe_interval=10_000.0, probe_timeout=9000.0, push_pull_interval=0.0)
    for number in range(99):
        node.receive(alive(f"n{number}", endpoint=endpoint_of(number)))
    node.receive(dead("n7"))
    exchanges = [effect for effect in node.advance(30.0 * 1000) if isinstance(effect, ExchangeState)]
    assert 2 <= len(exchanges) <= 25  # 1 in 99 of 1,000


def test_the_gone_are_reaped() -> None:
    node = TestedCore.make(reconnect_timeout=100.0, tombstone_timeout=200.0)
    node.receive(alive("b"), dead("b"), alive("c", endpoint=endpoint_of(3)), dead("c", by="c"))
    node.advance(90.0)
    assert (node.status("b"), node.status("c")) == (MemberStatus.FAILED, MemberStatus.LEFT)
    node.advance(30.0)
    assert (node.status("b"), node.status("c")) == (None, MemberStatus.LEFT)
    node.advance(100.0)
    assert node.status("c") is None
    assert node.events(MemberEventKind.REAP) == [("reap", "b"), ("reap", "c")]


def test_round_trips_are_kept() -> None:
    a, b = TestedCore.make("a", HERE), TestedCore.make("b", THERE)
    a.exchange(b)
    for _ in range(300):
        for effect in a.advance(0.01):
            if isinstance(effect, SendPacket):
                b.receive(*(decode_message(data) for data in effect.messages), source=HERE)
        for effect in b.take():
            if isinstance(effect, SendPacket):
                a.core.swim.advance(a.core.swim.now + 0.002)
                a.receive(*(decode_message(data) for data in effect.messages), source=THERE)
    round_trip = a.core.members.by_name["b"].round_trip_seconds
    assert round_trip is not None
    assert 0 < round_trip < 0.05


def test_names_that_no_member_has_cost_only_themselves() -> None:
    tested = TestedCore.make()
    long = b"n" * 600
    state = {b"LTime": 5, b"LeftMembers": [long, b"gone"], b"StatusLTimes": {long: 3, b"gone": 2, b"later": 4}}
    complete(tested.core.push_pull.merge_steps(PushPull(user_state=STATE_PREFIX + encode_object(state))))
    assert tested.core.clock.time == 5
    assert tested.core.refused.malformed == 1
    # Of the others it is remembered what they meant to do.
    tested.receive(alive("gone"), alive("later", endpoint=endpoint_of(3)))
    assert (tested.status("gone"), tested.status("later")) == (MemberStatus.LEAVING, MemberStatus.ALIVE)
