"""The log times that a producer has observed, and which of them it asks to be later than.

A request holds one. The greatest says all, unless a clock that was wrong gave it out: then the node, which follows
nothing that is far ahead of its own clock, would follow none of them. So the smaller ones are kept as well, and an
answer that is not later than what was asked for shows that this one is not followed there.
"""

from __future__ import annotations

from bisect import insort

from attrs import Factory, define

MAX_OBSERVED = 16
APART = 60_000 << 16
"""Times that are nearer to each other than a minute are one, the greater."""
LARGEST_LOG_TIME = (1 << 64) - 1


@define
class ObservedTimes:
    """What was observed, and what the present node does not follow of it."""

    _times: list[int] = Factory(list)
    _not_followed: set[int] = Factory(set)

    def add(self, log_time: int) -> None:
        """Observe a log time.

        Raises:
            ValueError: it is none, outside 64 bits.
        """
        if not 0 <= log_time <= LARGEST_LOG_TIME:
            raise ValueError(f"{log_time} is no log time: these are 0 to {LARGEST_LOG_TIME}")
        for other in self._times:
            if 0 <= other - log_time < APART:
                return
        # A new list: a copy of this may have the old one.
        self._times = [other for other in self._times if not 0 < log_time - other < APART]
        insort(self._times, log_time)
        if len(self._times) > MAX_OBSERVED:
            del self._times[0]
        self._not_followed.intersection_update(self._times)

    @property
    def times(self) -> tuple[int, ...]:
        """What was observed, without those that a greater one stands for."""
        return tuple(self._times)

    def greatest(self) -> int:
        """Return what to ask for; 0 if there is nothing."""
        return max((time for time in self._times if time not in self._not_followed), default=0)

    def answered(self, asked: int, log_time: int) -> None:
        """Learn from the log time that a node gave to what was asked to be later whether it follows what was asked."""
        if log_time <= asked and asked in self._times:
            self._not_followed.add(asked)

    def moved(self) -> None:
        """Begin with another node: its clock may follow what the last one's did not."""
        self._not_followed.clear()
