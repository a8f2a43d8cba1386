"""Blocking reads of one stream, in a thread, awaited from asyncio.

A stream's handler may be cancelled at any time, but a read that is under way in its thread cannot be. So what was
opened is closed after it: at once when no read runs, else by the thread that runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Closable(Protocol):
    """Something that a stream reads from."""

    def close(self) -> None:
        """Close it; takes no time."""


Opened = TypeVar("Opened", bound=Closable)


class DiskCalls(Generic[Opened]):
    """The blocking calls of one stream, one at a time; a context manager that closes what was opened.

    Args:
        executor: has the threads.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        # The latest call. While it runs, _opened belongs to its thread, and to the loop's thread otherwise.
        self._running: Future[Any] | None = None
        self._opened: Opened | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is None:
            return
        # In the thread of the call that still runs, after it; here and at once where none does.
        self._running.add_done_callback(lambda _: self._close())

    async def open(self, function: Callable[[*Arguments], Opened], *arguments: *Arguments) -> Opened:
        """Open what the stream reads from, in a thread."""

        def opened() -> Opened:
            self._opened = function(*arguments)
            return self._opened

        return await self.begin(opened)

    def begin(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        """Begin a call in a thread; its result must be awaited before the next call."""
        if self._running is not None and not self._running.done():
            raise RuntimeError("a stream has one blocking call at a time")
        running = self._executor.submit(function, *arguments)
        self._running = running
        result = asyncio.wrap_future(running)
        result.add_done_callback(_retrieve)
        return result

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _retrieve(result: asyncio.Future[Any]) -> None:
    # An error that is not awaited any more, since the stream has ended, is no news; asyncio would log it.
    if not result.cancelled():
        result.exception()
