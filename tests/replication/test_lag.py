from __future__ import annotations

from proglog_trio.replication.lag import BEHIND_LOOKS, Lag, LagWatch, lag_of

from .simulation.cluster import Cluster, Node


def lag(node: Node, other: Node) -> Lag:
    replica = node.running.replica
    return lag_of(replica, replica.plan.peers[other.name])


def test_a_writer_lacks_nothing_of_what_it_writes() -> None:
    """Although it tells of its own position more rarely than its frames arrive."""
    cluster = Cluster(1)
    a, b = cluster.add("a"), cluster.add("b")
    cluster.run(3)
    watch = LagWatch(b.running.replica)
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
    watch = LagWatch(a.running.replica)
    cluster.pause(b)
    cluster.produce(a, records=3)
    cluster.run(0.5)
    assert lag(a, b).peer_behind == 3
    changes = [change for _ in range(2 * BEHIND_LOOKS) for change in watch.look()]
    assert [(change.peer, change.is_behind, change.records) for change in changes] == [("b", True, 3)]
    cluster.resume(b)
    cluster.run_until_agreed(5)
    assert [(change.peer, change.is_behind) for change in watch.look()] == [("b", False)]
