"""Trio in a thread of its own: for a node, which runs under Trio, beside a test that runs on any loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeVar, TypeVarTuple

import anyio
import outcome
import trio
from attrs import define

from tests.backends import call_soon_from_threads

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


@define(eq=False)
class TrioThread:
    """A thread that runs Trio, called from the thread of a test."""

    _token: trio.lowlevel.TrioToken
    _nursery: trio.Nursery

    async def run(self, function: Callable[[*Arguments], Awaitable[Result]], *arguments: *Arguments) -> Result:
        """Run an async function there and return its result, or raise its error; it is cancelled with this task."""
        ended = anyio.Event()
        call_soon = call_soon_from_threads()
        scope = trio.CancelScope()
        result: outcome.Maybe[Result] | None = None

        async def run() -> None:
            nonlocal result
            with scope:
                result = await outcome.acapture(function, *arguments)
            call_soon(ended.set)

        self._token.run_sync_soon(self._nursery.start_soon, run)
        try:
            await ended.wait()
        finally:
            if result is None:
                self._token.run_sync_soon(scope.cancel)
                with anyio.CancelScope(shield=True):
                    await ended.wait()
        assert result is not None
        return result.unwrap()

    async def call(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call a function there."""

        async def call() -> Result:
            return function(*arguments)

        return await self.run(call)


@asynccontextmanager
async def in_trio_thread(
    make: Callable[[], AbstractAsyncContextManager[Result]],
) -> AsyncIterator[tuple[TrioThread, Result]]:
    """Run a block of Trio's in a new thread for the length of this one; yield its value, and what calls into it.

    The value belongs to the thread: whatever is not a plain look at it is done by `TrioThread.run`.
    """
    entered, left, leave = anyio.Event(), anyio.Event(), trio.Event()
    call_soon = call_soon_from_threads()
    inside: list[tuple[TrioThread, Result]] = []
    failures: list[BaseException] = []

    async def main() -> None:
        async with make() as value, trio.open_nursery() as nursery:
            inside.append((TrioThread(trio.lowlevel.current_trio_token(), nursery), value))
            call_soon(entered.set)
            await leave.wait()
            nursery.cancel_scope.cancel()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the test
            failures.append(error)
        call_soon(entered.set)
        call_soon(left.set)

    thread = threading.Thread(target=run, name="trio")
    thread.start()
    try:
        with anyio.CancelScope(shield=True):
            await entered.wait()
        if inside:
            yield inside[0]
    finally:
        if inside:
            # Its block may have failed and ended the run by now; what it failed with is on the way.
            with suppress(trio.RunFinishedError):
                inside[0][0]._token.run_sync_soon(leave.set)
        with anyio.CancelScope(shield=True):
            await left.wait()
        thread.join()
    if failures:
        raise failures[0]
