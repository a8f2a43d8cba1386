"""A node without room on its disk pulls nothing, and goes on where it was when there is some."""

from __future__ import annotations

import pytest
from attrs import evolve

from proglog_trio.log.config import LogConfig
from proglog_trio.replication.events import Diverged, GapMarked
from tests.log.driving import DIRECTORY
from tests.log.simulated_disk import Loss
from tests.replication.simulation.cluster import Cluster, Node
from tests.replication.simulation.test_sources import cluster_of, fill


def check_all_is_well(cluster: Cluster) -> None:
    cluster.run_until_agreed(30.0)
    assert cluster.disagreement() is None
    assert not cluster.problems
    assert not [event for _, event in cluster.events if isinstance(event, Diverged | GapMarked)]


def origin_next(node: Node, writer: Node) -> int:
    origin = writer.running.opened.log.own_origin
    assert origin is not None
    state = node.running.opened.log.origins.get(origin)
    return 0 if state is None else state.next


@pytest.mark.parametrize("seconds", [0.3, 3.0, 400.0])
@pytest.mark.parametrize("room", [0, 150, 2_000])
def test_pulls_stop_and_go_on(room: int, seconds: float) -> None:
    cluster, (writer, follower) = cluster_of(room + int(seconds), 2)
    fill(cluster, writer, 10)
    cluster.run_until_agreed(5.0)
    follower.disk.capacity = follower.disk.used_bytes + room
    fill(cluster, writer, 40)
    cluster.run(seconds)
    log = follower.running.opened.log
    assert log.read_only_reason is not None
    assert follower.running.replica.scheduler.plan.paused
    assert not follower.running.replica.scheduler.plan.assigned, "nothing is asked for that could not be stored"
    held = origin_next(follower, writer)
    assert held < 50
    # Its peers and clients still have what it has.
    cluster.run(5.0)
    assert origin_next(follower, writer) == held
    follower.disk.capacity = None
    cluster.run(90.0 if seconds > 10 else 10.0)
    assert log.read_only_reason is None
    assert not follower.running.replica.scheduler.plan.paused
    check_all_is_well(cluster)
    assert follower.lives == 1, "without a restart"


def test_a_node_that_was_started_on_a_full_disk_serves_and_catches_up() -> None:
    cluster, (writer, full, third) = cluster_of(7, 3)
    fill(cluster, writer, 10)
    cluster.run_until_agreed(5.0)
    cluster.stop(full, Loss.KEEP)
    full.disk.capacity = full.disk.used_bytes
    cluster.start(full)
    assert full.running.opened.log.read_only_reason is not None
    assert full.running.replica.scheduler.plan.paused, "from the start"
    cluster.stop(writer, Loss.KEEP)
    cluster.stop(third, Loss.DROP)
    third.disk = type(third.disk)()
    cluster.start(third)
    cluster.run(20.0)
    assert third.running.opened.log.next_offset == 10, "who has nothing gets it from the node that takes nothing"
    cluster.start(writer)
    fill(cluster, writer, 10)
    cluster.run(5.0)
    full.disk.capacity = None
    check_all_is_well(cluster)


def test_the_reserve_holds_for_what_is_pulled() -> None:
    cluster = Cluster(3, log_config=LogConfig(DIRECTORY, segment_bytes=4096, index_interval_bytes=512))
    writer = cluster.add("writer")
    follower = cluster.add("follower", config=evolve(cluster.log_config, reserve_bytes=20_000))
    follower.disk.capacity = 40_000
    cluster.run(3.0)
    fill(cluster, writer, 100, size=400)
    cluster.run(5.0)
    free = follower.disk.capacity - follower.disk.used_bytes
    assert 20_000 - 4_000 < free < 24_000
    assert follower.running.opened.log.read_only_reason is not None
    follower.disk.capacity = 1 << 30
    check_all_is_well(cluster)
