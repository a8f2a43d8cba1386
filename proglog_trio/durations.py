"""Durations out of clock readings.

A process that was stopped (SIGSTOP, a paused virtual machine, a suspended laptop) finds every deadline in the past when
it goes on, so what is left until one is never simply the difference of two readings: those who sleep take no negative
time. `remaining` is how the rest of a wait is computed, here and nowhere else.
"""

from __future__ import annotations


def remaining(deadline: float, now: float) -> float:
    """Return how many seconds are left until a deadline; 0 if it has passed, by however much."""
    return max(deadline - now, 0.0)
