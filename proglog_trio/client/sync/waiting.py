"""Threads that wait for the next change of something that a lock guards.

Ctrl-C is raised in the main thread after any call, inside Python's own Condition and Event too, which it may leave with
a lock that is nobody's, or that is released twice. So what is here waits on queues that are written in C, one for each
wait: the worst that an interrupted wait leaves is such a queue, until the next change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock

from proglog_trio.durations import remaining

LOOK_AGAIN_SECONDS = 1.0
"""How long a thread waits before it looks by itself: Ctrl-C may have cut short what was about to wake it."""


def deadline_after(timeout: float | None) -> float | None:
    """Return when a wait of so many seconds is over, on the monotonic clock; None: never."""
    return None if timeout is None else time.monotonic() + timeout


class ThreadWaiters:
    """Wakes all threads that wait for the next change. Costs nothing while none waits."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._waiting: list[SimpleQueue[None]] = []

    def wake_all(self) -> None:
        """Wake all that wait now; called by whoever holds the lock."""
        for waiter in self._waiting:
            waiter.put(None)
        self._waiting.clear()

    def wait_until(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until a condition is true, looking at it after each change; return whether it is.

        Args:
            condition: called while the lock is held; what it does comes together with its being true.
            deadline: see deadline_after.
        """
        while True:
            seconds = LOOK_AGAIN_SECONDS
            with self._lock:
                if condition():
                    return True
                if deadline is not None:
                    seconds = min(remaining(deadline, time.monotonic()), seconds)
                    if not seconds:
                        return False
                waiter: SimpleQueue[None] = SimpleQueue()
                self._waiting.append(waiter)
            try:
                waiter.get(timeout=seconds)
            except Empty:
                pass
            finally:
                with self._lock:
                    if waiter in self._waiting:
                        self._waiting.remove(waiter)
