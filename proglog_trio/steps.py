"""Long work in short steps: how a loop that many share does what comes from outside.

Work whose length is decided by others is a generator that yields between pieces of well below a millisecond. The task
that runs it may let others have a turn at each of them; a caller that has time enough runs it through at once. Threads
are no substitute: pure Python in a thread keeps the interpreter's lock for 5 ms at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from attrs import define

from proglog_trio.units import MEBIBYTE

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""Yields whenever others may have a turn, and returns what it was for."""

TURN_SECONDS = 0.001
"""How long work goes on before others have a turn, plus one step."""


COPIED_AT_ONCE_BYTES = MEBIBYTE
"""In one step: new memory costs up to a millisecond a MiB."""


def joined(parts: Iterable[bytes | bytearray | memoryview]) -> Steps[bytearray]:
    """Return, in steps, all parts one after the other."""
    whole = bytearray()
    since = 0
    for part in parts:
        for start in range(0, len(part), COPIED_AT_ONCE_BYTES):
            piece = (
                part if len(part) <= COPIED_AT_ONCE_BYTES else memoryview(part)[start : start + COPIED_AT_ONCE_BYTES]
            )
            whole += piece
            since += len(piece)
            if since >= COPIED_AT_ONCE_BYTES:
                since = 0
                yield
    return whole


def complete(steps: Steps[Result]) -> Result:
    """Return what work gives, done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


@define(eq=False)
class Turn:
    """How long work has been going on without a pause.

    Attributes:
        clock: in seconds; what passes while others hold the processor counts as well, since others wait then too.
        seconds: how long a turn is.
    """

    clock: Callable[[], float] = time.perf_counter
    seconds: float = TURN_SECONDS
    _ends: float = 0.0

    def begin(self) -> None:
        """Begin a turn."""
        self._ends = self.clock() + self.seconds

    @property
    def is_over(self) -> bool:
        """Whether others should have theirs."""
        return self.clock() >= self._ends
