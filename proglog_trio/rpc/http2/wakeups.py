"""Waking asyncio code from a callback of the log; both run in one thread."""

from __future__ import annotations

import asyncio
import contextlib
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


async def wait_until(event: asyncio.Event, deadline: float | None, clock: Callable[[], float]) -> bool:
    """Return when an event is set, or at a time of the clock (seconds); None: only then.

    Returns:
        Whether it had to wait, so that others have run meanwhile.

    The one driver of deadlines on the asyncio side; what moves a deadline forward sets the event. Trio's counterpart is
    `proglog_trio.deadline_timer`.
    """
    waits = not event.is_set()
    if deadline is None:
        await event.wait()
        return waits
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(remaining(deadline, clock())):
            await event.wait()
    return waits
