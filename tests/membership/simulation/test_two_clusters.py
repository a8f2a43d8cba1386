"""Two clusters that meet: by a join to a wrong address, by addresses that change hands, by an agent in the middle.

Whatever happens, no node of one ever sees a member of the other, and each of them stays a cluster.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from proglog_trio.membership.serf.clusters import ClusterTag
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.serf import CoreEvent
from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.wire.serf import UserEvent, encode_serf
from tests.membership.simulation.cluster import Cluster, SimulatedNode, address_of
from tests.membership.simulation.handlers import alternates
from tests.membership.simulation.network import Conditions
from tests.membership.simulation.strategies import EXAMPLES, SEEDS, faulty
from tests.membership.simulation.trace import unexplained

ORDERS, BILLING = "orders", "billing"
OTHER = {ORDERS: BILLING, BILLING: ORDERS}
TAG = "cluster_name"
SETTLED_SECONDS = 400.0


@define(eq=False)
class Clusters:
    """Nodes of two clusters on one network.

    Attributes:
        seen: what any node saw of the other cluster, in words.
    """

    simulated: Cluster
    seen: list[str] = field(factory=list)
    _next_address: int = 1

    @classmethod
    def make(cls, seed: int, sizes: tuple[int, int], conditions: Conditions | None = None) -> Clusters:
        clusters = cls(Cluster.make(seed))
        clusters.simulated.watch = clusters.watch
        if conditions is not None:
            clusters.simulated.network.conditions = conditions
        for name, size in zip(OTHER, sizes, strict=True):
            first = clusters.start(name)
            for _ in range(size - 1):
                clusters.simulated.join(clusters.start(name), [first.endpoint])
        assert clusters.simulated.run_until(clusters.agree, SETTLED_SECONDS) is not None, clusters.disagreement()
        return clusters

    def watch(self, node: SimulatedNode, event: CoreEvent) -> None:
        if not isinstance(event, MemberEvent) or event.kind not in (MemberEventKind.JOIN, MemberEventKind.UPDATE):
            return
        # What agents, and older versions, take in is theirs.
        own = None if node.core.cluster is None else node.tags.get(TAG)
        for member in event.members:
            if own is not None and member.tags.get(TAG, own) != own:
                self.seen.append(f"{self.simulated.now:.1f}: {node.name} of {own} sees {member}")

    def new_address(self) -> int:
        self._next_address += 1
        return self._next_address

    def start(self, cluster: str, name: str | None = None, address: int | None = None) -> SimulatedNode:
        """Start a node of a cluster, alone so far, at a new address or at one that somebody had."""
        endpoint = address_of(self.new_address() if address is None else address)
        name = name if name is not None else f"{cluster}-{endpoint.host}"
        tags = {TAG: cluster, "rpc_addr": f"{endpoint.host}:8400", "life": str(self.simulated.now)}
        return self.simulated.start(name, endpoint, tags, ClusterTag(TAG, cluster))

    def start_agent(self, name: str, tags: dict[str, str] | None = None) -> SimulatedNode:
        """Start what takes everybody in: a plain agent, or with tags a node of a version that did not look at them."""
        return self.simulated.start(name, address_of(self.new_address()), tags or {}, None)

    def live(self, cluster: str) -> list[SimulatedNode]:
        return [node for node in self.simulated.live if node.tags.get(TAG) == cluster and node.core.cluster is not None]

    def agree(self) -> bool:
        return self.disagreement() is None

    def disagreement(self) -> str | None:
        """Return in words what a node does not know of its own cluster, or knows wrongly; None: nothing."""
        for cluster in OTHER:
            live = self.live(cluster)
            for node in live:
                members = node.core.members.by_name
                for other in live:
                    member = members.get(other.name)
                    if member is None or member.status is not MemberStatus.ALIVE or member.tags != other.tags:
                        return f"{node.name} knows {other.name} as {member}"
                    if node.core.swim.rules.nodes[other.name].status is not NodeStatus.ALIVE:
                        return f"{node.name} holds {other.name} for {node.core.swim.rules.nodes[other.name].status}"
                names = {other.name for other in live}
                for name, member in members.items():
                    there = member.status in (MemberStatus.ALIVE, MemberStatus.LEAVING)
                    if there and name not in names and TAG in member.tags:
                        return f"{node.name} holds {name} for {member.status.value}"
        return None

    def check(self) -> None:
        """Check that neither has seen anything of the other, in the end and all the time."""
        assert not self.seen, self.seen
        for cluster in OTHER:
            for node in self.live(cluster):
                foreign = [m.name for m in node.core.members.by_name.values() if m.tags.get(TAG, cluster) != cluster]
                assert not foreign, f"{node.name} knows {foreign}"
        assert not unexplained(self.simulated.trace, self.simulated.profile)


def settle(clusters: Clusters) -> None:
    clusters.simulated.network.conditions = Conditions()
    assert clusters.simulated.run_until(clusters.agree, SETTLED_SECONDS) is not None, clusters.disagreement()
    clusters.check()


# -- one meeting at a time ---------------------------------------------------------------------------------------------


LONG_AGO = 1_000_000
"""A Lamport time that the clocks of one cluster are at, and those of the other never get to."""


def in_the_past(clusters: Clusters, cluster: str) -> None:
    """Let a cluster have had many events, queries and members: its clocks are far ahead of the other's."""
    for node in clusters.live(cluster):
        for clock in (node.core.clock, node.core.events.clock, node.core.query_clock):
            clock.time = LONG_AGO
        node.core.receive(encode_serf(UserEvent(ltime=LONG_AGO + 1, name="deploy", payload=b"x", cc=False)))
        clusters.simulated.act(node, node.core.intents.announce_join)
    clusters.simulated.run(20.0)


def clocks(nodes: Sequence[SimulatedNode]) -> int:
    return max(max(n.core.clock.time, n.core.events.clock.time, n.core.query_clock.time) for n in nodes)


def member_clock(nodes: Sequence[SimulatedNode]) -> int:
    """Return the highest time of what was said about members. Events say of nobody where they are from."""
    return max(node.core.clock.time for node in nodes)


def heard_events(nodes: Sequence[SimulatedNode]) -> list[str]:
    return [node.name for node in nodes if list(node.core.events.recent.items())]


@pytest.mark.parametrize("joiner", [ORDERS, BILLING])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_a_join_to_a_member_of_another_cluster_fails_and_tells_neither_of_the_other(
    joiner: str, sizes: tuple[int, int]
) -> None:
    clusters = Clusters.make(1, sizes)
    in_the_past(clusters, BILLING)
    told: list[bool] = []
    node = clusters.live(joiner)[0]
    for target in clusters.live(OTHER[joiner]):
        clusters.simulated.exchange(node, target.endpoint, join=True, joining=True, done=told.append)
    clusters.simulated.run(60.0)
    assert told == [False] * len(clusters.live(OTHER[joiner]))
    settle(clusters)
    assert clocks(clusters.live(ORDERS)) < 1000
    assert not heard_events(clusters.live(ORDERS))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_said_to_an_address_that_has_changed_hands_moves_no_clock(seed: int) -> None:
    """The members of the one that lost it go on gossiping to it for a while, also about those who are unknown there."""
    clusters = Clusters.make(seed, (2, 4))
    in_the_past(clusters, BILLING)
    lost = clusters.live(BILLING)[3]
    clusters.simulated.crash(lost)
    new = clusters.start(ORDERS, address=int.from_bytes(lost.endpoint.address[1:], "big"))
    clusters.simulated.join(new, [clusters.live(ORDERS)[0].endpoint])
    for node in clusters.live(BILLING):
        clusters.simulated.act(node, node.core.intents.announce_join)
    clusters.simulated.run(60.0)
    settle(clusters)
    assert member_clock(clusters.live(BILLING)) > LONG_AGO
    assert member_clock(clusters.live(ORDERS)) < LONG_AGO


@pytest.mark.parametrize("same_name", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 3.0, 20.0, 120.0])
def test_an_address_that_goes_to_the_other_cluster_merges_nothing(same_name: bool, seconds: float) -> None:
    """Also where machines are named alike: the member of that name is gone, though somebody answers to it."""
    clusters = Clusters.make(2, (3, 2))
    lost, first, its_first = clusters.live(ORDERS)[2], clusters.live(ORDERS)[0], clusters.live(BILLING)[0]
    clusters.simulated.crash(lost)
    clusters.simulated.run(seconds)
    number = int.from_bytes(lost.endpoint.address[1:], "big")
    new = clusters.start(BILLING, lost.name if same_name else None, number)
    clusters.simulated.join(new, [its_first.endpoint])
    clusters.simulated.run(200.0)
    settle(clusters)
    for node in clusters.live(ORDERS):
        assert node.core.members.by_name[lost.name].status is MemberStatus.FAILED
    # It comes back to where it was.
    clusters.simulated.crash(new)
    back = clusters.start(ORDERS, lost.name, number)
    clusters.simulated.join(back, [first.endpoint])
    settle(clusters)
    assert len(clusters.live(ORDERS)) == 3


def test_a_member_that_is_told_another_cluster_is_gone_at_once() -> None:
    clusters = Clusters.make(3, (3, 1))
    moved = clusters.live(ORDERS)[1]
    clusters.simulated.set_tags(moved, {**moved.tags, TAG: BILLING})
    left = [node for node in clusters.live(ORDERS) if node is not moved]
    clusters.simulated.run(5.0)
    for node in left:
        assert node.core.members.by_name[moved.name].status is MemberStatus.FAILED
    assert not clusters.seen


@pytest.mark.parametrize("seed", range(5))
def test_an_agent_that_joins_both_brings_neither_to_the_other(seed: int) -> None:
    clusters = Clusters.make(seed, (3, 3))
    agent = clusters.start_agent("agent")
    for cluster in OTHER:
        clusters.simulated.exchange(agent, clusters.live(cluster)[0].endpoint, join=True, joining=True)
    clusters.simulated.run(200.0)
    known = {member.tags.get(TAG) for member in agent.core.members.by_name.values()}
    assert {ORDERS, BILLING} & known, "it is a member of one at least"
    settle(clusters)


@pytest.mark.parametrize("seed", range(3))
def test_a_node_of_a_version_that_takes_everybody_in_brings_nobody(seed: int) -> None:
    """It is of one of the clusters, and has merged the other before anybody looked."""
    clusters = Clusters.make(seed, (2, 2))
    old = clusters.start_agent("old", {TAG: BILLING, "rpc_addr": "10.0.0.99:8400"})
    for cluster in OTHER:
        clusters.simulated.exchange(old, clusters.live(cluster)[0].endpoint, join=True, joining=True)
    clusters.simulated.run(200.0)
    assert not clusters.seen
    for node in clusters.live(ORDERS):
        assert "old" not in node.core.members.by_name
    for node in clusters.live(BILLING):
        assert node.core.members.by_name["old"].status is MemberStatus.ALIVE
    assert ORDERS not in {member.tags.get(TAG) for member in old.core.members.by_name.values()}, "it was told nothing"


# -- whatever happens --------------------------------------------------------------------------------------------------

ACTIONS = st.sampled_from(["join", "take address", "take address and name", "agent", "old", "crash", "event", "leave"])


def act(clusters: Clusters, action: str, rng: random.Random) -> None:
    simulated = clusters.simulated
    cluster = rng.choice(list(OTHER))
    ours, theirs = clusters.live(cluster), clusters.live(OTHER[cluster])
    node, other = rng.choice(ours), rng.choice(theirs)
    match action:
        case "join":
            simulated.exchange(node, other.endpoint, join=True, joining=True)
        case "take address" | "take address and name" if len(theirs) > 2:
            simulated.crash(other)
            simulated.run(rng.choice([0.0, 2.0, 30.0]))
            number = int.from_bytes(other.endpoint.address[1:], "big")
            new = clusters.start(cluster, other.name if action.endswith("name") else None, number)
            simulated.join(new, [node.endpoint])
            for former in theirs:
                if former is not other:
                    # They gossip to that address for a while.
                    simulated.act(former, former.core.intents.announce_join)
        case "agent" | "old":
            tags = {} if action == "agent" else {TAG: cluster, "rpc_addr": "10.9.9.9:1"}
            agent = clusters.start_agent(f"{action}-{clusters.new_address()}", tags)
            for target in (node, other):
                simulated.exchange(agent, target.endpoint, join=True, joining=True)
        case "crash" if len(ours) > 2:
            simulated.crash(node)
        case "leave" if len(ours) > 2:
            simulated.leave(node)
        case "event":
            time = node.core.events.clock.tick()
            event = encode_serf(UserEvent(ltime=time, name="deploy", payload=b"", cc=False))
            simulated.act(node, lambda: node.core.receive(event))


@pytest.mark.system
@settings(max_examples=max(EXAMPLES // 12, 5))
@given(SEEDS, faulty(), st.lists(ACTIONS, min_size=1, max_size=8))
def test_nothing_of_one_cluster_is_ever_seen_in_the_other(
    seed: int, conditions: Conditions, actions: list[str]
) -> None:
    clusters = Clusters.make(seed, (4, 3))
    in_the_past(clusters, BILLING)
    clusters.simulated.network.conditions = conditions
    rng = random.Random(seed)
    for action in actions:
        act(clusters, action, rng)
        clusters.simulated.run(rng.choice([0.1, 5.0, 60.0]))
    assert not clusters.seen, clusters.seen
    clusters.simulated.network.conditions = Conditions()
    clusters.simulated.run(SETTLED_SECONDS)
    clusters.check()
    if not {"agent", "old"}.intersection(actions):
        # Who is a member of both has a time of its own that is after all that it has heard, and tells both.
        assert member_clock(clusters.live(ORDERS)) < LONG_AGO
    for cluster in OTHER:
        for node in clusters.live(cluster):
            handler = alternates(node.name, node.events)
            addresses = {other.tags["rpc_addr"] for other in clusters.live(OTHER[cluster])}
            assert not addresses & set(handler.peers.values())
