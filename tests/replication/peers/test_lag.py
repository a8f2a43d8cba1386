from __future__ import annotations

from proglog_trio.log.config import LogConfig
from proglog_trio.replication.peers.lag import BEHIND_LOOKS, Lag, LagWatch, lag_of
from tests.log.driving import DIRECTORY
from tests.replication.simulation.cluster import Cluster, Node


def lag(node: Node, other: Node) -> Lag:
    replica = node.running.replica
    return lag_of(replica.node.log.origins, replica.peers.views[other.name])


def test_a_writer_lacks_nothing_of_what_it_writes() -> None:
    """Although it tells of its own position more rarely than its frames arrive."""
    cluster = Cluster(1)
    a, b = cluster.add("a"), cluster.add("b")
    cluster.run(3)
    watch = LagWatch(b.running.replica.node, b.running.replica.peers)
    for _ in range(20):
        cluster.produce(a)
        cluster.run(0.01)
        assert lag(b, a).peer_behind == 0
        assert list(watch.look()) == []
    cluster.run_until_agreed(5)
    cluster.run(1)
    assert lag(a, b) == lag(b, a) == Lag(0, 0)


def test_a_peer_that_falls_behind_is_noticed_once_and_its_catching_up_too() -> None:
    cluster = Cluster(1)
    a, b = cluster.add("a"), cluster.add("b")
    cluster.run(3)
    watch = LagWatch(a.running.replica.node, a.running.replica.peers)
    cluster.pause(b)
    cluster.produce(a, records=3)
    cluster.run(0.5)
    assert lag(a, b).peer_behind == 3
    changes = [change for _ in range(2 * BEHIND_LOOKS) for change in watch.look()]
    assert [(change.peer, change.is_behind, change.records) for change in changes] == [("b", True, 3)]
    cluster.resume(b)
    cluster.run_until_agreed(5)
    assert [(change.peer, change.is_behind) for change in watch.look()] == [("b", False)]


def test_what_retention_dropped_is_nothing_that_a_new_node_lacks() -> None:
    cluster = Cluster(1)
    config = LogConfig(DIRECTORY, segment_bytes=2000, retention_bytes=6000)
    a = cluster.add("a", config=config)
    for _ in range(300):
        cluster.produce(a)
        cluster.run(0.01)
    cluster.apply_retention(a)
    (state,) = a.running.opened.log.origins.values()
    assert 0 < state.low < state.next == 300
    b = cluster.add("b", config=config)
    cluster.run(3)
    assert lag(b, a) == Lag(0, state.next - state.low)
    assert lag(a, b) == Lag(state.next - state.low, 0)
    cluster.run(10)
    assert lag(a, b) == lag(b, a) == Lag(0, 0)
    assert b.running.replica.node.counters.records_missing == state.low
