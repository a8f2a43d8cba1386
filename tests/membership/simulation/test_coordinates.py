"""Nodes at three sites learn how far all are from each other, though each measures a few round trips a minute."""

from __future__ import annotations

from itertools import combinations
from statistics import median

import pytest

from tests.membership.simulation.sites import SITES, SpreadCluster


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_learned(seed: int) -> None:
    spread = SpreadCluster.form(seed, 4, encoded=False)
    spread.cluster.run(180.0)
    # Between sites they are 35 to 100 ms.
    assert median(spread.errors(within_sites=False)) < 0.004
    assert max(spread.errors(within_sites=False)) < 0.020
    assert median(spread.errors(within_sites=True)) < 0.004
    # Every member says of any two others, which it never measured, about what is so: near ones are near.
    for observer in spread.places:
        for one, other in combinations(spread.places, 2):
            estimated = spread.estimated_seconds(one, other, by=observer)
            is_one_site = spread.places[one].site == spread.places[other].site
            assert (estimated < 0.020) is is_one_site, (observer, one, other, estimated)


def test_a_node_that_joins_later_finds_its_place() -> None:
    spread = SpreadCluster.form(5, 4, encoded=False)
    spread.cluster.run(120.0)
    cluster = spread.cluster
    moved = cluster.nodes["n4"]
    cluster.leave(moved)
    cluster.run(10.0)
    returned = cluster.start("n4", moved.endpoint)
    cluster.join(returned, [cluster.nodes["n0"].endpoint])
    cluster.run(60.0)
    for name, place in spread.places.items():
        if name != "n4":
            is_one_site = place.site == spread.places["n4"].site
            assert (spread.estimated_seconds("n4", name) < 0.025) is is_one_site


def test_coordinates_of_members_are_forgotten_with_them() -> None:
    spread = SpreadCluster.form(7, len(SITES), encoded=True)
    cluster = spread.cluster
    cluster.run(30.0)
    observer, gone = cluster.nodes["n0"], cluster.nodes["n1"]
    assert observer.core.members.by_name["n1"].coordinate is not None
    cluster.crash(gone)
    cluster.run(60.0)
    cluster.act(observer, lambda: observer.core.intents.force_leave("n1", prune=True))
    cluster.run(10.0)
    for node in cluster.live:
        assert "n1" not in node.core.members.by_name
        assert "n1" not in node.core.vivaldi._recent
