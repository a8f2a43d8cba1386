"""Log time: a hybrid logical clock.

64 bits: milliseconds since the Unix epoch in the upper 48, a counter in the lower 16 (Kulkarni, Demirbas et al.,
"Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases", 2014). A counter that overflows
carries into the milliseconds, so a time is simply a number that grows.
"""

from __future__ import annotations

from attrs import define

COUNTER_BITS = 16
FURTHEST_AHEAD_MILLISECONDS = 60_000
"""How far another clock may be ahead of this machine's before its times no longer move ours."""


def from_milliseconds(milliseconds: int) -> int:
    """Return the first log time of a millisecond."""
    return milliseconds << COUNTER_BITS


def to_milliseconds(log_time: int) -> int:
    """Return the milliseconds since the Unix epoch of a log time."""
    return log_time >> COUNTER_BITS


def is_too_far_ahead(log_time: int, wall_milliseconds: int) -> bool:
    """Tell whether a time is so far ahead of the wall clock that following it would be a mistake."""
    return to_milliseconds(log_time) > wall_milliseconds + FURTHEST_AHEAD_MILLISECONDS


@define
class HybridClock:
    """Gives out log times, each greater than any it gave or witnessed.

    Attributes:
        high_mark: the greatest time given or followed.
        too_far_ahead: how many witnessed times were not followed.
    """

    high_mark: int = 0
    too_far_ahead: int = 0

    def tick(self, wall_milliseconds: int, after: int = 0) -> int:
        """Return a new time, greater than after and than every earlier one."""
        self.high_mark = max(from_milliseconds(wall_milliseconds), self.high_mark + 1, after + 1)
        return self.high_mark

    def witness(self, log_time: int, wall_milliseconds: int) -> None:
        """Follow another log's time, unless it is too far ahead of the wall clock."""
        if is_too_far_ahead(log_time, wall_milliseconds):
            self.too_far_ahead += 1
        elif log_time > self.high_mark:
            self.high_mark = log_time
