from __future__ import annotations

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.decisions import Decision, Start
from proglog_trio.replication.messages import OriginRange, Positions, Want
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.pull_plan import DECIDED_AT_ONCE, PullPlan

ORIGINS = [Origin(number.to_bytes(16, "big")) for number in range(10)]


def plan_with_peer(states: dict[Origin, OriginState]) -> PullPlan:
    plan = PullPlan("me", states.get, PeerTable(Directories(b"me------")))
    plan.joined("peer", 0.0)
    plan.connected("peer", b"peer----")
    return plan


def test_what_neither_the_log_nor_a_peer_knows_any_more_is_not_kept() -> None:
    """Each opening of any node makes an origin, and all of them are forgotten in the end."""
    plan = plan_with_peer({})
    plan.positions("peer", Positions({origin: OriginRange(3, 3) for origin in ORIGINS}))
    assert plan.decide(1.0) == []
    plan.positions("peer", Positions(forgotten=tuple(ORIGINS)))
    assert plan.decide(2.0) == []
    assert not plan._pulls
    plan.positions("peer", Positions({ORIGINS[0]: OriginRange(3, 3)}))
    assert plan.decide(3.0) == []
    plan.left("peer")
    assert plan.decide(4.0) == []
    assert not plan._pulls


def test_what_the_log_knows_is_kept_until_it_is_forgotten() -> None:
    states = {ORIGINS[0]: OriginState(0, 3)}
    plan = plan_with_peer(states)
    plan.positions("peer", Positions({ORIGINS[0]: OriginRange(0, 3)}))
    plan.decide(1.0)
    plan.positions("peer", Positions(forgotten=(ORIGINS[0],)))
    plan.decide(2.0)
    assert set(plan._pulls) == {ORIGINS[0]}
    plan.forget(ORIGINS)
    assert not plan._pulls


def test_of_many_origins_some_are_decided_about_at_a_time() -> None:
    """With fifty peers each takes a tenth of a millisecond, and all are looked at again when a peer is gone."""
    origins = [Origin(number.to_bytes(16, "big")) for number in range(3 * DECIDED_AT_ONCE + 1)]
    plan = plan_with_peer({})
    plan.positions("peer", Positions({origin: OriginRange(0, 3) for origin in origins}))
    decisions: list[Decision] = []
    for _ in range(3):
        decisions += plan.decide(1.0)
        assert plan.next_deadline == 1.0
    decisions += plan.decide(1.0)
    assert plan.next_deadline is not None
    assert plan.next_deadline > 1.0
    assert decisions == [Start("peer", Want(origin, 0)) for origin in origins]
