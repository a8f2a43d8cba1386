"""The asyncio loop that grpclib runs on, inside Trio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.bridge import current_loop, open_loop
from proglog_trio.rpc.http2.interrupts import keep_interrupts_out_of_callbacks
from proglog_trio.rpc.http2.library_fixes import sweep_cancelled_timers


@contextlib.asynccontextmanager
async def asyncio_loop(errors: InternalErrors | None = None) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Yield the asyncio loop of this Trio task: the one that is running, or else a new one, closed at the end.

    An error of the body comes out as it is, not inside the exception group that a new loop's nursery would make of it.

    Args:
        errors: where a new loop counts what a callback or a task of its raises and leaves; None: that ends the
            loop, and with it whatever runs here, which is what trio-asyncio does by itself.
    """
    running = current_loop.get()
    if running is not None:
        sweep_cancelled_timers(running)
        yield running
        return
    keep_interrupts_out_of_callbacks()
    failure: Exception | None = None
    async with open_loop() as loop:
        sweep_cancelled_timers(loop)
        if errors is not None:
            _note_errors(loop, errors)
        try:
            yield loop
        except Exception as error:  # noqa: BLE001 - raised again below, once the loop is closed
            failure = error
    if failure is not None:
        raise failure


def _note_errors(loop: asyncio.AbstractEventLoop, errors: InternalErrors) -> None:
    """Have the loop go on after an error that reached it: asyncio has closed the connection that it was one of."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = str(context.get("message", ""))
        if error is None:
            # Something was left behind, such as a task that was never awaited.
            errors.note(Where.ASYNCIO, RuntimeError(message))
        elif isinstance(error, Exception):
            errors.note(Where.ASYNCIO, error, message=message)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
