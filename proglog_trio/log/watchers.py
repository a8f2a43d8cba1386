"""Callbacks that are told of a kind of change."""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define

from proglog_trio.internal_errors import InternalErrors, Where


@define
class Watchers:
    """Callbacks in the order in which they were added; one that raises keeps the others from nothing. Host thread.

    Attributes:
        errors: counts what they raise.
    """

    errors: InternalErrors
    # By numbers that are never given again, so that what ends a callback can be called at any time, and twice.
    _callbacks: dict[int, Callable[[], None]] = Factory(dict)
    _next_number: int = 0

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Add a callback and return what takes it out."""
        number = self._next_number
        self._next_number += 1
        self._callbacks[number] = callback
        return lambda: self._callbacks.pop(number, None) and None

    def call_all(self) -> None:
        """Call all of them, and keep them."""
        boundary = self.errors.boundary(Where.LOG_CALLBACK)
        # Of a copy: they may add others and take themselves out.
        for callback in list(self._callbacks.values()):
            with boundary:
                callback()

    def call_once_while(self, may_go_on: Callable[[], bool]) -> None:
        """Take out and call one after the other, as long as may_go_on says so: each may use up what it waited for."""
        while self._callbacks and may_go_on():
            with self.errors.boundary(Where.LOG_CALLBACK):
                self._callbacks.pop(next(iter(self._callbacks)))()
