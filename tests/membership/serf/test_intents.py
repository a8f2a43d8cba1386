from __future__ import annotations

from proglog_trio.membership.serf.intents import Stage
from proglog_trio.membership.serf.lamport import HIGHEST_LAMPORT_TIME
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.serf import HasLeft
from proglog_trio.membership.wire.memberlist import PushPull, UserMessage
from proglog_trio.membership.wire.serf import (
    Join,
    Leave,
    decode_serf,
    encode_serf,
)
from proglog_trio.steps import complete
from tests.membership.serf.cores import (
    HERE,
    SUSPICION,
    THERE,
    TestedCore,
    alive,
    dead,
    endpoint_of,
    sent,
    state,
    user,
)


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
