"""What no reachable node has: missing for as long as a node may have it, a gap when that is over."""

from __future__ import annotations

import pytest

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.replication.events import GapMarked, MissingMarked
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from tests.log.simulated_disk import Loss
from tests.replication.simulation.cluster import Cluster, Node
from tests.replication.simulation.test_sources import cluster_of, damage, fill


def missing_of(node: Node, origin: Origin) -> list[tuple[int, int]]:
    return [(each.from_sequence, each.to_sequence) for each in node.running.opened.log.origins[origin].missing]


def gaps_of(node: Node, origin: Origin) -> tuple[tuple[int, int], ...]:
    return node.running.opened.log.origins[origin].gaps


def may_have(node: Node, origin: Origin, first: int, following: int) -> list[str]:
    return sorted(each.node_name for each in node.running.replica.peers.may_have(origin, first, following))


def sequences(cluster: Cluster, node: Node, origin: Origin) -> list[int]:
    return [
        stored.envelope.base_sequence + number
        for stored in cluster.frames(node).get(origin, [])
        for number in range(stored.envelope.count)
    ]


def only_copies(seed: int) -> tuple[Cluster, Node, Node, Node, Origin]:
    """Return a cluster in which c alone has the first records of a, and is away: a has lost them, b never had them."""
    cluster, (a, b, c) = cluster_of(seed, 3)
    cluster.network.block(["n0"], ["n1"])
    cluster.network.block(["n1"], ["n0", "n2"])
    cluster.network.block(["n2"], ["n1"])
    origin = fill(cluster, a, 30)
    cluster.run(3.0)
    assert c.running.opened.log.origins[origin].next == 30
    for sequence in range(10, 20):
        damage(a, origin, sequence)
    cluster.stop(c, Loss.KEEP)
    cluster.network.heal()
    return cluster, a, b, c, origin


def test_what_only_a_node_has_that_is_away_is_missing_and_filled_when_it_is_back() -> None:
    cluster, _a, b, c, origin = only_copies(1)
    cluster.run(100.0)
    assert missing_of(b, origin) == [(10, 20)]
    assert gaps_of(b, origin) == ()
    assert may_have(b, origin, 10, 20) == ["n0", "n2"]
    assert [event for name, event in cluster.events if name == "n1"][-1] == MissingMarked(origin, 10, 20)
    assert sequences(cluster, b, origin) == [*range(10), *range(20, 30)]
    before = {stored.envelope.base_offset: stored.data for stored in frames_of(cluster, b)}
    cluster.start(c)
    cluster.run(20.0)
    assert missing_of(b, origin) == []
    assert sequences(cluster, b, origin) == list(range(30))
    after = {stored.envelope.base_offset: stored.data for stored in frames_of(cluster, b)}
    assert before.items() <= after.items()
    assert cluster.disagreement() is None


def frames_of(cluster: Cluster, node: Node) -> list[StoredFrame]:
    return [stored for frames in cluster.frames(node).values() for stored in frames]


def test_who_may_have_it_is_known_after_a_restart_too() -> None:
    cluster, a, b, c, origin = only_copies(2)
    cluster.run(100.0)
    for node in (a, b):
        cluster.stop(node, Loss.DROP)
    for node in (a, b):
        cluster.start(node)
    cluster.run(100.0)
    assert missing_of(b, origin) == [(10, 20)]
    assert "n2" in may_have(b, origin, 10, 20)
    cluster.start(c)
    cluster.run(100.0)
    assert sequences(cluster, b, origin) == list(range(30))


def test_a_node_that_is_new_learns_who_is_away() -> None:
    cluster, _a, b, c, origin = only_copies(3)
    d = cluster.add("d")
    cluster.run(100.0)
    assert missing_of(d, origin) == [(10, 20)]
    assert gaps_of(d, origin) == ()
    assert "n2" in may_have(d, origin, 10, 20)
    cluster.start(c)
    cluster.run(100.0)
    for node in (b, d):
        assert sequences(cluster, node, origin) == list(range(30))


def test_it_is_a_gap_once_nobody_can_have_it() -> None:
    cluster, a, b, _c, origin = only_copies(4)
    cluster.run(100.0)
    cluster.forget_member("n2")
    cluster.run(100.0)
    # The writer itself is there, and what is damaged at it may be repaired.
    assert missing_of(b, origin) == [(10, 20)]
    assert may_have(b, origin, 10, 20) == ["n0"]
    cluster.stop(a, Loss.KEEP)
    cluster.run(10.0)
    cluster.forget_member("n0")
    cluster.run(10.0)
    assert missing_of(b, origin) == []
    assert gaps_of(b, origin) == ((10, 20),)
    assert [event for name, event in cluster.events if name == "n1"][-1] == GapMarked(
        origin, 10, 20, "they were missing, and no node has them any more"
    )
    assert sequences(cluster, b, origin) == [*range(10), *range(20, 30)]


def test_an_operator_may_give_it_up_and_the_others_follow() -> None:
    cluster, _a, b, _c, origin = only_copies(5)
    d = cluster.add("d")
    cluster.run(100.0)
    assert missing_of(b, origin) == missing_of(d, origin) == [(10, 20)]
    given_up = b.running.replica.review.give_up(origin)
    assert b.running.replica.review.records_missing(given_up) == 10
    cluster.fill(b)
    assert gaps_of(b, origin) == ((10, 20),)
    cluster.run(80.0)
    assert gaps_of(d, origin) == ((10, 20),)
    assert missing_of(d, origin) == []
    # After a restart as well, although the newest segment's header is older than that.
    for node in (b, d):
        cluster.stop(node, Loss.DROP)
        cluster.start(node)
        cluster.run(5.0)
        assert (gaps_of(node, origin), missing_of(node, origin)) == (((10, 20),), [])
        cluster.check_ranges(node)


def test_what_a_log_has_passed_without_having_it_is_no_copy() -> None:
    cluster, a, _b, c, origin = only_copies(6)
    cluster.run(100.0)
    answers: list[AcknowledgementResult] = []
    replica = a.running.replica
    for first, following in ((0, 10), (10, 20), (15, 16), (20, 30), (5, 25)):
        replica.wait_acknowledged(origin, first, following, 2, 1.0, answers.append)
        cluster.run(2.0)
    assert [answer.reached for answer in answers] == [True, False, False, True, False]
    # It is one as soon as it is there.
    replica.wait_acknowledged(origin, 10, 20, 2, 60.0, answers.append)
    cluster.start(c)
    cluster.run(30.0)
    assert answers[-1].reached


def test_an_absence_at_a_source_ends_where_its_log_did() -> None:
    # The source said once that it does not have what comes next, and had nothing of that origin after it then: what
    # another wrote filled its log.
    cluster, (a, b, c) = cluster_of(7, 3, retention_bytes=6000, tail_cache_bytes=0)
    origin = fill(cluster, a, 5)
    cluster.run(2.0)
    cluster.pause(c)
    fill(cluster, a, 60, size=1000)
    fill(cluster, b, 60, size=1000)
    cluster.apply_retention(a)
    assert a.running.opened.log.origins[origin].low == 65
    cluster.resume(c)
    cluster.run(0.5)
    cluster.stop(b, Loss.KEEP)
    cluster.run(30.0)
    absent = (gaps_of(c, origin), missing_of(c, origin))
    for _ in range(60):
        fill(cluster, a, 2)
        cluster.run(1.0)
    cluster.run(30.0)
    assert (gaps_of(c, origin), missing_of(c, origin)) == absent
    assert cluster.disagreement() is None
    held = set(sequences(cluster, c, origin))
    assert set(range(65, 65 + 120)) <= held


@pytest.mark.parametrize("ahead", [-(10**11), -3_600_000, 3_600_000, 10**11])
def test_a_wrong_clock_at_boot_costs_no_standing(ahead: int) -> None:
    cluster, (a, b, _c) = cluster_of(8, 3)
    fill(cluster, a, 5)
    cluster.run(2.0)
    right = cluster.wall_offset["n1"]
    for offset in (right + ahead, right):
        cluster.stop(b, Loss.KEEP)
        cluster.wall_offset["n1"] = offset
        cluster.start(b)
        cluster.run(5.0)
        fill(cluster, b, 3)
        cluster.run(5.0)
        cluster.acknowledged.clear()
        cluster.produce(a, wanted=3)
        cluster.run(6.0)
        assert [nodes for *_, nodes in cluster.acknowledged] == [1, 3]
    assert cluster.disagreement() is None


def test_a_restored_directory_counts_for_what_it_has() -> None:
    cluster, (a, b, _c) = cluster_of(9, 3)
    origin = fill(cluster, a, 5)
    cluster.run(2.0)
    backup = b.disk.copy()
    for _ in range(3):
        cluster.stop(b, Loss.KEEP)
        cluster.start(b)
        cluster.run(2.0)
    fill(cluster, a, 10)
    cluster.run(2.0)
    cluster.stop(b, Loss.KEEP)
    b.disk = backup.copy()
    cluster.network.block(["n1"], ["n0"])  # it pulls nothing from a, and is heard through c
    cluster.network.block(["n0"], ["n1"])
    cluster.start(b)
    answers: list[AcknowledgementResult] = []
    cluster.run(0.6)
    a.running.replica.wait_acknowledged(origin, 14, 15, 3, 0.001, answers.append)
    cluster.run(30.0)
    cluster.network.heal()
    cluster.run(20.0)
    a.running.replica.wait_acknowledged(origin, 14, 15, 3, 1.0, answers.append)
    cluster.run(2.0)
    assert answers[-1].reached
    assert cluster.disagreement() is None
    opened = b.running.replica.node.hello.opened
    assert opened == b.running.opened.log.opening
    assert a.running.replica.holdings.progress.opening_of(b.running.opened.log.directory_id) == opened
