"""The asyncio loop that grpclib runs on: the program's own, or a guest of Trio's.

Clients run under either, on AnyIO; what AnyIO has no word for, since it is about the loop below, is here. A node always
runs under Trio. trio-asyncio is imported when it is needed: a program that runs on asyncio never is changed by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

import anyio
import anyio.lowlevel
import sniffio
import trio

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.library_fixes import sweep_cancelled_timers

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def runs_trio() -> bool:
    """Return whether this task is one of Trio's, and not one of asyncio's; AnyIO sees it the same way."""
    return sniffio.current_async_library() == "trio"


def loop_clock() -> Callable[[], float]:
    """Return the clock of the loop that this task runs on, in seconds; it may be read in callbacks of links too."""
    return trio.current_time if runs_trio() else asyncio.get_running_loop().time


def cancellation_check() -> Callable[[], Awaitable[None]]:
    """Return AnyIO's checkpoint_if_cancelled for this task's loop; Trio's own costs a third of it."""
    return trio.lowlevel.checkpoint_if_cancelled if runs_trio() else anyio.lowlevel.checkpoint_if_cancelled


def run_in_thread(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asyncio function in this thread, which has no loop, on asyncio's own one.

    It is that one whatever the process's policy says, which the program or a library may have changed.
    """
    anyio.run(function, backend="asyncio", backend_options={"loop_factory": asyncio.SelectorEventLoop})


def crossing() -> Callable[[Callable[[], object]], object]:
    """Return a function with which any thread has this task's loop, asyncio's, call something soon.

    It raises RuntimeError when the loop is closed.
    """
    return asyncio.get_running_loop().call_soon_threadsafe


@contextlib.asynccontextmanager
async def asyncio_loop(errors: InternalErrors | None = None) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Yield the asyncio loop of this task: the one that is running, or else a new one inside Trio, closed at the end.

    An error of the body comes out as it is, not inside the exception group that a new loop's nursery would make of it.

    Args:
        errors: where a new loop counts what a callback or a task of its raises and leaves; None: that ends the
            loop, and with it whatever runs here, which is what trio-asyncio does by itself.
    """
    if not runs_trio():
        yield asyncio.get_running_loop()
        return
    from proglog_trio.rpc.http2.bridge import current_loop, open_loop
    from proglog_trio.rpc.http2.callback_turns import run_ready_together
    from proglog_trio.rpc.http2.interrupts import keep_interrupts_out_of_callbacks

    running = current_loop.get()
    if running is not None:
        sweep_cancelled_timers(running)
        run_ready_together(running)
        yield running
        return
    keep_interrupts_out_of_callbacks()
    failure: Exception | None = None
    async with open_loop() as loop:
        sweep_cancelled_timers(loop)
        run_ready_together(loop)
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
            what = context.get("task") or context.get("future") or context.get("transport")
            errors.note(Where.ASYNCIO, RuntimeError(message if what is None else f"{message} {what!r}"))
        elif isinstance(error, Exception):
            errors.note(Where.ASYNCIO, error, message=message)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def leave_inherited_loop() -> None:
    """Have this task take a loop of its own inside Trio: the one it inherited may be closed before this task ends."""
    if runs_trio():
        from proglog_trio.rpc.http2.bridge import current_loop

        current_loop.set(None)


async def run_asyncio(function: Callable[[*Arguments], Coroutine[Any, Any, Result]], *arguments: *Arguments) -> Result:
    """Run an asyncio function on the loop of `asyncio_loop`, from Trio or from asyncio, and return its result.

    However this task is cancelled, the function is cancelled once, the asyncio way, and waited for. grpclib's streams
    are closed behind it then, which they would not be if each of its awaits were cancelled anew. A cancellation comes
    out of here whatever the function made of it.
    """
    if runs_trio():
        from proglog_trio.rpc.http2.bridge import aio_as_trio

        return await aio_as_trio(function)(*arguments)  # type: ignore[no-any-return]  # trio-asyncio has no types
    task = asyncio.get_running_loop().create_task(function(*arguments))
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await _wait_out(task)
        raise
    return task.result()


async def _wait_out(task: asyncio.Task[Any]) -> asyncio.CancelledError | None:
    """Wait until a task that was cancelled has ended, with whatever; return a cancellation that came meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if not task.cancelled():
        # asked for, so that asyncio does not complain of an error that nobody saw
        task.exception()
    return cancelled


@contextlib.asynccontextmanager
async def asyncio_background(
    run: Callable[[], Coroutine[Any, Any, None]], leave: Callable[[], None]
) -> AsyncIterator[None]:
    """Run an asyncio task behind the body of a block; see `proglog_trio.client.block`, which has the same for Trio.

    No task group of asyncio or AnyIO: a block of theirs must be left in the task that entered it, and in the order of
    entering, and AnyIO's, before Python 3.13, makes a cancellation of the errors of a TaskGroup inside it. What opens a
    client in a fixture, or two and closes the first one first, would fail.
    """
    opener = asyncio.current_task()
    if opener is None:
        raise RuntimeError("this runs in an asyncio task")
    scope = anyio.CancelScope()

    async def run_in_scope() -> None:
        # Not cancelled the asyncio way, which heeds no shield, and has what has not begun yet never begin.
        with scope:
            await run()

    behind = asyncio.get_running_loop().create_task(run_in_scope())
    interrupts = leaving = False

    def ended(behind: asyncio.Task[None]) -> None:
        nonlocal interrupts
        # Asked for here, since what asyncio has begun to call when the task ended comes after the body's end.
        if not leaving and not behind.cancelled() and behind.exception() is not None:
            interrupts = opener.cancel()

    behind.add_done_callback(ended)
    try:
        yield
    finally:
        leaving = True
        leave()
        scope.cancel()
        meanwhile = await _wait_out(behind)
        if interrupts:
            opener.uncancel()
        failure = None if behind.cancelled() else behind.exception()
        if failure is not None:
            # Also in the place of a cancellation from elsewhere, as under Trio: an error must not be lost to it.
            raise BaseExceptionGroup("the task behind a client has failed", [failure])
        if meanwhile is not None:
            raise meanwhile
