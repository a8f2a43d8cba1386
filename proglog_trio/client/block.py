"""The ``async with`` block of a client: its body, and one task behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import trio

from proglog_trio.rpc.http2.asyncio_loop import asyncio_background, runs_trio


def run_behind(
    task: Callable[[], Coroutine[Any, Any, None]], leave: Callable[[], None], *, outlives_cancellation: bool
) -> AbstractAsyncContextManager[None]:
    """Run a task behind the body of a block, and end it, with all that it holds, when the body is left in any way.

    An error of the body comes out as it is, not in a group: KeyboardInterrupt and SystemExit too, so that they still
    mean what they mean to Python. An error of the task cancels the body and comes out in a group.

    Args:
        task: ended by being cancelled.
        leave: called at once when the body is left, before the task is cancelled.
        outlives_cancellation: whether the task goes on when what is around the block is cancelled, for as long as the
            body has not been left: the body may be in a shielded ``finally`` in which it waits for the task. Otherwise
            the task ends together with the scope, and must leave no task waiting for it. Under asyncio, where a
            cancellation is told once and to one task, it goes on in any case.
    """
    return _beside_nursery(task, leave, outlives_cancellation) if runs_trio() else asyncio_background(task, leave)


# Ctrl-C while this or the task is at work is raised in the main task, at its next checkpoint: it must not come between
# the body's end and the task's.
@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _beside_nursery(
    task: Callable[[], Coroutine[Any, Any, None]], leave: Callable[[], None], outlives_cancellation: bool
) -> AsyncIterator[None]:
    failure: BaseException | None = None
    scope = anyio.CancelScope(shield=outlives_cancellation)

    @trio.lowlevel.enable_ki_protection
    async def behind() -> None:
        with scope:
            await task()

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(behind)
        try:
            yield
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - carried out of the nursery
            failure = error
        finally:
            # The shield must not outlive the body: nothing else would end the task then.
            leave()
            scope.cancel()
    if failure is not None:
        raise failure
