"""Processes that are stopped for longer than every timeout, one, several or all, and look at their timers first."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proglog_trio.replication.events import Diverged, GapMarked
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from tests.log.simulated_disk import Loss
from tests.replication.simulation.cluster import Cluster
from tests.replication.simulation.test_sources import cluster_of, fill, source_of

LONGER = st.sampled_from([0.0, 60.0, 1e6, 1e8])


def gaps(cluster: Cluster) -> list[object]:
    return [event for _, event in cluster.events if isinstance(event, GapMarked | Diverged)]


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(0, 2**5), st.sampled_from([0.0, 1.5, 30.0]), LONGER,
    st.integers(1, 4),
)  # fmt: skip
def test_nothing_is_given_up_for_a_pause(
    seed: int, size: int, who: int, seconds: float, longer: float, wanted: int
) -> None:
    cluster, nodes = cluster_of(seed, size)
    for node in nodes:
        fill(cluster, node, 3)
        cluster.produce(node, wanted=wanted)
    stopped = [node for number, node in enumerate(nodes) if who >> number & 1 or not who]
    for node in stopped:
        cluster.pause(node)
    for node in nodes:
        if node not in stopped:
            cluster.produce(node, wanted=wanted)
    cluster.run(seconds)
    for node in stopped:
        cluster.resume(node, longer)
        cluster.produce(node, wanted=wanted)
        cluster.run(0.01)
    cluster.run_until_agreed(30.0)
    cluster.run(15.0)
    assert not gaps(cluster)
    for node in nodes:
        assert not node.running.replica.holdings.acknowledgements.waiting
        cluster.check_ranges(node)


@pytest.mark.parametrize("longer", [0.0, 1e6])
def test_a_writer_has_not_stalled_while_this_node_was_stopped(longer: float) -> None:
    """What the writer sent waits to be read: no other node has to send it once more."""
    cluster, (a, b, _c) = cluster_of(4, 3)
    origin = fill(cluster, a, 5)
    cluster.run(1.0)
    cluster.produce(a)
    cluster.run(0.001)
    cluster.pause(b)
    cluster.run(4.0)
    cluster.resume(b, longer)
    for _ in range(30):
        cluster.run(0.1)
        assert source_of(b, origin) == a.name
    cluster.run_until_agreed(1.0)
    assert b.running.replica.node.counters.frames_dropped == 0


@pytest.mark.parametrize("longer", [0.0, 1e6])
def test_who_was_away_for_a_moment_is_waited_for_as_long_as_ever(longer: float) -> None:
    """One node alone has the beginning and restarts; the one that needs it is stopped before it is back."""
    cluster, (a, b) = cluster_of(5, 2, retention_bytes=6000)
    origin = fill(cluster, a, 60, size=300)
    cluster.run_until_agreed(5.0)
    cluster.apply_retention(b)
    assert b.running.opened.log.origins[origin].low > 0
    c = cluster.add("n2")
    cluster.network.block(["n2"], ["n0"])
    cluster.network.block(["n0"], ["n2"])
    cluster.run(1.5)
    assert c.running.replica.peers.views["n0"].connected is False
    cluster.pause(c)
    cluster.run(3.0)
    cluster.network.heal()
    cluster.resume(c, longer)
    assert not gaps(cluster)
    cluster.run_until_agreed(30.0)
    assert not gaps(cluster)
    assert c.running.opened.log.origins[origin].low == 0


@pytest.mark.parametrize("longer", [10.0, 1e6])
def test_an_acknowledgement_that_has_arrived_counts(longer: float) -> None:
    cluster, (a, b) = cluster_of(6, 2)
    origin = fill(cluster, a, 1)
    cluster.pause(b)
    answers: list[AcknowledgementResult] = []
    cluster.produce(a)
    cluster.run(0.01)
    end = a.running.opened.log.origins[origin].next
    a.running.replica.wait_acknowledged(origin, 0, end, 2, 5.0, answers.append)
    cluster.run(0.1)
    # All of it is over before the membership looks at them again: what is read is what is asked about here.
    cluster.pause(a)
    cluster.resume(b)
    cluster.run(0.7)
    cluster.resume(a, longer)
    assert not answers
    cluster.run(1.0)
    assert answers == [AcknowledgementResult(2, True)]


def test_a_wait_ends_although_the_process_is_stopped_again_and_again() -> None:
    cluster, (a, b) = cluster_of(7, 2)
    origin = fill(cluster, a, 1)
    cluster.stop(b, Loss.KEEP)
    answers: list[AcknowledgementResult] = []
    a.running.replica.wait_acknowledged(origin, 0, 10, 2, 5.0, answers.append)
    for _ in range(40):
        cluster.run(0.2)
        cluster.pause(a)
        cluster.resume(a, 100.0)
    assert [answer.reached for answer in answers] == [False]
