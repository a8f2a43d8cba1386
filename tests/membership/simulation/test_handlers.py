"""The handler hears a join and a leave of each peer in turn, whatever happens and however slow it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
from tests.membership.simulation.cluster import Cluster
from tests.membership.simulation.handlers import alternates
from tests.membership.simulation.strategies import EXAMPLES, SEEDS

JOIN, UPDATE, LEAVE, FAILED, REAP = MemberEventKind
_STATUSES = {
    JOIN: MemberStatus.ALIVE,
    UPDATE: MemberStatus.ALIVE,
    LEAVE: MemberStatus.LEFT,
    FAILED: MemberStatus.FAILED,
}


def event(kind: MemberEventKind, name: str, address: str | None) -> MemberEvent:
    tags = {} if address is None else {"rpc_addr": address}
    return MemberEvent(kind, (Member(name, "10.0.0.1", 7946, tags, _STATUSES.get(kind, MemberStatus.LEFT)),))


@st.composite
def histories(draw: st.DrawFn) -> list[MemberEvent]:
    """Return what a core may say: a member joins, changes, goes, comes back, is forgotten."""
    events = []
    state: dict[str, str] = {}
    tags: dict[str, str | None] = {}
    for _ in range(draw(st.integers(0, 40))):
        name = draw(st.sampled_from(["me", "a", "b", "c"]))
        now = state.get(name, "unknown")
        kinds = {
            "unknown": [JOIN],
            "there": [UPDATE, LEAVE, FAILED],
            "failed": [JOIN, LEAVE, REAP],
            "left": [JOIN, REAP],
        }
        kind = draw(st.sampled_from(kinds[now]))
        if kind in (JOIN, UPDATE):
            tags[name] = draw(st.sampled_from([None, "", "x:1", "x:2"]))
        state[name] = {JOIN: "there", UPDATE: "there", LEAVE: "left", FAILED: "failed", REAP: "unknown"}[kind]
        events.append(event(kind, name, tags[name]))
    return events


@pytest.mark.internal_errors
@given(
    histories(),
    st.lists(st.sampled_from([0.0, 0.1, 1.0, -0.1]), max_size=4),
    st.lists(st.sampled_from([0.0, 0.05, 2.0]), max_size=4),
)
def test_calls_alternate(events: list[MemberEvent], delays: list[float], pauses: list[float]) -> None:
    alternates("me", events, delays, pauses)


def test_one_who_moves_leaves_first() -> None:
    events = [event(JOIN, "a", "x:1"), event(UPDATE, "a", "x:2"), event(UPDATE, "a", None), event(JOIN, "me", "x:3")]
    handler = alternates("me", events, pauses=[1.0])
    assert handler.calls[:3] == [("join", "a", "x:1"), ("leave", "a", "x:1"), ("join", "a", "x:2")]
    assert handler.calls[3:] == [("leave", "a", "x:2")]


def test_one_who_failed_and_came_back_meanwhile_has_left_and_joined() -> None:
    events = [event(JOIN, "a", "x:1"), event(FAILED, "a", "x:1"), event(JOIN, "a", "x:1")]
    handler = alternates("me", events, pauses=[1.0, 0.0])
    assert handler.calls[:3] == [("join", "a", "x:1"), ("leave", "a", "x:1"), ("join", "a", "x:1")]


@pytest.mark.internal_errors
@settings(max_examples=max(EXAMPLES // 6, 5))
@given(SEEDS)
def test_calls_alternate_in_a_cluster_that_is_cut_and_heals(seed: int) -> None:
    cluster = Cluster.make(seed)
    nodes = cluster.form(5)
    endpoints = [node.endpoint for node in nodes]
    cluster.network.block(endpoints[:2], endpoints[2:])
    cluster.run(40.0)
    cluster.set_tags(nodes[4], {"rpc_addr": "10.0.0.99:1"})
    cluster.network.heal()
    assert cluster.run_until(cluster.agrees, 600.0) is not None, cluster.disagreement()
    for node in nodes:
        handler = alternates(node.name, node.events, delays=[0.5, -0.5])
        assert handler.peers.keys() == {other.name for other in nodes if other is not node}
