from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim.effects import (
    ExchangeState,
    Paused,
    PingByStream,
    RoundTrip,
    SendPacket,
    StatusChange,
    UserMessageReceived,
)
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.swim import MAX_ANSWERS, VERSION, push_pull_scale
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Dead,
    Message,
    Nack,
    NodeState,
    NodeStateType,
    Ping,
    Suspect,
    UserMessage,
    encode_message,
)
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.steps import complete
from tests.membership.swim.cores import TestedSwim, alive, endpoint_of, messages


@pytest.mark.parametrize(
    ("members", "scale"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (128, 3), (129, 4), (1000, 6)]
)
def test_push_pull_are_rarer_in_large_clusters(members: int, scale: int) -> None:
    assert push_pull_scale(members) == scale


def test_endpoints_are_shown_as_addresses() -> None:
    assert str(Endpoint.of("10.0.0.1", 7946)) == "10.0.0.1:7946"
    assert str(Endpoint.of("::1", 7946)) == "[::1]:7946"
    with pytest.raises(ValueError, match="localhost"):
        Endpoint.of("localhost", 1)


def test_gossip_goes_to_those_who_live_are_suspected_or_have_just_died() -> None:
    core = TestedSwim.make(probe_interval=1000.0, probe_timeout=900.0, push_pull_interval=0.0, gossip_nodes=10)
    core.receive(*(alive(name, at=number) for number, name in enumerate(("a", "b", "c", "d"))))
    core.receive(Suspect(incarnation=1, node="b", from_node="a"), Dead(incarnation=1, node="c", from_node="a"))
    core.receive(Dead(incarnation=1, node="d", from_node="d"))
    targets = {effect.target for effect in core.advance(0.25) if isinstance(effect, SendPacket)}
    assert targets == {endpoint_of(0), endpoint_of(1), endpoint_of(2)}
    core.advance(40.0)
    core.swim.rules.update_me(b"news")
    targets = {effect.target for effect in core.advance(0.25) if isinstance(effect, SendPacket)}
    assert targets == {endpoint_of(0), endpoint_of(1)}


def test_nothing_is_gossiped_when_there_is_nothing_to_say() -> None:
    core = TestedSwim.make(probe_interval=1000.0, probe_timeout=900.0, push_pull_interval=0.0)
    core.receive(alive())
    core.advance(10.0)
    assert core.advance(100.0) == []


def test_packets_are_as_large_as_they_may_be_and_no_larger() -> None:
    for overhead in (0, 45):
        core = TestedSwim.make()
        core.swim.outbox.overhead_bytes = overhead
        for number in range(100):
            core.receive(alive(f"node-{number}", at=number, meta=b"m" * 50))
        core.receive(Ping(seq_no=1, node="me"))
        effects = [effect for effect in core.advance(3.0) if isinstance(effect, SendPacket)]
        assert len(effects) > 10
        sizes = []
        for effect in effects:
            (packet,) = encode_packets(effect.messages, max_bytes=1400, checksum=effect.checksum, compress=False)
            sizes.append(len(packet) + overhead)
        assert max(sizes) <= 1400
        assert max(sizes) > 1250


def test_broadcasts_ride_on_acks() -> None:
    core = TestedSwim.make()
    core.receive(alive(), Ping(seq_no=4, node="me"))
    sent = messages(core.take())
    assert [type(message).__name__ for message in sent] == ["Ack", "Alive", "Alive"]


def test_checksums_go_to_those_who_understand_them() -> None:
    core = TestedSwim.make(probe_interval=1000.0, probe_timeout=900.0, push_pull_interval=0.0)
    core.receive(alive("new", at=1), alive("old", at=2, version=bytes((1, 4, 2, 2, 5, 4))))
    checksums = {effect.target: effect.checksum for effect in core.advance(1.0) if isinstance(effect, SendPacket)}
    assert checksums == {endpoint_of(1): True, endpoint_of(2): False}


def test_state_is_exchanged_with_a_living_member_now_and_then() -> None:
    core = TestedSwim.make(probe_interval=10_000.0, probe_timeout=9000.0)
    core.receive(alive("a", at=1), alive("b", at=2), Dead(incarnation=1, node="b", from_node="x"))
    exchanges = [effect for effect in core.advance(300.0) if isinstance(effect, ExchangeState)]
    assert 9 <= len(exchanges) <= 11
    assert Counter(exchange.name for exchange in exchanges).keys() == {"a"}
    assert not any(exchange.join for exchange in exchanges)


def test_no_state_is_exchanged_if_that_is_off() -> None:
    core = TestedSwim.make(push_pull_interval=0.0)
    core.receive(alive("a", at=1))
    assert not any(isinstance(effect, ExchangeState) for effect in core.advance(100.0))


def state(name: str, status: NodeStateType, incarnation: int = 1, at: int = 1) -> NodeState:
    endpoint = endpoint_of(at)
    return NodeState(
        name=name, addr=endpoint.address, port=endpoint.port, meta=b"", incarnation=incarnation, state=status,
        vsn=bytes((1, 5, 2, 2, 5, 4)),
    )  # fmt: skip


def test_a_state_is_merged_so_that_the_living_can_refute() -> None:
    core = TestedSwim.make()
    core.receive(*(alive(name, at=number) for number, name in enumerate("abcd")))
    complete(
        core.swim.states.merge_steps(
            [
                state("a", NodeStateType.ALIVE, 4, at=0),
                state("b", NodeStateType.SUSPECT, at=1),
                state("c", NodeStateType.DEAD, at=2),
                state("d", NodeStateType.LEFT, at=3),
                state("e", NodeStateType.ALIVE, at=4),
                state("f", NodeStateType.DEAD, at=5),
                state("g", NodeStateType.LEFT, at=6),
                state("me", NodeStateType.DEAD, 6),
                evolve(state("h", NodeStateType.ALIVE), addr=b""),
                state("", NodeStateType.ALIVE),
            ]
        )
    )
    statuses = {name: node.status for name, node in core.swim.rules.nodes.items()}
    assert statuses == {
        "me": NodeStatus.ALIVE, "a": NodeStatus.ALIVE, "b": NodeStatus.SUSPECT, "c": NodeStatus.SUSPECT,
        "d": NodeStatus.LEFT, "e": NodeStatus.ALIVE,
    }  # fmt: skip
    assert core.incarnation("a") == 4
    assert core.incarnation("me") == 7


def about_me(kind: type[Suspect | Dead], incarnation: int) -> Suspect | Dead:
    return kind(incarnation=incarnation, node="me", from_node="b")


@pytest.mark.parametrize("kind", [Suspect, Dead])
def test_who_has_missed_a_refutation_is_told_again(kind: type[Suspect | Dead]) -> None:
    core = TestedSwim.make(meta=b"mine", push_pull_interval=0.0)
    core.receive(alive("b", at=7), about_me(kind, 4))
    core.advance(60)  # everybody was told as often as it is told
    core.broadcasts()
    core.receive(about_me(kind, 4), source=endpoint_of(7))
    (packet,) = (effect for effect in core.take() if isinstance(effect, SendPacket))
    assert packet.target == endpoint_of(7)
    (message,) = messages([packet])
    assert isinstance(message, Alive)
    assert (message.node, message.incarnation, message.meta) == ("me", core.incarnation("me"), b"mine")


def test_there_is_a_bound_to_the_answers_to_accusations() -> None:
    core = TestedSwim.make(push_pull_interval=0.0)
    core.receive(about_me(Suspect, 4))
    core.broadcasts()

    def answered(*sources: int) -> int:
        for source in sources:
            core.receive(*[about_me(Suspect, 1)] * 20, source=endpoint_of(source))
        return sum(isinstance(message, Alive) for message in messages(core.take()))

    core.advance(0.2)
    core.take()
    assert answered(1, 1, 2) == 2
    assert answered(*range(100)) == MAX_ANSWERS - 2
    core.advance(0.2)
    core.take()
    assert answered(1) == 1


def test_accusations_are_not_answered_by_who_leaves_nor_for_others() -> None:
    core = TestedSwim.make(push_pull_interval=0.0)
    core.receive(alive("b", 5, at=7), about_me(Suspect, 4))
    core.advance(60)
    core.take()
    core.receive(Suspect(incarnation=3, node="b", from_node="c"))
    assert core.take() == []
    core.swim.rules.leave(lambda: None)
    core.broadcasts()
    core.receive(about_me(Suspect, 1))
    assert core.take() == []


def test_the_state_that_is_sent_is_what_is_known() -> None:
    core = TestedSwim.make(meta=b"mine")
    core.receive(alive("a", 3, at=7, meta=b"x"), Suspect(incarnation=3, node="a", from_node="b"))
    me, a = complete(core.swim.states.local_state_steps())
    assert (me.name, me.meta, me.state, me.incarnation) == ("me", b"mine", NodeStateType.ALIVE, 1)
    assert (a.name, a.addr, a.meta, a.state, a.incarnation) == (
        "a", endpoint_of(7).address, b"x", NodeStateType.SUSPECT, 3,
    )  # fmt: skip


def test_user_messages_go_to_the_layer_above() -> None:
    core = TestedSwim.make()
    core.receive(UserMessage(b"x"), source=endpoint_of(8))
    assert core.news() == [UserMessageReceived(b"x", endpoint_of(8))]


def test_nothing_is_sent_before_there_is_a_core() -> None:
    core = TestedSwim.make(start=False)
    assert core.take() == []
    assert core.swim.next_deadline is None
    core.swim.start()
    assert core.swim.next_deadline is not None
    assert isinstance(core.broadcasts()[0], Alive)
    assert encode_message(Ping(seq_no=1, node="a"))


# -- time --------------------------------------------------------------------------------------------------------------

STEPS = st.sampled_from([0.0, 0.0, 1e-9, 0.05, 0.3, 1.0, 7.0, 40.0, 1e4, 3e7, 1e9, -1.0])
NEWS = st.one_of(
    st.builds(
        lambda number, status: (
            Suspect(incarnation=1, node=f"m{number}", from_node="x") if status else alive(f"m{number}", 2, at=number)
        ),
        st.integers(1, 6),
        st.booleans(),
    ),
    st.builds(Ack, seq_no=st.integers(1, 20), payload=st.just(b"")),
    st.builds(Nack, seq_no=st.integers(1, 20)),
)


@given(
    st.integers(0, 6),
    st.sampled_from([{}, {"probe_timeout": 0.999}, {"probe_interval": 5.0, "probe_timeout": 3.0}]),
    st.lists(st.one_of(STEPS, STEPS, NEWS), max_size=80),
)
def test_time_may_pass_in_any_steps(members: int, changes: dict[str, Any], steps: list[float | Message]) -> None:
    """None, the same reading again, and years: no effect has a negative time, and what is periodic is done once."""
    core = TestedSwim.make(**changes)
    core.receive(*(alive(f"m{number}", at=number) for number in range(1, members + 1)))
    furthest = reading = 100.0
    for step in steps:
        if isinstance(step, float):
            reading += step
            furthest = max(reading, furthest)
            core.swim.advance(reading)
            deadline = core.swim.next_deadline
            assert deadline is not None
            assert deadline > furthest
        else:
            core.receive(step)
        effects = core.take()
        assert all(effect.timeout > 0 for effect in effects if isinstance(effect, PingByStream))
        assert len(effects) <= 20
        assert sum(isinstance(effect, ExchangeState) for effect in effects) <= 2


def test_a_member_is_not_called_dead_for_what_could_not_be_heard() -> None:
    core = TestedSwim.make()
    core.receive(alive("b"), alive("c", at=2), Suspect(incarnation=1, node="b", from_node="c"))
    before = core.swim.rules.me.incarnation
    core.take()
    now = core.swim.rules.timers.now + 1e6
    core.swim.advance(now)
    assert core.status() is NodeStatus.SUSPECT
    core.receive(alive("b", 2))  # this waited in the socket
    core.advance(60.0)
    assert NodeStatus.DEAD not in (event.after for event in core.said if isinstance(event, StatusChange))
    assert core.status() in (NodeStatus.ALIVE, NodeStatus.SUSPECT)
    assert [event.seconds > 999_000 for event in core.said if isinstance(event, Paused)] == [True]
    assert core.swim.rules.counters.pauses == 1
    assert core.swim.rules.me.incarnation > before


def test_who_does_not_answer_after_a_pause_either_is_called_dead() -> None:
    core = TestedSwim.make()
    core.receive(alive("b"), Suspect(incarnation=1, node="b", from_node="c"))
    core.swim.advance(1e6)
    assert core.status() is NodeStatus.SUSPECT
    deadline = core.swim.next_deadline
    while core.status() is NodeStatus.SUSPECT:
        deadline = core.swim.next_deadline
        assert deadline is not None
        assert deadline < 1e6 + 60.0
        core.swim.advance(deadline)
    assert core.status() is NodeStatus.DEAD


def test_a_round_trip_with_a_pause_in_it_is_no_measurement() -> None:
    core = TestedSwim.make()
    core.receive(alive("b"))
    _, ping = core.until(Ping)
    core.swim.advance(core.swim.rules.timers.now + 1e3)
    core.receive(Ack(seq_no=ping.seq_no, payload=b""))
    assert not [event for event in core.said if isinstance(event, RoundTrip)]
    assert core.swim.rules.counters.probes_failed == 0


def test_a_node_that_leaves_does_not_say_that_it_is_alive() -> None:
    core = TestedSwim.make()
    core.receive(alive("b"))
    core.swim.rules.leave(lambda: None)
    core.broadcasts()
    core.swim.advance(1e6)
    assert core.broadcasts() == []


MAPPED = bytes(10) + b"\xff\xff" + bytes((10, 1, 0, 1))
"""An IPv4 address as agents at their defaults tell it."""


def test_an_address_is_passed_on_as_it_was_told() -> None:
    core = TestedSwim.make()
    told = Alive(incarnation=1, node="b", addr=MAPPED, port=7946, meta=b"", vsn=VERSION)
    core.receive(told)
    assert told in core.broadcasts()
    assert {state.name: state.addr for state in complete(core.swim.states.local_state_steps())}["b"] == MAPPED
    # It is the place that is compared.
    node = core.swim.rules.nodes["b"]
    assert (node.endpoint, node.endpoint.host) == (endpoint_of(1), "10.1.0.1")
    core.receive(alive(incarnation=2))
    assert core.swim.rules.counters.conflicts == 0
    assert {state.name: state.addr for state in complete(core.swim.states.local_state_steps())}["b"] == endpoint_of(
        1
    ).address
