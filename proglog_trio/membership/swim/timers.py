"""Timers of a protocol core: deadlines go in, and what is due is run when somebody says what time it is."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from attrs import define, field

MOST_CANCELLED = 64
"""Up to so many cancelled timers wait for their time whatever else there is."""


def _never() -> bool:
    return False


@define(eq=False)
class Timer:
    """A timer that was set.

    Attributes:
        deadline: when it is due, in seconds.
        action: what it does; None once it has run or was cancelled.
    """

    deadline: float
    action: Callable[[], None] | None
    _timers: Timers

    def cancel(self) -> None:
        """Never run it."""
        if self.action is not None:
            self.action = None
            self._timers.cancelled()


@define
class Timers:
    """The timers of one core; those with equal deadlines run in the order in which they were set.

    Attributes:
        now: the time, in seconds, as it was last said.
    """

    now: float = 0.0
    _heap: list[tuple[float, int, Timer]] = field(factory=list)
    _next_number: int = 0
    _cancelled: int = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def set(self, deadline: float, action: Callable[[], None]) -> Timer:
        """Run an action once at a time; one in the past is due at once."""
        timer = Timer(deadline, action, self)
        heapq.heappush(self._heap, (deadline, self._next_number, timer))
        self._next_number += 1
        return timer

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Run an action once after a while."""
        return self.set(self.now + seconds, action)

    @property
    def next_deadline(self) -> float | None:
        """When the next timer is due; None when none is set."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def cancelled(self) -> None:
        """Take note that one of these timers was cancelled: when most were, their places are given back."""
        self._cancelled += 1
        if self._cancelled > MOST_CANCELLED and self._cancelled > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def advance(self, now: float, enough: Callable[[], bool] = _never) -> None:
        """Say what time it is, and run what is due; time never goes back.

        Args:
            now: the time.
            enough: asked after each timer; once it is true the rest stays due.
        """
        self.now = max(self.now, now)
        while (deadline := self.next_deadline) is not None and deadline <= self.now:
            timer = heapq.heappop(self._heap)[2]
            action = timer.action
            timer.action = None
            if action is not None:
                action()
            if enough():
                return
