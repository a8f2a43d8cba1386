"""Timers of a protocol core: deadlines go in, and what is due is run when the shell says what time it is.

All times here but those that advance takes and next_deadline gives are lived time (see LivedTime): while the process is
stopped, no timer comes nearer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from attrs import define, field

from proglog_trio.lived_time import LivedTime

MAX_CANCELLED = 64
"""Up to so many cancelled timers wait for their time whatever else there is."""


def never() -> bool:
    """Return False: it is never enough."""
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
        begun: the time at which they were made, in seconds.
        patience, grace: see LivedTime; without them, every timer whose time has passed is due.
        boundary: what each action runs in, so that one that fails does not keep the others from running.
    """

    begun: float = 0.0
    patience: float = math.inf
    grace: float = 0.0
    boundary: Callable[[], AbstractContextManager[object]] = nullcontext
    _time: LivedTime = field(init=False)
    # By deadline, then by the order in which they were set. Cancelled ones stay until they are due or there are many.
    _heap: list[tuple[float, int, Timer]] = field(factory=list)
    _next_number: int = 0
    # How many in the heap were cancelled.
    _cancelled: int = 0

    def __attrs_post_init__(self) -> None:
        self._time = LivedTime(self.begun, self.patience, self.grace)

    @property
    def now(self) -> float:
        """The time, in seconds, as it was last said, without the pauses."""
        return self._time.now

    @property
    def pauses(self) -> int:
        """How often the process was stopped."""
        return self._time.pauses

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
        """When the next timer is due, by the clock that advance is given; None when none is set."""
        due = self._due()
        return None if due is None else self._time.reading_of(due)

    def _due(self) -> float | None:
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def cancelled(self) -> None:
        """Count that one of these timers was cancelled: when most were, their places are given back."""
        self._cancelled += 1
        if self._cancelled > MAX_CANCELLED and self._cancelled > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def advance(self, now: float, enough: Callable[[], bool] = never) -> float:
        """Say what time it is, and run what is due; time never goes back.

        Args:
            now: the time.
            enough: asked after each timer; once it is true the rest stays due.

        Returns:
            For how many seconds the process was stopped before; 0 if it was not. Nothing was run then, unless it is
            stopped again and again, and there is a moment (the grace) to say what has arrived meanwhile.
        """
        paused = self._time.advance(now, self._due())
        while (deadline := self._due()) is not None and deadline <= self.now:
            timer = heapq.heappop(self._heap)[2]
            action = timer.action
            timer.action = None
            if action is not None:
                with self.boundary():
                    action()
            if enough():
                break
        return paused
