"""Whatever happens to a cluster, when it is over its members agree; and what they did on the way can be explained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.member import MemberStatus
from tests.membership.simulation.cluster import Cluster, SimulatedNode, address_of
from tests.membership.simulation.handlers import alternates
from tests.membership.simulation.network import PERFECT, Conditions
from tests.membership.simulation.strategies import EXAMPLES, QUICK_PROFILES, SEEDS, faulty, sizes
from tests.membership.simulation.trace import unexplained

CONVERGENCE_SECONDS = 1800.0
PLACES = st.integers(0, 2**16)
LONGER = st.sampled_from([0.0, 100.0, 1e6])
SECONDS = st.sampled_from([0.0, 0.3, 2.0, 8.0, 20.0, 60.0])


class Faults(RuleBasedStateMachine):
    """A cluster to which things happen."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.next_address = 0

    @initialize(seed=SEEDS, size=st.integers(2, 5), profile=QUICK_PROFILES)
    def form(self, seed: int, size: int, profile: GossipProfile) -> None:
        """A few nodes; more in FaultsOfMany, among the system's tests."""
        self.form_of(seed, size, profile)

    def form_of(self, seed: int, size: int, profile: GossipProfile) -> None:
        self.cluster = Cluster.make(seed, profile, encoded=size <= 6)
        self.cluster.form(size)
        self.next_address = size

    def some(self, place: int, wanted: Callable[[SimulatedNode], bool]) -> SimulatedNode | None:
        """Return one of the nodes that are wanted; None if there is none, and then a step does nothing."""
        nodes = [node for node in self.cluster.nodes.values() if wanted(node)]
        return nodes[place % len(nodes)] if nodes else None

    @rule(seconds=SECONDS, conditions=faulty())
    def change_conditions(self, seconds: float, conditions: Conditions) -> None:
        self.cluster.network.conditions = conditions
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, place=PLACES)
    def crash(self, seconds: float, place: int) -> None:
        node = self.some(place, lambda node: node.running)
        if node is not None and len(self.cluster.live) > 1:
            self.cluster.crash(node)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, place=PLACES)
    def restart(self, seconds: float, place: int) -> None:
        node = self.some(place, lambda node: not node.running)
        if node is not None:
            self.rejoin(self.cluster.start(node.name, node.endpoint), place)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, place=PLACES)
    def restart_elsewhere(self, seconds: float, place: int) -> None:
        node = self.some(place, lambda node: not node.running)
        endpoint = address_of(self.next_address)
        if node is not None and self.cluster.network.is_whole and self.cluster.look_for(node.name, endpoint):
            self.next_address += 1
            self.rejoin(self.cluster.start(node.name, endpoint), place)
        self.cluster.run(seconds)

    def rejoin(self, node: SimulatedNode, place: int) -> None:
        others = [other.endpoint for other in self.cluster.nodes.values() if other is not node]
        start = place % len(others)
        self.cluster.join(node, others[start:] + others[:start])

    @rule(seconds=SECONDS, place=PLACES)
    def pause(self, seconds: float, place: int) -> None:
        node = self.some(place, lambda node: node.is_up and not node.leaving)
        if node is not None:
            self.cluster.pause(node)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, places=PLACES)
    def pause_several(self, seconds: float, places: int) -> None:
        """Those on one host, or all: each is stopped in the middle of whatever it does."""
        for place, node in enumerate(self.cluster.live):
            if not places % 4 or places >> place % 14 & 1:
                self.cluster.pause(node)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, place=PLACES, lose=st.booleans(), longer=LONGER)
    def resume(self, seconds: float, place: int, lose: bool, longer: float) -> None:
        node = self.some(place, lambda node: node.paused)
        if node is not None:
            self.cluster.resume(node, lose=lose, longer=longer)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, lose=st.booleans(), longer=LONGER)
    def resume_all(self, seconds: float, lose: bool, longer: float) -> None:
        for node in self.cluster.nodes.values():
            if node.paused:
                self.cluster.resume(node, lose=lose, longer=longer)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS, place=PLACES)
    def leave(self, seconds: float, place: int) -> None:
        node = self.some(place, lambda node: node.is_up and not node.leaving)
        if node is not None and len(self.cluster.live) > 2:
            self.cluster.leave(node)
        self.cluster.run(seconds)

    @rule(place=PLACES, color=st.text(max_size=4))
    def set_tags(self, place: int, color: str) -> None:
        node = self.some(place, lambda node: node.is_up and not node.leaving)
        if node is not None:
            self.cluster.set_tags(node, {"rpc_addr": "10.9.9.9:1", "color": color})

    @rule(place=PLACES, other=PLACES, prune=st.booleans())
    def force_leave(self, place: int, other: int, prune: bool) -> None:
        """Only of nodes that are gone: those that failed on both sides of a partition find together again by trying."""
        node = self.some(place, lambda node: node.is_up and not node.leaving)
        if node is None:
            return
        failed = [
            member.name
            for member in node.core.members.with_status(MemberStatus.FAILED)
            if not self.cluster.nodes[member.name].running
        ]
        if failed:
            self.cluster.act(node, partial(node.core.intents.force_leave, failed[other % len(failed)], prune=prune))

    @rule(seconds=SECONDS, cut=PLACES, one_way=st.booleans())
    def partition(self, seconds: float, cut: int, one_way: bool) -> None:
        endpoints = sorted(node.endpoint for node in self.cluster.nodes.values())
        ours = {endpoint for place, endpoint in enumerate(endpoints) if cut >> place % 16 & 1}
        theirs = set(endpoints) - ours
        self.cluster.network.block(ours, theirs)
        if not one_way:
            self.cluster.network.block(theirs, ours)
        self.cluster.run(seconds)

    @precondition(lambda self: not self.cluster.network.is_whole)
    @rule(seconds=SECONDS)
    def heal(self, seconds: float) -> None:
        self.cluster.network.heal()
        self.cluster.run(seconds)

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.network.heal()
        cluster.network.conditions = PERFECT
        for node in cluster.nodes.values():
            if node.paused:
                cluster.resume(node)
        agreed = cluster.run_until(cluster.agrees, CONVERGENCE_SECONDS, step=5.0)
        islands = cluster.islands()
        if len(islands) > 1:
            # Nodes that came back found only others of those; to the rest they are left, or not known. No member of
            # such a cluster can know that there is another, so somebody has to say it.
            for island in islands[1:]:
                cluster.join(island[0], [islands[0][0].endpoint])
            agreed = cluster.run_until(cluster.agrees, CONVERGENCE_SECONDS, step=5.0)
        assert agreed is not None, cluster.disagreement()
        # It stays so.
        cluster.run(60.0)
        assert cluster.agrees(), cluster.disagreement()
        assert unexplained(cluster.trace, cluster.profile) == []
        for node in cluster.live[:2]:
            alternates(node.name, node.events)


class FaultsOfMany(Faults):
    """The same with larger clusters, each of whose seconds takes longer to simulate."""

    @initialize(seed=SEEDS, size=sizes(24), profile=QUICK_PROFILES)
    def form(self, seed: int, size: int, profile: GossipProfile) -> None:
        self.form_of(seed, size, profile)


# A failing example is shown as it was found: each try to make it smaller simulates half an hour more.
few = settings(
    max_examples=max(EXAMPLES // 2, 5),
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)
TestFaults = Faults.TestCase
TestFaults.settings = few
TestFaultsOfMany = pytest.mark.system(FaultsOfMany.TestCase)
TestFaultsOfMany.settings = few


def test_groups_that_know_each_other_as_left_are_islands_until_one_joins_the_other() -> None:
    cluster = Cluster.make(3)
    a, b, c = cluster.form(3)
    cluster.leave(c)
    cluster.run(20.0)
    cluster.crash(b)
    cluster.network.block([a.endpoint], [b.endpoint, c.endpoint])
    cluster.network.block([b.endpoint, c.endpoint], [a.endpoint])
    b = cluster.start(b.name, b.endpoint)
    c = cluster.start(c.name, c.endpoint)
    cluster.join(c, [b.endpoint])
    cluster.run(5.0)
    cluster.crash(b)
    cluster.network.heal()
    assert cluster.run_until(cluster.agrees, 1000.0) is None
    assert cluster.islands() == [[a], [c]]
    cluster.join(c, [a.endpoint])
    assert cluster.run_until(cluster.agrees, 100.0) is not None, cluster.disagreement()
    assert len(cluster.islands()) == 1
