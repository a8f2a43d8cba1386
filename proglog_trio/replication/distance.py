"""How far away peers are, by the round-trip time to them, in classes so coarse that noise hardly moves one to another.

Within a class all are equally near, and different nodes turn to different ones of them. Nothing depends on these
figures being right: they decide between sources that would do equally well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

CLASS_SECONDS = (0.002, 0.010, 0.040, 0.160)
"""Where one class ends and the next begins: about one room, one region, one continent, across an ocean, beyond."""
UNKNOWN_CLASS = len(CLASS_SECONDS) + 1
"""Of peers to which it is not known: behind all others."""

RoundTripTo = Callable[[str], float | None]
"""Gives the round-trip time to a peer, by its name, in seconds; None: it is not known."""


def unknown_round_trip(_peer: str) -> float | None:
    """Return that it is not known: all peers are equally near then."""
    return None


def distance_class(seconds: float | None) -> int:
    """Return the class of a round-trip time, 0 being the nearest; one that is not known, or cannot be, is the last."""
    if seconds is None or not seconds >= 0:
        return UNKNOWN_CLASS
    return bisect_right(CLASS_SECONDS, seconds)
