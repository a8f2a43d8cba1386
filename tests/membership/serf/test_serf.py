from __future__ import annotations

import pytest

from proglog_trio.membership.serf.intents import Stage
from proglog_trio.membership.serf.lamport import HIGHEST_LAMPORT_TIME
from proglog_trio.membership.serf.member import MemberEventKind, MemberStatus
from proglog_trio.membership.serf.serf import MAX_RELAYED_BYTES, Conflict, HasLeft
from proglog_trio.membership.swim.effects import ExchangeState, SendPacket
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import Message, PushPull, Suspect, UserMessage, decode_message
from proglog_trio.membership.wire.msgpack_structs import encode_object
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_ACK,
    QUERY_FLAG_NO_BROADCAST,
    Join,
    Leave,
    NodeFilter,
    Query,
    QueryResponse,
    Relay,
    RelayAddress,
    RelayHeader,
    SerfMessage,
    UserEvent,
    decode_serf,
    encode_serf,
)
from proglog_trio.membership.wire.state import STATE_PREFIX, Event, EventsAtTime, SerfPushPull
from proglog_trio.steps import complete
from tests.membership.serf.cores import HERE, THERE, TestedCore, alive, dead, endpoint_of

SUSPICION = Suspect(incarnation=1, node="b", from_node="somebody")


def user(message: SerfMessage) -> UserMessage:
    return UserMessage(encode_serf(message))


def sent(effects: list[object]) -> list[Message | SerfMessage]:
    """Return all messages in packets, Serf's decoded."""
    found: list[Message | SerfMessage] = []
    for effect in effects:
        if isinstance(effect, SendPacket):
            for data in effect.messages:
                message = decode_message(data)
                found.append(decode_serf(message.payload) if isinstance(message, UserMessage) else message)
    return found


def state(**changes: object) -> SerfPushPull:
    fields: dict[str, object] = {
        "ltime": 1, "status_ltimes": {}, "left_members": (), "event_ltime": 1, "events": (), "query_ltime": 1,
    }  # fmt: skip
    return SerfPushPull(**(fields | changes))  # type: ignore[arg-type]  # one value for each field


def query(**changes: object) -> Query:
    fields: dict[str, object] = {
        "ltime": 5, "id": 7, "addr": THERE.address, "port": THERE.port, "source_node": "other", "filters": (),
        "flags": QUERY_FLAG_ACK, "relay_factor": 0, "timeout": 10**9, "name": "q", "payload": b"",
    }  # fmt: skip
    return Query(**(fields | changes))  # type: ignore[arg-type]  # one value for each field


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


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_a_node_alone_leaves_at_once() -> None:
    node = TestedCore.make()
    node.core.intents.leave()
    node.advance(0.0)
    assert isinstance(node.said[-1], HasLeft)
    assert node.core.intents.stage is Stage.LEFT


def test_leaving_says_the_intent_then_the_death_then_stays_a_while() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    node.advance(3.0)
    node.core.intents.leave()
    node.core.intents.leave()  # once is enough
    intent_seen = death_seen = left = None
    for step in range(200):
        messages = sent(list(node.advance(0.1)))
        if any(isinstance(message, Leave) for message in messages):
            intent_seen = step if intent_seen is None else intent_seen
        if any(type(message).__name__ == "Dead" for message in messages):
            death_seen = step if death_seen is None else death_seen
        if left is None and any(isinstance(event, HasLeft) for event in node.said):
            left = step
    assert intent_seen is not None
    assert death_seen is not None
    assert left is not None
    assert intent_seen < death_seen < left, (intent_seen, death_seen, left)
    assert left - death_seen >= 10  # a second in which the news spreads
    assert left < 40
    assert sum(isinstance(event, HasLeft) for event in node.said) == 1


def test_leaving_ends_even_if_nothing_can_be_sent() -> None:
    node = TestedCore.make(gossip_interval=1000.0, probe_interval=1000.0, probe_timeout=900.0)
    node.receive(alive("b"))
    node.core.intents.leave()
    node.advance(10.9)
    assert not any(isinstance(event, HasLeft) for event in node.said)
    node.advance(0.2)
    assert any(isinstance(event, HasLeft) for event in node.said)
    assert node.core.intents.stage is Stage.LEFT


def test_a_leaving_node_does_not_refute_its_death_and_a_live_one_does() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    node.receive(dead("me", 9))
    assert node.core.swim.rules.me.incarnation == 10
    node.core.intents.leave()
    node.advance(9.0)
    incarnation = node.core.swim.rules.me.incarnation
    node.receive(dead("me", 50), alive("me", 60, HERE))
    assert node.core.swim.rules.me.incarnation == incarnation


def test_a_member_that_says_it_left_has_left_even_before_its_intent_is_heard() -> None:
    node = TestedCore.make()
    node.receive(alive("b"), dead("b", by="b"))
    assert node.status("b") is MemberStatus.LEFT
    node.receive(user(Leave(ltime=4, node="b", prune=False)))
    assert node.events() == [("join", "me"), ("join", "b"), ("leave", "b")]


def test_force_leave_of_a_failed_member() -> None:
    node = TestedCore.make()
    node.receive(alive("b"), dead("b"))
    assert node.status("b") is MemberStatus.FAILED
    assert node.core.intents.force_leave("b")
    assert node.status("b") is MemberStatus.LEFT
    node.receive(alive("c", endpoint=endpoint_of(3)))
    intents = [message for message in sent(list(node.advance(1.0))) if isinstance(message, Leave)]
    assert intents[0].node == "b"
    assert not intents[0].prune


def test_force_leave_with_prune_forgets() -> None:
    node = TestedCore.make()
    node.receive(alive("b"), dead("b"))
    assert node.core.intents.force_leave("b", prune=True)
    assert node.status("b") is None
    assert node.events()[-2:] == [("leave", "b"), ("reap", "b")]


def test_force_leave_of_this_node_or_of_nobody_does_nothing() -> None:
    node = TestedCore.make()
    assert node.core.intents.force_leave("me")
    assert node.status("me") is MemberStatus.ALIVE
    assert not node.core.intents.force_leave("nobody")


def test_a_leave_intent_about_a_living_node_is_refuted() -> None:
    node = TestedCore.make()
    node.receive(alive("b"), user(Leave(ltime=20, node="me", prune=False)))
    assert node.status("me") is MemberStatus.ALIVE
    joins = [message for message in sent(list(node.advance(1.0))) if isinstance(message, Join)]
    assert joins[0].node == "me"
    assert joins[0].ltime > 20


def test_an_old_leave_intent_about_a_living_node_is_nothing() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    node.core.intents.announce_join()
    node.advance(10.0)
    time = node.core.clock.time
    node.receive(user(Leave(ltime=1, node="me", prune=False)))
    assert node.core.clock.time == time


def test_a_leave_that_another_learned_from_a_third_is_refuted_when_states_are_exchanged() -> None:
    """The third had seen this node leave in an earlier life, and says so after the other has seen it come back."""
    me, other = TestedCore.make("me", HERE), TestedCore.make("other", THERE)
    me.exchange(other, join=True)
    me.core.intents.announce_join()
    time = other.core.clock.time + 20
    complete(
        other.core.push_pull.merge_steps(
            PushPull((), encode_serf(state(ltime=time, status_ltimes={"me": time - 1}, left_members=("me",))))
        )
    )
    assert other.status("me") is MemberStatus.LEAVING
    me.exchange(other)
    me.exchange(other)
    assert other.status("me") is MemberStatus.ALIVE


def test_a_leave_intent_of_the_very_time_of_a_nodes_join_is_refuted() -> None:
    """Whoever hears it before the join does not take the join."""
    node = TestedCore.make()
    node.receive(alive("b"))
    node.core.intents.announce_join()
    time = node.core.members.by_name["me"].status_time
    node.receive(user(Leave(ltime=time, node="me", prune=False)))
    assert node.status("me") is MemberStatus.ALIVE
    assert node.core.members.by_name["me"].status_time > time


def test_lamport_times_stand_still_while_all_agree_that_a_member_has_left() -> None:
    a, b = TestedCore.make("a", HERE), TestedCore.make("b", THERE)
    a.exchange(b, join=True)
    for node in (a, b):
        node.receive(
            alive("c", endpoint=endpoint_of(3)), user(Leave(ltime=8, node="c", prune=False)), dead("c", by="c")
        )
    for _ in range(10):
        a.exchange(b)
        b.exchange(a)
    assert [node.core.members.by_name["c"].status_time for node in (a, b)] == [8, 8]
    assert [node.core.clock.time for node in (a, b)] == [9, 9]


def test_a_member_that_is_said_to_leave_and_answers_is_alive_after_a_while() -> None:
    node = TestedCore.make(probe_interval=10_000.0, probe_timeout=9000.0, push_pull_interval=0.0)
    node.receive(alive("b"), user(Join(ltime=8, node="b")))
    node.receive(user(Leave(ltime=9, node="b", prune=False)), user(Join(ltime=9, node="b")))
    node.advance(60.0)
    assert node.status("b") is MemberStatus.LEAVING
    node.advance(30.0)
    assert node.status("b") is MemberStatus.ALIVE


def test_a_member_that_is_said_to_leave_and_does_not_answer_is_not() -> None:
    node = TestedCore.make(probe_interval=10_000.0, probe_timeout=9000.0, push_pull_interval=0.0)
    node.receive(alive("b"), user(Leave(ltime=9, node="b", prune=False)), SUSPICION)
    node.advance(120.0)
    assert node.status("b") is MemberStatus.LEAVING
    node.receive(dead("b"))
    assert node.status("b") is MemberStatus.LEFT


# -- intents -----------------------------------------------------------------------------------------------------------


def test_intents_are_passed_on_once() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    join = user(Join(ltime=4, node="b"))
    node.receive(join, join, user(Join(ltime=3, node="b")))
    assert len(node.core.swim.outbox.queues[1]) == 1


def test_intents_that_fit_into_no_packet_are_not_passed_on() -> None:
    node = TestedCore.make()
    payload = encode_serf(Join(ltime=4, node="b"))
    padded = (
        payload[:1] + bytes((payload[1] + 1,)) + payload[2:] + b"\xa3xxx\xdb" + (5000).to_bytes(4, "big") + bytes(5000)
    )
    assert decode_serf(padded) == decode_serf(payload)
    node.receive(UserMessage(padded))
    assert len(node.core.swim.outbox.queues[1]) == 0
    assert node.core.refused.too_large == 1


def test_lamport_clocks_survive_the_highest_time() -> None:
    node = TestedCore.make()
    node.receive(alive("b"), user(Join(ltime=HIGHEST_LAMPORT_TIME, node="b")))
    node.receive(user(Leave(ltime=HIGHEST_LAMPORT_TIME, node="me", prune=False)))
    complete(
        node.core.push_pull.merge_steps(
            PushPull((), encode_serf(state(left_members=("b",), status_ltimes={"b": HIGHEST_LAMPORT_TIME})))
        )
    )
    node.core.intents.announce_join()
    complete(node.core.push_pull.local_state_steps(join=False))
    node.advance(5.0)


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


def test_an_event_that_fits_into_no_packet_is_kept_and_not_broadcast() -> None:
    node = TestedCore.make()
    node.core.receive(encode_serf(UserEvent(ltime=4, name="large", payload=bytes(5000), cc=False)))
    assert len(node.core.swim.outbox.queues[3]) == 0
    assert node.core.refused.too_large == 1


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
    node.receive(UserMessage(encode_serf(Relay(header, bytes(MAX_RELAYED_BYTES + 1)))))
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
