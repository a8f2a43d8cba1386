"""Nodes whose wall clocks are wrong: everything goes on, they are named, and the others are not moved."""

from __future__ import annotations

import pytest

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS, from_milliseconds, to_milliseconds
from proglog_trio.replication.events import LogTimeReturned, PeerClockChanged
from proglog_trio.replication.peers.peer_clocks import QUESTION_SECONDS
from tests.log.driving import DIRECTORY, NOON
from tests.log.simulated_disk import Loss
from tests.replication.simulation.cluster import Cluster, Node

HOUR = 3_600_000
YEAR = 365 * 24 * HOUR


def cluster_of(seed: int, offsets: list[int]) -> tuple[Cluster, list[Node]]:
    """Return a cluster of nodes whose wall clocks are wrong by so many milliseconds."""
    cluster = Cluster(seed, log_config=LogConfig(DIRECTORY, segment_bytes=4096, index_interval_bytes=512))
    nodes = []
    for number, offset in enumerate(offsets):
        cluster.wall_offset[f"n{number}"] = offset
        nodes.append(cluster.add(f"n{number}"))
    cluster.run(3.0)
    return cluster, nodes


def last_log_time(node: Node) -> int:
    origin = node.running.opened.log.own_origin
    assert origin is not None
    return node.running.opened.log.origins[origin].last_log_time


def told_of(cluster: Cluster, node: Node) -> list[tuple[str, bool]]:
    return [
        (event.peer, event.is_off)
        for name, event in cluster.events
        if name == node.name and isinstance(event, PeerClockChanged)
    ]


@pytest.mark.parametrize("skew", [-YEAR, -HOUR, -600_000, 600_000, HOUR, YEAR, 40 * YEAR])
def test_any_skew_leaves_producing_observing_and_pulling_working(skew: int) -> None:
    cluster, (a, b, c) = cluster_of(1, [0, skew, 0])
    for _ in range(3):
        for node in (a, b, c):
            cluster.produce(node)
        cluster.run(0.1)
        for observed, node in ((b, a), (a, b), (b, c)):
            cluster.produce(node, after_log_time=last_log_time(observed))
        cluster.run(0.1)
    cluster.run_until_agreed(5.0)
    assert cluster.produced == len(cluster.acknowledged) == 18
    for node in (a, c):
        assert node.running.opened.log.log_time_ahead <= FURTHEST_AHEAD_MILLISECONDS
        assert told_of(cluster, node) == [("n1", True)]
    assert sorted(told_of(cluster, b)) == [("n0", True), ("n2", True)]
    ahead = a.running.replica.peer_clocks_ahead()
    assert abs(ahead["n1"] * 1000 - skew) < 1000
    assert abs(ahead["n2"]) < 1
    if skew > 0:
        assert a.running.opened.log.counters.pulled_log_times_not_followed > 0
        assert a.running.opened.log.counters.after_log_times_not_followed > 0
    cluster.wall_offset["n1"] = 0
    cluster.run(QUESTION_SECONDS + 5)
    assert told_of(cluster, a) == [("n1", True), ("n1", False)]


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_was_a_year_ahead_and_is_right_again(restart: bool) -> None:
    cluster, (a, b, _) = cluster_of(2, [YEAR, 0, 0])
    cluster.produce(a)
    cluster.run(1.0)
    poisoned = last_log_time(a)
    cluster.wall_offset["n0"] = 0
    if restart:
        cluster.stop(a, Loss.KEEP)
        cluster.start(a)
    cluster.run(2 * QUESTION_SECONDS)
    assert [name for name, event in cluster.events if isinstance(event, LogTimeReturned)] == ["n0"]
    cluster.produce(a)
    cluster.run(1.0)
    now = NOON + int(cluster.now * 1000)
    assert to_milliseconds(last_log_time(a)) <= now < to_milliseconds(poisoned)
    # An effect of what it writes now comes after it again, everywhere.
    cause = last_log_time(a)
    cluster.produce(b, after_log_time=cause)
    cluster.run(1.0)
    assert last_log_time(b) > cause
    # and neither another opening nor another crash brings the year back
    cluster.stop(a, Loss.DROP)
    cluster.start(a)
    cluster.produce(a)
    cluster.run(1.0)
    assert to_milliseconds(last_log_time(a)) <= NOON + int(cluster.now * 1000)
    cluster.run_until_agreed(5.0)


def test_a_year_that_stands_in_a_header_alone_does_not_come_back_either() -> None:
    """The newest segment was begun while the clock was ahead, and has used no offset, so no other can follow it yet."""
    cluster, (a, _, _) = cluster_of(6, [YEAR, 0, 0])
    cluster.produce(a)
    cluster.run(1.0)
    assert a.running.opened.log.roll()
    cluster.run(1.0)
    cluster.wall_offset["n0"] = 0
    cluster.run(2 * QUESTION_SECONDS)
    assert [name for name, event in cluster.events if isinstance(event, LogTimeReturned)] == ["n0"]
    cluster.produce(a)
    cluster.run(1.0)
    cluster.stop(a, Loss.KEEP)
    cluster.start(a)
    assert a.running.opened.log.log_time_ahead <= FURTHEST_AHEAD_MILLISECONDS


def test_a_clock_that_is_behind_gives_no_earlier_times() -> None:
    """Most peers say that it is wrong now, so what was given out counts."""
    cluster, (a, _, _) = cluster_of(3, [0, 0, 0])
    cluster.produce(a)
    cluster.run(1.0)
    before = last_log_time(a)
    cluster.stop(a, Loss.KEEP)
    cluster.wall_offset["n0"] = -YEAR
    cluster.start(a)
    cluster.run(2 * QUESTION_SECONDS)
    cluster.produce(a)
    cluster.run(1.0)
    assert last_log_time(a) > before
    assert not any(isinstance(event, LogTimeReturned) for _, event in cluster.events)


def test_a_clock_that_jumps_for_ever_makes_few_origins() -> None:
    cluster, (a, _, _) = cluster_of(4, [0, 0, 0])
    for _ in range(30):
        cluster.wall_offset["n0"] = HOUR
        cluster.produce(a)
        cluster.run(1.0)
        cluster.wall_offset["n0"] = 0
        cluster.run(QUESTION_SECONDS + 1)
    directory_id = a.running.opened.log.directory_id
    own = [origin for origin in a.running.opened.log.origins if origin.directory_id == directory_id]
    assert len(own) == 2, "one for the opening, and one an hour at most"
    cluster.run_until_agreed(5.0)


def test_times_that_no_clock_has_are_taken_and_followed_by_nobody() -> None:
    cluster, (a, b) = cluster_of(5, [0, 0])
    for after in (2**64 - 1, from_milliseconds(2**47), 2**63):
        cluster.produce(a, after_log_time=after)
    cluster.run(1.0)
    cluster.run_until_agreed(5.0)
    assert b.running.opened.log.log_time_ahead == 0
    assert len(cluster.acknowledged) == 3
