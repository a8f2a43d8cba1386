"""Cancelled timers that do not outlive their purpose.

trio-asyncio keeps a cancelled timer in its heap until the time it was set for. A deadline of an hour on a call of a
millisecond would hold memory for an hour, and so would every keepalive of a connection that closed. asyncio's own loop
sweeps its heap when most of it is cancelled; this gives the same to a trio-asyncio loop, through the hook by which
asyncio tells a loop of a cancelled timer.

Checked with trio-asyncio 0.15.0 and 0.16.0. A test says when its loop sweeps timers itself, so that this can go.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

from attrs import define

LEAST_CANCELLED_TO_SWEEP = 100


@define
class CancelledTimerSweeper:
    """Counts a loop's cancelled timers and drops them once they are at least 100 and half of all.

    Attributes:
        loop: the trio-asyncio loop whose timers these are.
        cancelled: how many timers were cancelled since the last sweep.
    """

    loop: Any
    cancelled: int = 0

    def __call__(self, handle: asyncio.TimerHandle) -> None:
        """Take note of one cancelled timer; asyncio calls this before it marks the handle as cancelled."""
        self.cancelled += 1
        if self.cancelled >= LEAST_CANCELLED_TO_SWEEP and self.cancelled * 2 >= len(self.loop._timers):  # noqa: SLF001 - the heap has no public name
            self.sweep()

    def sweep(self) -> None:
        """Drop all cancelled timers from the loop's heap."""
        timers = self.loop._timers  # noqa: SLF001 - the heap has no public name
        timers[:] = [handle for handle in timers if not handle.cancelled()]
        heapq.heapify(timers)
        self.cancelled = 0


def sweep_cancelled_timers(loop: asyncio.AbstractEventLoop) -> None:
    """Make a trio-asyncio loop drop its cancelled timers; doing it again changes nothing."""
    if not isinstance(getattr(loop, "_timer_handle_cancelled", None), CancelledTimerSweeper):
        loop._timer_handle_cancelled = CancelledTimerSweeper(loop)  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's hook, see above
