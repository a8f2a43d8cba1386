"""A wakeup: that something has happened, for the one task that waits for it."""

from __future__ import annotations

import trio
from attrs import define, field


@define(eq=False)
class Wakeup:
    """Wakes one task. What happens while that does something else wakes it when it waits again."""

    _event: trio.Event = field(factory=trio.Event)

    def set(self) -> None:
        """Wake the task that waits, or the next that does."""
        self._event.set()

    def clear(self) -> None:
        """Forget what has happened so far."""
        self._event = trio.Event()

    async def wait(self) -> None:
        """Wait until something has happened since clear was last called."""
        await self._event.wait()
