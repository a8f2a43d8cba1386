"""The one driver of deadlines of tasks: a wait that ends at a deadline which may move while it lasts.

On AnyIO, since clients run under asyncio too.

A core without I/O says when it is to be called next, and each call into it may change that. Its task waits here; what
calls into the core tells the timer afterwards. The counterpart on the asyncio side of a node is
 `proglog_trio.rpc.http2.wakeups.DeadlineWaits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
from attrs import define


@define(eq=False)
class DeadlineTimer:
    """Waits for a core's next deadline; one task waits at a time.

    Attributes:
        next_deadline: returns it, on the loop's clock; None or infinity: there is none.
    """

    next_deadline: Callable[[], float | None]
    # What wait sleeps until. An earlier deadline must wake it; a later one need not: it looks again when it wakes up.
    _armed: float = math.inf
    # Made anew for each wait, so that nothing of the wait before ends it. Whatever is set between two waits is seen by
    # the second, which asks for the deadline first.
    _wakeup: anyio.Event | None = None

    async def wait(self) -> float:
        """Return at the deadline, or when an earlier one or wake ends the wait; return what was waited for.

        A deadline that has passed is returned after a checkpoint. The caller asks its core what is due.
        """
        deadline = self.next_deadline()
        self._armed = math.inf if deadline is None else deadline
        self._wakeup = wakeup = anyio.Event()
        with anyio.CancelScope(deadline=self._armed):
            await wakeup.wait()
        return self._armed

    def rearm(self) -> None:
        """End the wait if the deadline has become an earlier one."""
        deadline = self.next_deadline()
        if deadline is not None and deadline < self._armed:
            self.wake()

    def wake(self) -> None:
        """End the wait: there is something to do whatever the deadline."""
        if self._wakeup is not None:
            self._wakeup.set()
