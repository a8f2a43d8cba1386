"""What is detected, how soon, and what must not be."""

from __future__ import annotations

from functools import partial

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proglog_trio.membership.profile import GossipProfile, ProfileName
from proglog_trio.membership.serf.member import MemberStatus, MemberStatusChange
from proglog_trio.membership.swim.effects import StatusChange
from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.wire.memberlist import Dead, Suspect, UserMessage, encode_message
from proglog_trio.membership.wire.serf import Leave, encode_serf
from tests.membership.simulation.bounds import detection_bound
from tests.membership.simulation.cluster import Cluster, address_of
from tests.membership.simulation.network import Conditions
from tests.membership.simulation.strategies import EXAMPLES, PROFILES, QUICK_PROFILES, SEEDS, lossless, sizes
from tests.membership.simulation.trace import unexplained

few = settings(max_examples=max(EXAMPLES // 3, 5), suppress_health_check=list(HealthCheck))


def reproducible(cluster: Cluster) -> list[str]:
    return [f"{entry.time} {entry.observer} {entry.event}" for entry in cluster.trace]


@few
@given(SEEDS, sizes(), PROFILES, lossless(), st.floats(0, 5))
def test_a_crash_is_known_everywhere_within_the_bound_when_nothing_is_lost(
    seed: int, size: int, profile: GossipProfile, conditions: Conditions, wait: float
) -> None:
    cluster = Cluster.make(seed, profile, encoded=size <= 8)
    cluster.network.conditions = conditions
    nodes = cluster.form(size)
    cluster.run(wait * profile.probe_interval)
    victim = nodes[seed % size]
    cluster.crash(victim)
    bound = detection_bound(profile, size)
    took = cluster.run_until(lambda: cluster.all_see(victim.name, MemberStatus.FAILED), bound, step=0.1)
    assert took is not None, f"not everybody knows after {bound} s"
    assert unexplained(cluster.trace, profile) == []


@few
@given(SEEDS, sizes(), PROFILES, lossless())
def test_nobody_fails_without_faults(seed: int, size: int, profile: GossipProfile, conditions: Conditions) -> None:
    cluster = Cluster.make(seed, profile, encoded=size <= 8)
    cluster.network.conditions = conditions
    nodes = cluster.form(size)
    for round_number in range(8):
        cluster.run(profile.probe_interval * 4)
        chosen = nodes[(seed + 7 * round_number) % size]
        if chosen.running:
            cluster.set_tags(chosen, {"round": str(round_number)})
    if size > 2:
        cluster.leave(nodes[seed % size])
    cluster.run(profile.probe_interval * 20)
    for entry in cluster.trace:
        if isinstance(entry.event, StatusChange):
            assert entry.event.after is not NodeStatus.DEAD, entry
        if isinstance(entry.event, MemberStatusChange):
            assert entry.event.after is not MemberStatus.FAILED, entry
    assert cluster.run_until(cluster.agrees, 60) is not None, cluster.disagreement()
    if size > 2:
        assert cluster.all_see(nodes[seed % size].name, MemberStatus.LEFT)
    assert unexplained(cluster.trace, profile) == []


@few
@given(
    SEEDS,
    st.integers(4, 8),
    QUICK_PROFILES,
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3)), min_size=1, max_size=8),
)
# The refutation misses n2, which has heard of the suspicion in a push/pull as well.
@example(29531, 7, GossipProfile.named(ProfileName.LOCAL), [(0, 0)])
def test_a_node_that_refutes_stays_alive(
    seed: int, size: int, profile: GossipProfile, accusations: list[tuple[int, int]]
) -> None:
    """Suspicions that one node makes up, about the newest incarnation or a later one.

    Nobody confirms them, so everybody who holds one probes the accused before it expires, and is told: in a cluster so
    small that a round is shorter than the longest suspicion, this is certain, and no matter of where gossip happens to
    go.
    """
    cluster = Cluster.make(seed, profile)
    nodes = cluster.form(size)
    accused = nodes[seed % size]
    others = [node for node in nodes if node is not accused]
    for where, above in accusations:
        hearer = others[where % len(others)]
        lie = Suspect(
            incarnation=accused.core.swim.rules.me.incarnation + above, node=accused.name, from_node="somebody"
        )
        cluster.act(hearer, partial(hearer.core.swim.receive, [lie], accused.endpoint))
        cluster.run(where % 7 / 2)
    cluster.run(3 * detection_bound(profile, size))
    assert cluster.agrees(), cluster.disagreement()
    assert accused.core.swim.rules.counters.refuted
    for entry in cluster.trace:
        if isinstance(entry.event, StatusChange) and entry.event.name == accused.name:
            assert entry.event.after in (NodeStatus.ALIVE, NodeStatus.SUSPECT), entry
    assert unexplained(cluster.trace, profile) == []


@few
@given(SEEDS, sizes(20), QUICK_PROFILES, st.integers(0, 3), st.booleans())
def test_a_living_node_that_was_declared_dead_or_left_comes_back(
    seed: int, size: int, profile: GossipProfile, above: int, left: bool
) -> None:
    cluster = Cluster.make(seed, profile)
    nodes = cluster.form(size)
    accused, hearer = nodes[seed % size], nodes[(seed + 1) % size]
    incarnation = accused.core.swim.rules.me.incarnation + above
    lie = Dead(incarnation=incarnation, node=accused.name, from_node=accused.name if left else "somebody")
    time = hearer.core.clock.time + 1
    intent = encode_serf(Leave(ltime=time, node=accused.name, prune=False))
    cluster.act(hearer, lambda: hearer.core.swim.receive([lie, UserMessage(intent)], accused.endpoint))
    assert cluster.run_until(cluster.agrees, 300) is not None, cluster.disagreement()
    cluster.run(30)
    assert cluster.agrees(), cluster.disagreement()
    assert unexplained(cluster.trace, profile) == []


# Whatever is not decided by the seed shows in any run of enough events.
@settings(few, max_examples=max(EXAMPLES // 12, 5))
@given(SEEDS, sizes(12), QUICK_PROFILES)
def test_the_same_seed_gives_the_same_trace(seed: int, size: int, profile: GossipProfile) -> None:
    traces = []
    for _ in range(2):
        cluster = Cluster.make(seed, profile)
        cluster.network.conditions = Conditions(loss=0.2, duplication=0.1, reordering=0.2)
        for node in cluster.start_many(size)[1:]:
            cluster.join(node, [address_of(0)])
        cluster.run(5)
        cluster.crash(cluster.nodes["n1"])
        cluster.run(20)
        traces.append(reproducible(cluster))
    assert traces[0] == traces[1]


def test_messages_as_bytes_and_decoded_once_give_the_same_trace() -> None:
    traces = []
    for encoded in (True, False):
        cluster = Cluster.make(5, encoded=encoded)
        cluster.form(12)
        cluster.crash(cluster.nodes["n3"])
        cluster.leave(cluster.nodes["n4"])
        cluster.run(40)
        traces.append(reproducible(cluster))
    assert traces[0] == traces[1]
    assert encode_message(Suspect(incarnation=1, node="n3", from_node="n0"))
