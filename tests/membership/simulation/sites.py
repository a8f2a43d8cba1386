"""Clusters whose nodes are in several places, at distances that are known, and what they estimate them to be."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import combinations

from attrs import field, frozen

from proglog_trio.membership.serf.vivaldi import estimate
from proglog_trio.membership.swim.node import Endpoint
from tests.membership.simulation.cluster import Cluster, SimulatedNode, address_of
from tests.membership.simulation.network import Conditions

SITES = ("Oslo", "Rome", "Boston")
BETWEEN_SECONDS: Mapping[frozenset[str], float] = {
    frozenset({"Oslo"}): 0.0002,
    frozenset({"Rome"}): 0.0002,
    frozenset({"Boston"}): 0.0002,
    frozenset({"Oslo", "Rome"}): 0.035,
    frozenset({"Oslo", "Boston"}): 0.090,
    frozenset({"Rome", "Boston"}): 0.100,
}
"""Round trips between sites, and within one."""
ACCESS_SECONDS = (0.0001, 0.0015)
"""What each node's own link adds to each of its round trips: the least and the most."""
JITTER_SECONDS = 0.001
"""What queues on the way add to each packet, at most."""


@frozen(eq=False)
class Place:
    """Where a node is: at which site, and how long its own link takes, there and back."""

    site: str
    access: float


@frozen(eq=False)
class SpreadCluster:
    """A cluster whose nodes are at three sites.

    Attributes:
        cluster: all of them.
        places: where each is, by its name.
    """

    cluster: Cluster
    places: dict[str, Place] = field(factory=dict)

    @classmethod
    def form(cls, seed: int, at_each_site: int, *, encoded: bool = True) -> SpreadCluster:
        """Start so many nodes at each site, and wait until all know all."""
        cluster = Cluster.make(seed, encoded=encoded, traced=False)
        cluster.network.conditions = Conditions(delay=(0.0, JITTER_SECONDS))
        rng = random.Random(f"places {seed}")
        by_endpoint: dict[Endpoint, Place] = {}
        spread = cls(cluster)
        for number in range(at_each_site * len(SITES)):
            place = Place(SITES[number % len(SITES)], rng.uniform(*ACCESS_SECONDS))
            by_endpoint[address_of(number)] = spread.places[f"n{number}"] = place

        def one_way(source: Endpoint, target: Endpoint) -> float:
            return round_trip(by_endpoint[source], by_endpoint[target]) / 2

        cluster.network.distance = one_way
        cluster.form(len(spread.places))
        return spread

    @property
    def nodes(self) -> list[SimulatedNode]:
        """All of them."""
        return list(self.cluster.nodes.values())

    def true_seconds(self, one: str, other: str) -> float:
        """Return the round-trip time between two nodes as it is, on average."""
        # Half the jitter each way.
        return round_trip(self.places[one], self.places[other]) + JITTER_SECONDS

    def estimated_seconds(self, one: str, other: str, *, by: str | None = None) -> float:
        """Return what a node estimates it to be; by: the node, None: each of the two says where it is now."""
        if by is None:
            here, there = (self.cluster.nodes[name].core.vivaldi.coordinate for name in (one, other))
            return estimate(here, there)
        members = self.cluster.nodes[by].core.members.by_name
        first, second = members[one].coordinate, members[other].coordinate
        assert first is not None
        assert second is not None
        return estimate(first, second)

    def errors(self, *, within_sites: bool) -> list[float]:
        """Return by how many seconds the estimate of each pair is off, of those within a site or of the others."""
        return [
            abs(self.estimated_seconds(one, other) - self.true_seconds(one, other))
            for one, other in combinations(self.places, 2)
            if (self.places[one].site == self.places[other].site) is within_sites
        ]


def round_trip(one: Place, other: Place) -> float:
    """Return the round-trip time between two places, without jitter."""
    return BETWEEN_SECONDS[frozenset({one.site, other.site})] + one.access + other.access
