"""Turns: of all that streams from outside cause, one piece is done between two looks at the network."""

from __future__ import annotations

import trio
from attrs import define, field

from proglog_trio.steps import Result, Steps, Turn


@define(eq=False)
class Turns:
    """The turns of many tasks on one loop.

    They wait for each other in order, so that a hundred who have much to do hold the loop no longer than one, and one
    who has little does not wait until they are done.

    Attributes:
        turn: how long each is.
        taken: how many there were.
    """

    turn: Turn = field(factory=Turn)
    taken: int = 0
    _lock: trio.Lock = field(factory=trio.Lock)

    async def run(self, steps: Steps[Result]) -> Result:
        """Return what work gives; it is left where it is when this is cancelled between two turns."""
        try:
            while True:
                async with self._lock:
                    self.taken += 1
                    self.turn.begin()
                    while True:
                        next(steps)
                        if self.turn.is_over:
                            break
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            steps.close()
