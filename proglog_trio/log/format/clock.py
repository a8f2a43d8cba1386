"""Log time: a hybrid logical clock.

64 bits: milliseconds since the Unix epoch in the upper 48, a counter in the lower 16 (Kulkarni, Demirbas et al.,
"Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases", 2014). A counter that overflows
carries into the milliseconds, so a time is simply a number that grows.

Clocks lie, by years and in both directions, so no node's time moves this clock by more than a minute beyond the wall
clock: what is further ahead is counted and not followed. Nothing is refused for it.
"""

from __future__ import annotations

from attrs import define

COUNTER_BITS = 16
FURTHEST_AHEAD_MILLISECONDS = 60_000
"""How far another clock may be ahead of this machine's before its times no longer move ours."""


LATEST_MILLISECONDS = 1 << 47
"""A wall clock beyond this, in the year 6429, counts as this: so the 64 bits never run out, wherever a clock stood."""


def from_milliseconds(milliseconds: int) -> int:
    """Return the first log time of a millisecond."""
    return milliseconds << COUNTER_BITS


def to_milliseconds(log_time: int) -> int:
    """Return the milliseconds since the Unix epoch of a log time."""
    return log_time >> COUNTER_BITS


def is_too_far_ahead(log_time: int, wall_milliseconds: int) -> bool:
    """Tell whether a time is so far ahead of the wall clock that following it would be a mistake."""
    return to_milliseconds(log_time) > wall_milliseconds + FURTHEST_AHEAD_MILLISECONDS


def clamped(wall_milliseconds: int) -> int:
    """Return a wall clock's time, or the nearest that a log time can hold."""
    return min(max(wall_milliseconds, 0), LATEST_MILLISECONDS)


@define
class HybridClock:
    """Gives out log times, each greater than any it gave or followed.

    Attributes:
        high_mark: the greatest time given or followed.
        too_far_ahead: how many times, witnessed or asked for, were not followed.
    """

    high_mark: int = 0
    too_far_ahead: int = 0

    def tick(self, wall_milliseconds: int, after: int = 0) -> int:
        """Return a new time, greater than every earlier one, and than after unless that is too far ahead."""
        if after > self.high_mark:
            self.witness(after, wall_milliseconds)
        self.high_mark = max(from_milliseconds(clamped(wall_milliseconds)), self.high_mark + 1)
        return self.high_mark

    def witness(self, log_time: int, wall_milliseconds: int) -> bool:
        """Follow another's time; tell whether it is not too far ahead of the wall clock, which it must not be."""
        if is_too_far_ahead(log_time, clamped(wall_milliseconds)):
            self.too_far_ahead += 1
            return False
        self.high_mark = max(self.high_mark, log_time)
        return True

    def recall(self, log_time: int) -> None:
        """Follow a time that this directory gave out itself: later ones must be greater, whatever the wall clock says.

        One that no clock of its own can have given is not followed: a copy of the directory that lies wrote it.
        """
        if log_time > from_milliseconds(LATEST_MILLISECONDS + FURTHEST_AHEAD_MILLISECONDS):
            self.too_far_ahead += 1
        else:
            self.high_mark = max(self.high_mark, log_time)

    def ahead(self, wall_milliseconds: int) -> int:
        """Return by how many milliseconds the greatest time is ahead of the wall clock; 0 if it is not."""
        return max(to_milliseconds(self.high_mark) - wall_milliseconds, 0)
