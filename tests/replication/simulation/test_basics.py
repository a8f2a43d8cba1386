from __future__ import annotations

from tests.replication.simulation.cluster import Cluster


def test_two_nodes_hold_what_each_wrote_once() -> None:
    cluster = Cluster(1)
    a, b = cluster.add("a"), cluster.add("b")
    cluster.run(3)
    for _ in range(50):
        cluster.produce(a)
        cluster.produce(b, records=3)
        cluster.run(0.01)
    cluster.run_until_agreed(5)
    cluster.run(10)
    for node in (a, b):
        cluster.check_ranges(node)
        assert node.running.opened.log.next_offset == 200
        counters = node.running.replica.node.counters
        assert counters.frames_dropped == 0
        assert counters.records_applied in (50, 150)
    assert cluster.frames(a).keys() == cluster.frames(b).keys()
    for origin, frames in cluster.frames(a).items():
        assert [stored.data for stored in frames] == [stored.data for stored in cluster.frames(b)[origin]]
    assert not cluster.problems
