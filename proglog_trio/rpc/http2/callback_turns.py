"""Many asyncio callbacks in one turn of Trio.

A trio-asyncio loop runs one callback in each turn of Trio: between two of them Trio asks the system for events, looks
at its deadlines, and makes a scope for the loop's next timer, which takes as long as many callbacks do. asyncio's own
loop runs all callbacks that are ready before it asks again, and so does a loop that is changed here, for a millisecond
at a stretch. Nodes that pull batches from one another need half as many turns for each.

Checked with trio-asyncio 0.15.0 and 0.16.0. A test says when its loop does so by itself, and this can go.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from typing import Any

import sniffio
import trio
from attrs import define

from proglog_trio.rpc.http2.bridge import AsyncHandle, TrioEventLoop

AT_A_STRETCH_SECONDS = 0.001
"""For so long callbacks are run before Trio's tasks have their turn; the last of them may take longer."""


def run_ready_together(loop: asyncio.AbstractEventLoop) -> None:
    """Make a trio-asyncio loop run all callbacks that are ready in one turn; doing it again changes nothing."""
    if not isinstance(loop._main_loop_one, CallbackTurns):  # type: ignore[attr-defined]  # noqa: SLF001 - see below
        loop._main_loop_one = CallbackTurns(loop)  # type: ignore[attr-defined]  # noqa: SLF001 - see below


@define(eq=False)
class CallbackTurns:
    """Takes the place of a loop's method `_main_loop_one`, which its main task calls again and again.

    Attributes:
        loop: the trio-asyncio loop.
        turns: how often it was called.
        callbacks: how many it has run.
    """

    # Neither the method, nor the queue and the timers it works on, have public names.
    loop: Any
    turns: int = 0
    callbacks: int = 0

    async def __call__(self, no_wait: bool = False) -> None:
        """Run what is ready, or what is next; no_wait: as that method does, while the loop is being closed."""
        if no_wait:
            await TrioEventLoop._main_loop_one(self.loop, no_wait=True)  # noqa: SLF001 - see above
            return
        self.turns += 1
        until = time.perf_counter() + AT_A_STRETCH_SECONDS
        while time.perf_counter() < until:
            handle = self._next_ready()
            if handle is None:
                # Trio has its turn while this waits, and another stretch begins.
                handle = await self._wait()
                if handle is not None:
                    await self._run(handle)
                return
            await self._run(handle)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _next_ready(self) -> asyncio.Handle | None:
        loop = self.loop
        while not (loop._timers and loop._timers[0]._when <= loop.time()):  # noqa: SLF001 - see above
            try:
                handle: asyncio.Handle = loop._q_recv.receive_nowait()  # noqa: SLF001 - see above
            except trio.WouldBlock:
                return None
            if not isinstance(handle, asyncio.TimerHandle):
                return handle
            heapq.heappush(loop._timers, handle)  # noqa: SLF001 - see above
        due: asyncio.Handle = heapq.heappop(loop._timers)  # noqa: SLF001 - see above
        return due

    async def _wait(self) -> asyncio.Handle | None:
        """Wait for the next handle, or until a timer is due; None: look again."""
        loop = self.loop
        deadline = loop._timers[0]._when if loop._timers else math.inf  # noqa: SLF001 - see above
        with trio.CancelScope(deadline=deadline):
            handle: asyncio.Handle = await loop._q_recv.receive()  # noqa: SLF001 - see above
            if not isinstance(handle, asyncio.TimerHandle):
                return handle
            heapq.heappush(loop._timers, handle)  # noqa: SLF001 - see above
        return None

    async def _run(self, handle: asyncio.Handle) -> None:
        self.callbacks += 1
        if isinstance(handle, AsyncHandle):
            # The start of a Trio task.
            run = self.loop._nursery.start_soon  # noqa: SLF001 - see above
            handle._context.run(run, handle._run, name=handle._callback)  # noqa: SLF001 - as the method does
            await handle._started.wait()  # noqa: SLF001 - as the method does
        elif not handle.cancelled():
            library, sniffio.thread_local.name = sniffio.thread_local.name, "asyncio"
            try:
                handle._run()  # noqa: SLF001 - as every loop does
            finally:
                sniffio.thread_local.name = library
