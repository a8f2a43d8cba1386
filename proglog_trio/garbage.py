"""Garbage collection in a process that must answer within milliseconds."""

from __future__ import annotations

import gc

FULL_COLLECTION_EVERY = 100
"""Collections of the middle generation to one of all objects; Python's own is 10."""


def keep_what_is_there() -> None:
    """Let no later collection look at what exists now: modules and classes, which stay until the process ends.

    For programs, once they have started; no library code calls it. A node's modules are 200,000 objects, and looking at
    each of them once more holds everything up for 40 ms. Collections of all other objects are made rarer, since they
    take 10 ms or more in a cluster of thousands: hardly anything that lives for long is in a circle of references.
    """
    gc.collect()
    gc.freeze()
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, FULL_COLLECTION_EVERY)
