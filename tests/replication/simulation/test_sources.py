"""Which node an origin is pulled from, what crosses, and what is given up: situations one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve

from proglog_trio.errors import SequenceOutOfRange
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.new_id import give_new_id
from proglog_trio.replication.events import Diverged, GapMarked, SourceEnded
from tests.log.driving import DIRECTORY, read_everything
from tests.log.simulated_disk import Loss
from tests.replication.simulation.cluster import Cluster, Node


def cluster_of(
    seed: int, size: int, retention_bytes: int | None = None, tail_cache_bytes: int = 8 << 20
) -> tuple[Cluster, list[Node]]:
    config = LogConfig(
        DIRECTORY,
        segment_bytes=4096,
        index_interval_bytes=512,
        retention_bytes=retention_bytes,
        tail_cache_bytes=tail_cache_bytes,
    )
    cluster = Cluster(seed, log_config=config)
    nodes = [cluster.add(f"n{number}") for number in range(size)]
    cluster.run(3.0)
    return cluster, nodes


def fill(cluster: Cluster, node: Node, batches: int, size: int = 100) -> Origin:
    for _ in range(batches):
        cluster.produce(node, size=size)
        cluster.run(0.01)
    origin = node.running.opened.log.own_origin
    assert origin is not None
    return origin


def source_of(node: Node, origin: Origin) -> str | None:
    assignment = node.running.replica.scheduler.plan.assigned.get(origin)
    return None if assignment is None else assignment.peer


def test_every_frame_crosses_to_each_node_once() -> None:
    cluster, nodes = cluster_of(1, 5)
    for _ in range(40):
        for node in nodes:
            cluster.produce(node, records=3)
        cluster.run(0.02)
    cluster.run_until_agreed(5.0)
    cluster.run(10.0)
    total = sum(len(stored.data) for frames in cluster.frames(nodes[0]).values() for stored in frames)
    own = {
        node.name: sum(len(stored.data) for stored in cluster.frames(node)[own])
        for node in nodes
        if (own := node.running.opened.log.own_origin) is not None
    }
    for node in nodes:
        counters = node.running.replica.node.counters
        assert counters.bytes_applied == total - own[node.name]
        assert counters.bytes_sent == own[node.name] * 4
        assert counters.frames_dropped == 0


def test_an_origin_is_pulled_from_its_writer_and_from_another_while_that_is_cut_off_from_me_alone() -> None:
    cluster, (a, b, c) = cluster_of(2, 3)
    origin = fill(cluster, a, 5)
    cluster.run(1.0)
    assert source_of(b, origin) == source_of(c, origin) == "n0"
    cluster.network.block(["n0", "n1"], ["n0", "n1"])
    fill(cluster, a, 5)
    cluster.run(4.0)
    assert source_of(b, origin) == "n2"
    cluster.run_until_agreed(1.0)
    dropped = b.running.replica.node.counters.frames_dropped
    # For as long as the cut lasts, also when the writer has long been called failed.
    for _ in range(10):
        fill(cluster, a, 3)
        cluster.run(3.0)
        assert cluster.disagreement() is None
    cluster.network.heal()
    cluster.run(15.0)
    fill(cluster, a, 5)
    cluster.run(1.0)
    assert source_of(b, origin) == "n0"
    assert cluster.disagreement() is None
    assert b.running.replica.node.counters.frames_dropped - dropped <= 5


def test_a_writer_that_stops_is_passed_over_after_two_seconds() -> None:
    cluster, (a, b, c) = cluster_of(3, 3)
    fill(cluster, a, 5)
    cluster.run(1.0)
    cluster.network.block(["n0"], ["n1"])
    origin = fill(cluster, a, 5)
    cluster.run(2.5)
    assert source_of(b, origin) == "n2"
    assert c.running.opened.log.origins[origin].next == b.running.opened.log.origins[origin].next == 10


@pytest.mark.parametrize("nearest", ["n1", "n2", "n3"])
def test_what_nobody_writes_comes_from_the_nearest_once_a_source_is_chosen_anew(nearest: str) -> None:
    cluster, (a, *others) = cluster_of(4, 4)
    origin = fill(cluster, a, 5)
    cluster.run(1.0)
    late = cluster.add("late")
    for node in others:
        cluster.distances[frozenset({"late", node.name})] = 0.001 if node.name == nearest else 0.080
    cluster.run(3.0)
    assert source_of(late, origin) == "n0"
    # It writes more, which all but one node get before it ends.
    cluster.network.block(["n0"], ["late"])
    fill(cluster, a, 5)
    cluster.run(4.0)
    assert source_of(late, origin) == nearest
    cluster.stop(a, Loss.KEEP)
    cluster.run(5.0)
    assert late.running.opened.log.origins[origin].next == 10
    assert source_of(late, origin) in (nearest, None)


def test_an_orphaned_origin_comes_from_any_peer() -> None:
    cluster, (a, *others) = cluster_of(4, 4)
    origin = fill(cluster, a, 20)
    cluster.run(1.0)
    cluster.stop(a, Loss.KEEP)
    late = cluster.add("late")
    cluster.run(8.0)
    assert late.running.opened.log.origins[origin].next == 20
    assert [node.running.opened.log.origins[origin].next for node in others] == [20, 20, 20]


def test_acknowledgements_reach_the_origin_through_others() -> None:
    cluster, (a, _b, _c) = cluster_of(5, 3)
    fill(cluster, a, 1)
    cluster.run(1.0)
    cluster.network.block(["n0", "n1"], ["n0", "n1"])
    cluster.acknowledged.clear()
    cluster.produce(a, wanted=3)
    cluster.run(5.0)
    assert [nodes for *_, nodes in cluster.acknowledged] == [1, 3]


def test_what_retention_took_everywhere_becomes_a_marked_gap() -> None:
    cluster, (a,) = cluster_of(6, 1, retention_bytes=5000)
    origin = fill(cluster, a, 60, size=300)
    cluster.apply_retention(a)
    low = a.running.opened.log.origins[origin].low
    assert low > 0
    b = cluster.add("b")
    cluster.run(15.0)
    assert cluster.disagreement() is None
    assert b.running.opened.log.origins[origin].gaps == ((0, low),)
    assert [event for name, event in cluster.events if name == "b"] == [GapMarked(origin, 0, low, "no node has them")]
    assert b.running.replica.node.counters.records_missing == low
    cluster.check_ranges(b)
    # Known ever after, and no hindrance.
    cluster.stop(b, Loss.DROP)
    cluster.start(b)
    fill(cluster, a, 5)
    cluster.run(5.0)
    assert cluster.disagreement() is None
    assert b.running.opened.log.origins[origin].gaps == ((0, low),)


def test_an_origin_of_which_nothing_is_left_is_nothing_to_a_new_node_until_it_is_written_again() -> None:
    cluster, (a, b) = cluster_of(16, 2, retention_bytes=0)
    origin = fill(cluster, a, 30)
    cluster.run(1.0)
    for node in (a, b):
        node.running.opened.log.roll()
    cluster.run(1.0)
    for node in (a, b):
        cluster.apply_retention(node)
        assert node.running.opened.log.origins[origin].low == 30
    c = cluster.add("c")
    cluster.run(15.0)
    assert origin not in c.running.opened.log.origins
    fill(cluster, a, 5)
    cluster.run(15.0)
    assert cluster.disagreement() is None
    assert c.running.opened.log.origins[origin].gaps == ((0, 30),)
    assert [stored.envelope.base_sequence for stored in cluster.frames(c)[origin]] == list(range(30, 35))


def test_a_log_that_has_a_part_of_what_is_gone_everywhere_ends_where_the_others_do() -> None:
    cluster, (a, b, c) = cluster_of(17, 3, retention_bytes=0)
    origin = fill(cluster, a, 10)
    cluster.run(1.0)
    cluster.stop(c, Loss.KEEP)
    fill(cluster, a, 20)
    cluster.run(1.0)
    for node in (a, b):
        node.running.opened.log.roll()
    cluster.run(1.0)
    for node in (a, b):
        cluster.apply_retention(node)
    cluster.start(c)
    cluster.run(15.0)
    assert c.running.opened.log.origins[origin].gaps == ((10, 30),)
    assert cluster.disagreement() is None


def test_an_origin_that_is_gone_everywhere_is_forgotten_in_time() -> None:
    cluster, (a, b) = cluster_of(18, 2, retention_bytes=0)
    cluster.config = evolve(cluster.config, origin_retention_seconds=3600.0)
    for node in (a, b):
        cluster.stop(node, Loss.KEEP)
        cluster.start(node)
    cluster.run(5.0)
    origin = fill(cluster, a, 10)
    cluster.run(1.0)
    cluster.stop(a, Loss.KEEP)
    cluster.start(a)
    later = fill(cluster, a, 3)
    for node in (a, b):
        node.running.opened.log.roll()
    cluster.run(5.0)
    cluster.apply_retention(a)
    cluster.run(4000.0)
    assert cluster.forget_old_origins(a) == 0  # b still has frames of it
    cluster.apply_retention(b)
    cluster.run(5.0)
    # Neither wall clock, however wrong, makes it any older.
    for name in ("n0", "n1"):
        cluster.wall_offset[name] += 10 * 365 * 86_400_000
    assert cluster.forget_old_origins(b) == 0
    cluster.run(4000.0)
    for node in (a, b):
        assert cluster.forget_old_origins(node) == 1
        cluster.run(30.0)
    for node in (a, b):
        assert list(node.running.opened.log.origins) == [later]
        assert list(node.running.replica.peers.views["n1" if node is a else "n0"].ranges) == [later]
    assert origin != later


def test_no_gap_is_marked_while_a_peer_has_what_the_writer_no_longer_has() -> None:
    cluster, (a, _) = cluster_of(7, 2)
    origin = fill(cluster, a, 60, size=300)
    cluster.run(1.0)
    a.config = evolve(a.config, retention_bytes=5000)
    cluster.stop(a, Loss.KEEP)
    cluster.start(a)
    cluster.apply_retention(a)
    assert a.running.opened.log.origins[origin].low > 0
    c = cluster.add("c")
    cluster.run(15.0)
    assert cluster.disagreement() is None
    assert c.running.opened.log.origins[origin].gaps == ()
    assert cluster.frames(c)[origin][0].envelope.base_sequence == 0
    assert not [event for _, event in cluster.events if isinstance(event, GapMarked)]


def test_a_gap_of_one_node_is_no_gap_of_another_that_can_get_the_records_elsewhere() -> None:
    cluster, (a, b) = cluster_of(8, 2)
    origin = fill(cluster, a, 60, size=300)
    cluster.run(1.0)
    a.config = evolve(a.config, retention_bytes=5000)
    cluster.stop(a, Loss.KEEP)
    cluster.start(a)
    cluster.apply_retention(a)
    cluster.stop(b, Loss.KEEP)
    cluster.run(7.0)
    with_gap = cluster.add("with-gap")
    cluster.run(25.0)
    assert with_gap.running.opened.log.origins[origin].gaps
    cluster.stop(a, Loss.KEEP)
    cluster.start(b)
    whole = cluster.add("whole")
    cluster.run(15.0)
    assert whole.running.opened.log.origins[origin].gaps == ()
    assert whole.running.opened.log.origins[origin].next == 60


def damage(node: Node, origin: Origin, sequence: int) -> Callable[[], None]:
    """Damage a frame; return what makes it whole again."""
    log = node.running.opened.log
    for files in log.catalog.segments:
        for stored in cluster_frames(node, origin):
            if stored.envelope.base_sequence == sequence and log.catalog.containing(stored.base_offset) == files:
                flip = partial(node.disk.flip, Path(files.store), stored.end - 1, 1)
                flip()
                return flip
    raise AssertionError("there is no such sequence")


def cluster_frames(node: Node, origin: Origin) -> list[StoredFrame]:
    return [stored for stored in read_everything(node.running.opened.log).frames if stored.envelope.origin == origin]


def test_a_damaged_frame_comes_from_a_peer_that_can_read_it() -> None:
    cluster, (a, b) = cluster_of(9, 2)
    origin = fill(cluster, a, 30)
    cluster.run(1.0)
    damage(a, origin, 10)
    c = cluster.add("c")
    cluster.run(10.0)
    assert cluster.disagreement() is None
    assert [stored.envelope.base_sequence for stored in cluster.frames(c)[origin]] == list(range(30))
    assert not c.running.opened.log.origins[origin].gaps
    assert b.running.replica.node.counters.frames_sent > 0
    ended = [event for name, event in cluster.events if name == "c" and isinstance(event, SourceEnded)]
    assert ended in ([], [SourceEnded("n0", origin, 10)])


def test_a_frame_that_is_damaged_before_anybody_pulled_it_is_passed_late_and_taken_when_it_is_repaired() -> None:
    cluster, (a,) = cluster_of(10, 1)
    origin = fill(cluster, a, 30)
    repair = damage(a, origin, 10)
    b = cluster.add("b")
    cluster.run(40.0)
    assert b.running.opened.log.origins[origin].next == 10
    assert a.running.replica.node.counters.streams_ended_damaged
    cluster.run(60.0)
    state = b.running.opened.log.origins[origin]
    assert (state.gaps, [(each.from_sequence, each.to_sequence) for each in state.missing]) == ((), [(10, 11)])
    assert [each.node_name for each in b.running.replica.peers.may_have(origin, 10, 11)] == ["n0"]
    assert cluster.disagreement() is None
    repair()
    cluster.run(80.0)
    assert not b.running.opened.log.origins[origin].missing
    assert [stored.envelope.base_sequence for stored in cluster.frames(b)[origin]] == list(range(30))
    assert b.running.replica.node.counters.missing_filled == 1


def test_what_is_damaged_up_to_its_end_and_held_by_nobody_else_is_passed_late() -> None:
    cluster, (a,) = cluster_of(19, 1)
    origin = fill(cluster, a, 10)
    for sequence in (8, 9):
        damage(a, origin, sequence)
    b = cluster.add("b")
    cluster.run(40.0)
    assert b.running.opened.log.origins[origin].next == 8
    cluster.run(80.0)
    state = b.running.opened.log.origins[origin]
    assert (state.gaps, [(each.from_sequence, each.to_sequence) for each in state.missing]) == ((), [(8, 10)])
    fill(cluster, a, 3)
    cluster.run(5.0)
    assert cluster.disagreement() is None


def test_logs_that_have_diverged_are_reported_with_both_places_and_left_alone() -> None:
    cluster, (a,) = cluster_of(11, 1)
    origin = fill(cluster, a, 5)
    copy = a.disk.copy()
    copy.restart(Loss.KEEP, cluster.rng)
    give_new_id(DIRECTORY, disk=copy, rng=cluster.rng)
    fill(cluster, a, 3)
    b = cluster.add("b", copy)
    # What no correct node does: it goes on under the origin that it has a copy of.
    b.running.opened.log._state.own = origin
    fill(cluster, b, 3, size=101)
    cluster.run(20.0)
    diverged = [event for _, event in cluster.events if isinstance(event, Diverged)]
    assert {event.origin for event in diverged} == {origin}
    assert all("sequences 0 to 7" in event.here and "sequences 0 to 7" in event.there for event in diverged)
    for node, size in ((a, 100), (b, 101)):
        assert len(cluster.frames(node)[origin][-1].frame.payload) == size + 4
    # Everything else goes on.
    other = cluster.add("c")
    later = fill(cluster, other, 5)
    cluster.run(5.0)
    assert a.running.opened.log.origins[later].next == b.running.opened.log.origins[later].next == 5


def test_nodes_of_different_clusters_do_not_pull_from_each_other() -> None:
    cluster, (a,) = cluster_of(12, 1)
    fill(cluster, a, 5)
    b = cluster.add("b", config=LogConfig(DIRECTORY, cluster_name="another"))
    fill(cluster, b, 5)
    cluster.run(5.0)
    assert len(a.running.opened.log.origins) == len(b.running.opened.log.origins) == 1
    assert any("could not be separated again" in str(problem) for problem in cluster.problems)


def test_of_two_nodes_with_copies_of_one_directory_the_later_one_ends() -> None:
    cluster, (a, b) = cluster_of(30, 2)
    fill(cluster, a, 5)
    cluster.run(2.0)
    copy = cluster.add("copy", a.disk.copy())
    fill(cluster, copy, 3)
    cluster.run(5.0)
    assert cluster.copies == {"copy"}
    assert copy.life is None
    assert a.life is not None
    cluster.acknowledged.clear()
    cluster.produce(a, wanted=2)
    cluster.run(6.0)
    assert [nodes for *_, nodes in cluster.acknowledged] == [1, 2]
    give_new_id(DIRECTORY, disk=copy.disk, rng=cluster.rng)
    cluster.start(copy)
    cluster.run_until_agreed(30.0)
    origins = b.running.opened.log.origins
    assert sum(state.next for state in origins.values()) == 9, "what the copy wrote is there too"


def test_a_reader_is_told_of_an_origin_of_which_nothing_is_left_wherever_it_asks() -> None:
    cluster, (a,) = cluster_of(16, 1, retention_bytes=0)
    cluster.config = evolve(cluster.config, origin_retention_seconds=3600.0)
    origin = fill(cluster, a, 10)
    cluster.stop(a, Loss.KEEP)
    cluster.start(a)
    later = fill(cluster, a, 3)
    a.running.opened.log.roll()
    cluster.run(5.0)
    cluster.apply_retention(a)
    fill(cluster, a, 3)
    b = cluster.add("b")
    cluster.run(30.0)
    assert origin not in b.running.opened.log.origins
    at = Position({origin: Range(0, 4), later: Range(0, 6)})

    def told(node: Node) -> list[tuple[Origin, int, int] | None]:
        log = node.running.opened.log
        reader = log.reader_at_position(at, skip_missing=True)
        return [each.sequences for each in reader.read(1 << 20, log.next_offset).skipped]

    assert told(a) == told(b) == [(origin, 4, 10)]
    cluster.run(4000.0)
    assert cluster.forget_old_origins(a) == 1
    assert told(a) == [(origin, 4, 10)]
    for node in (a, b):
        cluster.stop(node, Loss.DROP)
        cluster.start(node)
        assert told(node) == [(origin, 4, 10)]
        with pytest.raises(SequenceOutOfRange):
            node.running.opened.log.reader_at_position(at)


def test_what_another_peer_may_have_is_not_called_gone() -> None:
    """One peer has nothing left of an origin; another has, and has not been heard yet."""
    cluster, (a, c) = cluster_of(17, 2)
    origin = fill(cluster, a, 10)
    cluster.run_until_agreed(5.0)
    cluster.stop(a, Loss.KEEP)
    a.config = evolve(cluster.log_config, retention_bytes=0)
    cluster.start(a)
    fill(cluster, a, 3)
    a.running.opened.log.roll()
    cluster.run(5.0)
    cluster.apply_retention(a)
    assert a.running.opened.log.origins[origin].low == 10
    cluster.network.block(["b"], [c.name])
    cluster.network.block([c.name], ["b"])
    b = cluster.add("b")
    at = Position({origin: Range(0, 4)})

    def told() -> list[tuple[Origin, int, int] | None]:
        log = b.running.opened.log
        skipped = log.reader_at_position(at, skip_missing=True).read(1 << 20, log.next_offset).skipped
        return [each.sequences for each in skipped if each.sequences is not None and each.sequences[0] == origin]

    for _ in range(20):
        cluster.run(0.2)
        assert told() == []
    cluster.network.heal()
    for _ in range(100):
        cluster.run(0.2)
        assert told() == []
    assert b.running.opened.log.origins[origin].next == 10
