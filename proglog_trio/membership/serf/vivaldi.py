"""Network coordinates: places whose distances estimate the round-trip times between any two members.

Every probe that is answered is a measurement between two members, and the ack brings the other's coordinate; each moves
its own a little, as if springs as long as the measured times pulled it (Dabek, Cox, Kaashoek, Morris, "Vivaldi: A
Decentralized Network Coordinate System", 2004, with its height vectors). Serf adds what Ledlie, Gardner and Seltzer
found necessary in practice ("Network Coordinates in the Wild", 2007): a median filter for each member and gravity
towards the origin; and an adjustment term. The constants are Serf's, since coordinates of different constants do not
fit.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from statistics import median_high

from attrs import define, evolve, field

from proglog_trio.membership.wire.coordinates import Coordinate

DIMENSIONS = 8
HIGHEST_ERROR = 1.5
ERROR_SHARE = 0.25
"""How much of a new measurement's error goes into this node's (the paper's c_e)."""
FORCE_SHARE = 0.25
"""How far a measurement may move this node (the paper's c_c)."""
ADJUSTMENT_WINDOW = 20
LOWEST_HEIGHT = 10e-6
FILTER_SIZE = 3
GRAVITY_RHO = 150.0
LONGEST_ROUND_TRIP = 10.0
FARTHEST = 24 * 3600.0
"""No place in a network is farther away than this, in seconds; what says so was made up."""
_CLOSE = 1e-6
ORIGIN = Coordinate((0.0,) * DIMENSIONS, HIGHEST_ERROR, 0.0, LOWEST_HEIGHT)


def _is_usable(coordinate: Coordinate) -> bool:
    figures = (*coordinate.vec, coordinate.error, coordinate.adjustment, coordinate.height)
    return (
        len(coordinate.vec) == DIMENSIONS
        and all(abs(figure) <= FARTHEST for figure in figures)  # false for what is no number as well
        and coordinate.error >= 0
        and coordinate.height >= 0
    )


def raw_distance(one: Coordinate, other: Coordinate) -> float:
    """Return the distance in seconds without the adjustments."""
    return math.dist(one.vec, other.vec) + one.height + other.height


def estimate(one: Coordinate, other: Coordinate) -> float:
    """Return the round-trip time in seconds that two coordinates stand for."""
    distance = raw_distance(one, other)
    adjusted = distance + one.adjustment + other.adjustment
    return adjusted if adjusted > 0 else distance


@define(eq=False)
class Vivaldi:
    """This node's coordinate.

    Attributes:
        rng: for a direction where two are at the same place.
        coordinate: where this node is.
        refused: how many measurements were none.
        resets: how often its coordinate had become none, and was begun anew.
    """

    rng: random.Random
    coordinate: Coordinate = ORIGIN
    refused: int = 0
    resets: int = 0
    _recent: dict[str, deque[float]] = field(factory=dict)
    _adjustments: deque[float] = field(factory=lambda: deque([0.0] * ADJUSTMENT_WINDOW, ADJUSTMENT_WINDOW))

    def measured(self, name: str, other: Coordinate, seconds: float) -> bool:
        """Move by a measured round trip, in seconds, to a member that is at a coordinate; tell whether both can be."""
        if not _is_usable(other) or not 0 <= seconds <= LONGEST_ROUND_TRIP:
            self.refused += 1
            return False
        recent = self._recent.setdefault(name, deque(maxlen=FILTER_SIZE))
        recent.append(seconds)
        usual = max(median_high(recent), _CLOSE)
        self._be_pulled(other, usual)
        self._adjust(other, usual)
        self._fall()
        if not _is_usable(self.coordinate):
            self.resets += 1
            self.coordinate = ORIGIN
        return True

    def forget(self, name: str) -> None:
        """Forget the measurements of a member that is gone."""
        self._recent.pop(name, None)

    def _be_pulled(self, other: Coordinate, seconds: float) -> None:
        me = self.coordinate
        distance = estimate(me, other)
        wrong = abs(distance - seconds) / seconds
        weight = me.error / max(me.error + other.error, _CLOSE)
        error = ERROR_SHARE * weight * wrong + me.error * (1 - ERROR_SHARE * weight)
        moved = self._moved(FORCE_SHARE * weight * (seconds - distance), other)
        self.coordinate = evolve(moved, error=min(error, HIGHEST_ERROR))

    def _adjust(self, other: Coordinate, seconds: float) -> None:
        self._adjustments.append(seconds - raw_distance(self.coordinate, other))
        adjustment = sum(self._adjustments) / (2 * ADJUSTMENT_WINDOW)
        self.coordinate = evolve(self.coordinate, adjustment=adjustment)

    def _fall(self) -> None:
        """Fall towards the origin, so that all coordinates together do not drift away."""
        distance = estimate(ORIGIN, self.coordinate)
        self.coordinate = self._moved(-((distance / GRAVITY_RHO) ** 2), ORIGIN)

    def _moved(self, force: float, other: Coordinate) -> Coordinate:
        """Return this node's coordinate, moved away from another, by seconds; towards it if they are negative."""
        me = self.coordinate
        difference = [mine - theirs for mine, theirs in zip(me.vec, other.vec, strict=True)]
        length = math.hypot(*difference)
        height = me.height
        if length > _CLOSE:
            direction: Sequence[float] = [part / length for part in difference]
            height = max((me.height + other.height) * force / length + me.height, LOWEST_HEIGHT)
        else:
            direction = self._some_direction()
        vec = tuple(mine + force * part for mine, part in zip(me.vec, direction, strict=True))
        return evolve(me, vec=vec, height=height)

    def _some_direction(self) -> list[float]:
        while True:
            direction = [self.rng.random() - 0.5 for _ in range(DIMENSIONS)]
            length = math.hypot(*direction)
            if length > _CLOSE:
                return [part / length for part in direction]
