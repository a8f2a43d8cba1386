"""The thread behind a client: it runs the client's loop, which is asyncio's, for the length of the client's block.

A thread of its own, and not the one of AnyIO's ready portal: that one is waited for when the interpreter exits, before
anything could end it, so a program that ends without leaving a block would hang. This one is a daemon, and ended by
atexit.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio

from proglog_trio.client.errors import ClientForked
from proglog_trio.client.sync.waiting import ThreadWaiters, deadline_after
from proglog_trio.rpc.http2.asyncio_loop import crossing, run_in_thread

Result = TypeVar("Result")

EXIT_SECONDS = 5.0
"""How long an interpreter that exits waits for a client whose block was not left."""


class ClientThread:
    """Runs one async function in a thread of its own. All methods but the last two may be called by any thread.

    Attributes:
        what: what it runs, in a word.
        pid: of the process that it runs in.
    """

    def __init__(self, what: str, run: Callable[[ClientThread], Coroutine[Any, Any, None]]) -> None:
        self.what = what
        self.pid = os.getpid()
        self._run = run
        self._lock = threading.Lock()
        self._changed = ThreadWaiters(self._lock)
        self._thread = threading.Thread(target=self._main, name=f"proglog {what}", daemon=True)
        self._ready = self._abandoned = self._ended = False
        self._failure: BaseException | None = None
        # Has the loop call something soon; None before there is a loop, and when it is about to end.
        self._call_soon: Callable[[Callable[[], object]], object] | None = None
        self._scope: anyio.CancelScope | None = None
        self._left: anyio.Event | None = None

    def forked(self) -> ClientForked:
        """Return the error for a process that is a fork of the one that this thread runs in."""
        return ClientForked(
            f"this {self.what} was opened in process {self.pid}, and the thread behind it is not in process "
            f"{os.getpid()}, a fork of that: open another {self.what} here"
        )

    def start(self) -> None:
        """Start, and wait until the function says that it is ready; raises what it raises before."""
        atexit.register(self._leave_at_exit)
        self._thread.start()
        self._changed.wait_until(lambda: self._ready or self._ended, None)
        if self._ended:
            self._raise_failure()

    def leave(self, *, in_order: bool) -> None:
        """Let the function end, or cancel it, and wait until it has ended; raises what it raised if left in order.

        Ctrl-C meanwhile cancels it, and is raised without waiting further.

        Raises:
            ClientForked: this is a fork of the process that it runs in, and it is to be left in order.
        """
        if os.getpid() != self.pid:
            if in_order:
                raise self.forked()
            return
        try:
            if in_order:
                self.call_soon(self._let_end)
            else:
                self._abandon()
            if self._thread.ident is not None and not sys.is_finalizing():
                self._changed.wait_until(lambda: self._ended, None)
        except BaseException:
            self._abandon()
            raise
        finally:
            atexit.unregister(self._leave_at_exit)
        if in_order:
            self._raise_failure()

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have the loop call a function soon, which raises nothing; return False if it will not: it has ended."""
        with self._lock:
            if self._call_soon is None:
                return False
            self._call_soon(function)
            return True

    def ask(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns that must be called by the loop's thread, if there is one. It raises nothing.

        Raises:
            ClientForked: see leave.
        """
        if os.getpid() != self.pid:
            raise self.forked()
        answers: SimpleQueue[Result] = SimpleQueue()
        if not self.call_soon(lambda: answers.put(function())):
            with self._lock:
                return function()
        return answers.get()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._call_soon is not None and self._scope is not None:
                self._call_soon(self._scope.cancel)

    def _leave_at_exit(self) -> None:
        if os.getpid() != self.pid or self._ended or not self._thread.is_alive():
            return
        warnings.warn(
            f"the block of a {self.what} was not left before the program ended", ResourceWarning, stacklevel=1
        )
        self._abandon()
        self._changed.wait_until(lambda: self._ended, deadline_after(EXIT_SECONDS))

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            run_in_thread(self._serve)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the thread
            self._failure = error
        with self._lock:
            self._ended = True
            self._changed.wake_all()

    async def _serve(self) -> None:
        with anyio.CancelScope() as scope:
            self._left = anyio.Event()
            with self._lock:
                self._scope = scope
                self._call_soon = crossing()
                if self._abandoned:
                    scope.cancel()
            try:
                await self._run(self)
            finally:
                with self._lock:
                    # What was to be called until now is still called: the loop runs on a little while it is closed.
                    self._call_soon = None

    def _let_end(self) -> None:
        if self._left is not None:
            self._left.set()

    def ready(self) -> None:
        """Let start return; called by the function."""
        with self._lock:
            self._ready = True
            self._changed.wake_all()

    async def until_left(self) -> None:
        """Wait until the function is to end; called by it."""
        if self._left is None:
            raise RuntimeError("this runs in the thread's own loop")
        await self._left.wait()


@contextmanager
def running(thread: ClientThread) -> Iterator[None]:
    """Run a thread for the length of a block; see ClientThread.leave for how it is left."""
    try:
        thread.start()
        yield
    except BaseException:
        thread.leave(in_order=False)
        raise
    thread.leave(in_order=True)
