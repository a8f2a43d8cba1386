"""Waking asyncio code from a callback of the log; both run in one thread."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from attrs import Factory, define

from proglog_trio.durations import remaining


@define
class Wakeups:
    """Wakes all tasks that wait for the next change. Costs nothing while none waits.

    Each waiter has a future of its own: cancelling one must not cancel the others.
    """

    # Those of tasks that have not been woken; wake_all empties it, so that none is woken twice.
    _waiters: list[asyncio.Future[None]] = Factory(list)

    def wake_all(self) -> None:
        """Wake all that wait now; those that begin to wait while they are woken wait for the next change."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self) -> None:
        """Return after the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled():
                # Otherwise wake_all has dropped it already.
                self._waiters = [each for each in self._waiters if each is not waiter]


@define(eq=False)
class DeadlineWaits:
    """One task's waits for an event, each until a deadline at the most. To be closed.

    The one driver of deadlines on the asyncio side; what moves a deadline forward sets the event. Trio's counterpart is
    `proglog_trio.deadline_timer`.

    Attributes:
        event: set by the deadline as well. The task clears it, and asks what is due, before each wait.
        clock: what the deadlines are on, in seconds.
    """

    event: asyncio.Event
    clock: Callable[[], float]
    # Setting a timer costs a turn of the loop. So one that is set is kept while deadlines only move on: it fires too
    # early then, once, and the task looks again.
    _timer: asyncio.TimerHandle | None = None
    _fires_at: float = math.inf

    async def wait(self, deadline: float | None) -> bool:
        """Return when the event is set, or at the deadline, or before; None: there is no deadline.

        Returns:
            Whether it had to wait, so that others have run meanwhile.
        """
        if self.event.is_set():
            return False
        if deadline is not None and deadline < self._fires_at:
            self.close()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(remaining(deadline, self.clock()), self._fire)
            self._fires_at = deadline
        await self.event.wait()
        return True

    def _fire(self) -> None:
        self._timer, self._fires_at = None, math.inf
        self.event.set()

    def close(self) -> None:
        """Have no timer set any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._fires_at = None, math.inf
