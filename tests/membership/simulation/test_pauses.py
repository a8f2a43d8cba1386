"""Processes that are stopped for longer than every timeout, one, several or all at once, and go on."""

from __future__ import annotations

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.effects import Cause, Paused, PingByStream, StatusChange
from proglog_trio.membership.swim.node import NodeStatus
from tests.membership.simulation.bounds import detection_bound, recovery_bound
from tests.membership.simulation.cluster import Cluster
from tests.membership.simulation.network import Conditions
from tests.membership.simulation.strategies import EXAMPLES, PROFILES, SEEDS, lossless, sizes
from tests.membership.simulation.trace import unexplained

few = settings(max_examples=max(EXAMPLES // 4, 5), suppress_health_check=list(HealthCheck))
LONGER = st.sampled_from([0.0, 5.0, 600.0, 1e6, 1e8])
"""How much longer than the others see a node is stopped, by its own clock: weeks and years as well."""


def forgetful(profile: GossipProfile) -> GossipProfile:
    """Return a profile whose members are forgotten so soon that a simulation can wait for it."""
    return evolve(profile, reconnect_timeout=20.0, tombstone_timeout=20.0, reap_interval=2.0, gossip_to_the_dead=5.0)


def deaths_seen_by(cluster: Cluster, observers: set[str], since: float, of: set[str]) -> list[str]:
    """Return who of some was called dead by whom of others by themselves, since a time."""
    return [
        f"{entry.time} {entry.observer}: {entry.event}"
        for entry in cluster.trace
        if entry.time >= since
        and entry.observer in observers
        and isinstance(entry.event, StatusChange)
        and entry.event.name in of
        and entry.event.after is NodeStatus.DEAD
        and entry.event.cause is Cause.TIMER
    ]


@few
@given(
    SEEDS, sizes(16), PROFILES, lossless(), st.sampled_from([1, 2, 1000]), st.floats(0, 3), LONGER, st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_whoever_was_stopped_is_back_within_the_bound(
    seed: int,
    size: int,
    profile: GossipProfile,
    conditions: Conditions,
    max_stopped: int,
    wait: float,
    longer: float,
    lose: bool,
    forget: bool,
) -> None:
    """Some are stopped until the others have called them dead, or forgotten them; and go on one after the other."""
    profile = forgetful(profile) if forget else profile
    cluster = Cluster.make(seed, profile, encoded=size <= 8)
    cluster.network.conditions = conditions
    nodes = cluster.form(size)
    cluster.run(wait * profile.probe_interval)
    stopped = [nodes[(seed + number) % size] for number in range(min(max_stopped, size - 1))]
    for node in stopped:
        cluster.pause(node)
    cluster.run(detection_bound(profile, size) + (60.0 if forget else 0.0))
    began = cluster.now
    for node in stopped:
        cluster.resume(node, lose=lose, longer=longer)
        cluster.run(0.01)
    bound = recovery_bound(profile, size)
    took = cluster.run_until(cluster.agrees, bound, step=0.1)
    assert took is not None, f"{bound} s after all went on: {cluster.disagreement()}"
    cluster.run(detection_bound(profile, size))
    assert cluster.agrees(), cluster.disagreement()
    healthy = {node.name for node in nodes if node not in stopped}
    assert deaths_seen_by(cluster, {node.name for node in stopped}, began, healthy) == []
    assert unexplained(cluster.trace, profile) == []


@few
@given(SEEDS, sizes(12), PROFILES, lossless(), st.floats(0, 3), st.floats(0, 60), LONGER, st.booleans(), st.booleans())
def test_a_cluster_that_is_stopped_as_a_whole_goes_on_as_it_was(
    seed: int,
    size: int,
    profile: GossipProfile,
    conditions: Conditions,
    wait: float,
    seconds: float,
    longer: float,
    lose: bool,
    is_probing: bool,
) -> None:
    cluster = Cluster.make(seed, profile, encoded=size <= 8)
    cluster.network.conditions = conditions
    nodes = cluster.form(size)
    cluster.run(wait * profile.probe_interval)
    if is_probing:
        # One that is stopped a little before the others: their probes of it and their suspicions are under way.
        cluster.pause(nodes[0])
        cluster.run(profile.probe_interval * (1 + seed % 3))
    for node in nodes:
        cluster.pause(node)
    cluster.run(seconds)
    began = cluster.now
    for node in nodes:
        cluster.resume(node, lose=lose, longer=longer)
    cluster.run(3 * detection_bound(profile, size))
    assert cluster.agrees(), cluster.disagreement()
    assert deaths_seen_by(cluster, set(cluster.nodes), began, set(cluster.nodes)) == []
    assert unexplained(cluster.trace, profile) == []


@few
@given(SEEDS, st.integers(2, 8), PROFILES, st.floats(0, 3), st.sampled_from([1.0, 10.0, 600.0, 1e6, 1e8]))
def test_one_who_goes_on_does_not_catch_up(
    seed: int, size: int, profile: GossipProfile, wait: float, seconds: float
) -> None:
    """What is done once a period is done once then, however many periods have passed."""
    cluster = Cluster.make(seed, profile)
    nodes = cluster.form(size)
    # The news of the beginning has been told; what remains is probes.
    cluster.run(30.0 + wait * profile.probe_interval)
    node = nodes[seed % size]
    counters = node.core.swim.rules.counters
    packets, streams = counters.packets_sent, cluster.network.traffic.streams
    cluster.pause(node)
    cluster.resume(node, longer=seconds)
    assert counters.packets_sent - packets <= 3 * profile.gossip_nodes + 2
    assert cluster.network.traffic.streams - streams <= 2
    rounds = 1.0 / profile.gossip_interval + 1
    cluster.run(1.0)
    assert counters.packets_sent - packets <= rounds * profile.gossip_nodes + 4 * size
    if seconds >= 10.0:
        said = [entry.event for entry in cluster.trace if isinstance(entry.event, Paused)]
        assert len(said) == 1
        assert seconds - profile.gossip_interval - 1 <= said[0].seconds <= seconds + profile.gossip_interval + 1
    assert cluster.run_until(cluster.agrees, 60.0) is not None, cluster.disagreement()


def test_no_effect_has_a_negative_time() -> None:
    """A probe is under way, its time is up, and the one that it was for does not answer: each length of the pause."""
    for profile in (GossipProfile(), GossipProfile(probe_interval=0.6, probe_timeout=0.5)):
        for number in range(60):
            cluster = Cluster.make(number, profile)
            a, b = cluster.form(2)
            cluster.pause(b)
            cluster.run(0.03 * number)
            a.core.swim.advance(cluster.now + 0.04 * number)
            for effect in a.core.swim.effects:
                assert not isinstance(effect, PingByStream) or effect.timeout > 0


def test_a_node_that_is_stopped_again_and_again_still_gossips() -> None:
    cluster = Cluster.make(1)
    nodes = cluster.form(3)
    before = nodes[0].core.swim.rules.counters.packets_sent
    for _ in range(100):
        cluster.pause(nodes[0])
        cluster.run(1.0)
        cluster.resume(nodes[0])
    assert nodes[0].core.swim.rules.counters.packets_sent - before > 20
