from __future__ import annotations

from typing import Any

from proglog_trio.membership.swim.effects import PingByStream, RoundTrip, SendPacket
from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.swim.prober import MAX_RELAYED_PINGS
from proglog_trio.membership.wire.memberlist import Ack, Dead, IndirectPing, Nack, Ping, Suspect
from tests.membership.swim.cores import HERE, TestedSwim, alive, endpoint_of, messages


def cluster_of(others: int, **changes: Any) -> TestedSwim:
    core = TestedSwim.make(**changes)
    for number in range(1, others + 1):
        core.receive(alive(f"n{number}", at=number))
    return core


def test_a_probe_that_is_answered() -> None:
    core = cluster_of(1)
    packet, ping = core.until(Ping)
    assert packet.target == endpoint_of(1)
    assert (ping.node, ping.source_node, ping.source_addr, ping.source_port) == ("n1", "me", HERE.address, HERE.port)
    core.advance(0.0)
    core.said.clear()
    core.swim.advance(core.swim.rules.timers.now + 0.1)
    core.receive(Ack(seq_no=ping.seq_no, payload=b"coordinate"))
    (round_trip,) = core.said
    assert isinstance(round_trip, RoundTrip)
    assert (round_trip.name, round_trip.payload) == ("n1", b"coordinate")
    assert 0.1 <= round_trip.seconds < 0.2
    core.advance(0.8)
    assert core.status("n1") is NodeStatus.ALIVE
    assert core.swim.rules.counters.probes_failed == 0


def test_a_probe_that_is_not_answered_goes_through_others_and_by_stream_then_suspects() -> None:
    core = cluster_of(5)
    _, ping = core.until(Ping)
    effects = core.advance(0.6)
    requests = [message for message in messages(effects) if isinstance(message, IndirectPing)]
    assert len(requests) == 3
    assert {(request.node, request.seq_no, request.nack) for request in requests} == {(ping.node, ping.seq_no, True)}
    asked = [
        effect.target for effect in effects
        if isinstance(effect, SendPacket) and any(isinstance(message, IndirectPing) for message in messages([effect]))
    ]  # fmt: skip
    assert len(set(asked)) == 3
    (stream,) = [effect for effect in effects if isinstance(effect, PingByStream)]
    assert (stream.name, stream.sequence_number) == (ping.node, ping.seq_no)
    assert 0.4 < stream.timeout <= 0.5
    core.advance(0.5)
    assert core.status(ping.node) is NodeStatus.SUSPECT


def test_an_ack_that_was_relayed_is_success_without_a_round_trip() -> None:
    core = cluster_of(5)
    _, ping = core.until(Ping)
    core.advance(0.7)
    core.said.clear()
    core.receive(Ack(seq_no=ping.seq_no, payload=b""))
    assert core.said == []
    core.advance(0.25)
    assert core.status(ping.node) is NodeStatus.ALIVE


def test_a_stream_ping_saves_a_member_whose_packets_are_lost() -> None:
    core = cluster_of(1)
    for _ in range(50):
        for effect in core.advance(0.1):
            if isinstance(effect, PingByStream):
                core.swim.prober.stream_ping_ended(effect.sequence_number + 1, answered=True)
                core.swim.prober.stream_ping_ended(effect.sequence_number, answered=False)
                core.swim.prober.stream_ping_ended(effect.sequence_number, answered=True)
    assert core.swim.rules.counters.probes >= 4
    assert core.status("n1") is NodeStatus.ALIVE


def test_failures_without_helpers_make_this_node_doubt_itself() -> None:
    core = cluster_of(1)
    core.until(Ping)
    core.advance(1.1)
    assert core.swim.rules.awareness.score == 1


def test_missing_nacks_make_this_node_doubt_itself_and_repeated_ones_count_once_at_most() -> None:
    for nacks, score in ((0, 3), (1, 2), (3, 0), (9, 0)):
        core = cluster_of(5)
        _, ping = core.until(Ping)
        core.advance(0.6)
        core.receive(*(Nack(seq_no=ping.seq_no) for _ in range(nacks)))
        core.advance(0.4)
        assert core.status(ping.node) is NodeStatus.SUSPECT
        assert core.swim.rules.awareness.score == score


def test_repeated_nacks_do_not_make_a_bad_health_better() -> None:
    core = cluster_of(5)
    core.swim.rules.awareness.change(+5)
    _, ping = core.until(Ping)
    core.advance(0.6)
    core.receive(*(Nack(seq_no=ping.seq_no) for _ in range(9)))
    core.advance(6.0)
    assert core.swim.rules.awareness.score == 5


def test_old_agents_are_not_asked_for_nacks() -> None:
    core = TestedSwim.make()
    for number in range(1, 6):
        core.receive(alive(f"n{number}", at=number, version=bytes((1, 3, 2, 2, 5, 4))))
    core.until(Ping)
    requests = [message for message in messages(core.advance(0.6)) if isinstance(message, IndirectPing)]
    assert [request.nack for request in requests] == [False] * 3
    core.advance(0.5)
    assert core.swim.rules.awareness.score == 1


def test_bad_health_makes_probes_patient() -> None:
    core = cluster_of(1)
    core.swim.rules.awareness.change(+2)
    core.until(Ping)
    core.advance(2.5)
    assert core.status("n1") is NodeStatus.ALIVE
    core.advance(0.6)
    assert core.status("n1") is NodeStatus.SUSPECT


def test_a_suspect_is_pinged_with_the_suspicion() -> None:
    core = cluster_of(1)
    core.receive(Suspect(incarnation=1, node="n1", from_node="n7"))
    packet, _ = core.until(Ping)
    assert messages([packet])[1] == Suspect(incarnation=1, node="n1", from_node="me")


def test_each_member_is_probed_once_a_round_and_the_dead_are_not() -> None:
    core = cluster_of(6)
    core.receive(Dead(incarnation=1, node="n6", from_node="n1"))
    probed = []
    for _ in range(30):
        _, ping = core.until(Ping, limit=2.0)
        probed.append(ping.node)
        core.receive(Ack(seq_no=ping.seq_no, payload=b""))
    assert "me" not in probed
    assert "n6" not in probed
    rounds = [set(probed[start : start + 5]) for start in range(0, 30, 5)]
    assert all(len(names) == 5 for names in rounds)


def test_a_member_that_dies_while_it_is_probed_is_not_suspected() -> None:
    core = cluster_of(1)
    core.until(Ping)
    core.receive(Dead(incarnation=1, node="n1", from_node="n1"))
    core.advance(1.2)
    assert core.status("n1") is NodeStatus.LEFT


def test_a_node_alone_probes_nobody() -> None:
    core = TestedSwim.make()
    core.advance(10.0)
    assert core.swim.rules.counters.probes == 0


# -- pings of others ---------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_to_the_one_it_names() -> None:
    core = TestedSwim.make()
    core.take()
    core.receive(Ping(seq_no=7, node="me"), source=endpoint_of(3))
    named = endpoint_of(4)
    core.receive(Ping(seq_no=8, node="", source_addr=named.address, source_port=named.port), source=endpoint_of(3))
    packets = [effect for effect in core.take() if isinstance(effect, SendPacket)]
    assert [(packet.target, messages([packet])[0]) for packet in packets] == [
        (endpoint_of(3), Ack(seq_no=7, payload=b"")),
        (named, Ack(seq_no=8, payload=b"")),
    ]


def test_a_ping_for_another_is_not_answered() -> None:
    core = TestedSwim.make()
    core.take()
    core.receive(Ping(seq_no=7, node="other"))
    assert core.take() == []
    assert core.swim.prober.ping(Ping(seq_no=7, node="other"), None) is None


def test_a_ping_by_stream_is_answered_there() -> None:
    core = TestedSwim.make()
    core.take()
    assert core.swim.prober.ping(Ping(seq_no=7, node="me"), None) == Ack(seq_no=7, payload=b"")
    assert core.take() == []


def request(seq_no: int = 9, *, nack: bool = True) -> IndirectPing:
    target, asker = endpoint_of(5), endpoint_of(6)
    return IndirectPing(
        seq_no=seq_no, target=target.address, port=target.port, node="n5", nack=nack,
        source_addr=asker.address, source_port=asker.port, source_node="n6",
    )  # fmt: skip


def relayed(core: TestedSwim) -> Ping:
    (packet,) = core.take()
    (ping,) = messages([packet])
    assert isinstance(packet, SendPacket)
    assert isinstance(ping, Ping)
    assert packet.target == endpoint_of(5)
    return ping


def quiet_core() -> TestedSwim:
    core = TestedSwim.make()
    core.broadcasts()
    core.take()
    return core


def test_an_indirect_ping_is_relayed_with_its_ack() -> None:
    core = quiet_core()
    core.receive(request())
    ping = relayed(core)
    assert ping.node == "n5"
    assert ping.source_node == "me"
    core.receive(Ack(seq_no=ping.seq_no, payload=b"x"), source=endpoint_of(5))
    core.receive(Ack(seq_no=ping.seq_no, payload=b"x"), source=endpoint_of(5))
    (answer,) = core.take()
    assert isinstance(answer, SendPacket)
    assert answer.target == endpoint_of(6)
    assert messages([answer]) == [Ack(seq_no=9, payload=b"")]
    assert messages(core.advance(1.0)) == []


def test_without_an_ack_the_asker_gets_a_nack_if_it_wants_one() -> None:
    core = quiet_core()
    core.receive(request(9), request(10, nack=False))
    core.take()
    assert messages(core.advance(0.6)) == [Nack(seq_no=9)]
    assert core.swim.prober._relayed == {}


def test_there_is_a_bound_to_what_is_relayed() -> None:
    core = quiet_core()
    core.receive(*(request(number) for number in range(MAX_RELAYED_PINGS + 100)))
    assert len(core.swim.prober._relayed) == MAX_RELAYED_PINGS
    core.advance(0.6)
    assert core.swim.prober._relayed == {}


def test_a_member_that_refuted_during_its_probe_is_not_accused_anew() -> None:
    tested = TestedSwim.make()
    tested.receive(alive("b", 1))
    while tested.swim.prober._probe is None:
        tested.advance(0.01)
    tested.receive(alive("b", 2))
    tested.advance(3.0)
    assert tested.swim.rules.counters.probes_failed
    assert tested.swim.rules.counters.suspected <= tested.swim.rules.counters.probes_failed - 1
