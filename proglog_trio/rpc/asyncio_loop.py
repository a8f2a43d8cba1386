"""The asyncio loop that grpclib runs on, inside Trio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import trio_asyncio

from .interrupts import keep_interrupts_out_of_callbacks
from .timers import sweep_cancelled_timers


@contextlib.asynccontextmanager
async def asyncio_loop() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Yield the asyncio loop of this Trio task: the one that is running, or else a new one, closed at the end.

    An error of the body comes out as it is, not inside the exception group that a new loop's nursery would make of it.
    """
    running = trio_asyncio.current_loop.get()
    if running is not None:
        sweep_cancelled_timers(running)
        yield running
        return
    keep_interrupts_out_of_callbacks()
    failure: Exception | None = None
    async with trio_asyncio.open_loop() as loop:
        sweep_cancelled_timers(loop)
        try:
            yield loop
        except Exception as error:  # noqa: BLE001 - raised again below, once the loop is closed
            failure = error
    if failure is not None:
        raise failure
