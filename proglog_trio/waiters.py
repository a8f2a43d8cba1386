"""Tasks that wait for the next change of something, under Trio or asyncio."""

from __future__ import annotations

import anyio
from attrs import define


@define(eq=False)
class Waiters:
    """Wakes all tasks that wait for the next change. Costs nothing while none waits.

    Whatever changes something may wake them: a callback on a loop below Trio's too, where AnyIO's events can be set but
    not made. So the event is made by a task that waits.
    """

    _event: anyio.Event | None = None

    def wake_all(self) -> None:
        """Wake all that wait now; those that begin to wait from then on wait for the next change."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Return after the next change."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
