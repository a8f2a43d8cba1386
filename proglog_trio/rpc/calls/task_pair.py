"""One asyncio task beside another, the first ending the second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager


@asynccontextmanager
async def run_beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run an asyncio task beside the body, which is cancelled if the task fails; the task's error comes out then.

    asyncio.TaskGroup would do if it did not wrap the body's own errors, which decide what becomes of the stream.
    """
    body = asyncio.current_task()
    if body is None:
        raise RuntimeError("this runs in an asyncio task")
    task = asyncio.ensure_future(work)

    def ended(task: asyncio.Future[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            body.cancel()

    task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        error = task.exception() if task.done() and not task.cancelled() else None
        if error is not None:
            raise error from None
        raise
    finally:
        task.remove_done_callback(ended)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
