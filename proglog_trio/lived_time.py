"""Time as a process lives through it: while it is stopped, its clock goes on and it does nothing.

A member that judges others by their silence must not count the time in which it could not listen. Local health in
Lifeguard starts from the same observation: the fault may be one's own (Dadgar, Phillips, Currey, "Lifeguard: Local
Health Awareness for More Accurate Failure Detection", 2018). Here it is taken literally: what was due long ago when the
clock is next read was not looked at, so the process was stopped, or its loop was held. The time since it last did
anything does not count, and neither does a moment after that, in which it reads what has arrived meanwhile. Whatever
waits for a time then goes on waiting for the rest of it.
"""

from __future__ import annotations

import math

from attrs import define

MAX_IN_A_ROW = 3
"""Pauses without a moment's life between them that stop the time. A loop that is always late is slow and not paused:
from then on, each reading runs at least what was due first."""


@define
class LivedTime:
    """A clock's readings, without the pauses. Reads no clock itself.

    Attributes:
        now: how late it is in lived time, in seconds; never goes back. In the beginning, the clock's first reading.
        patience: what is late by more than this, in seconds, was not looked at because the process was stopped.
        grace: for how long after a pause time still stands, in seconds.
        paused: how many seconds of the clock were not lived through, the grace included.
        pauses: how often the process was stopped.
    """

    now: float
    patience: float = math.inf
    grace: float = 0.0
    paused: float = 0.0
    pauses: int = 0
    # Pauses since time last went on by itself; at MAX_IN_A_ROW the next reading lets it go on all the same.
    _in_a_row: int = 0

    def advance(self, reading: float, due: float | None) -> float:
        """Bring lived time up to a reading of the clock.

        Args:
            reading: in seconds; one before the last counts as the last.
            due: until when, in lived time, the clock should have been read at the latest; None: there was no need to.

        Returns:
            For how many seconds the process was stopped before this reading; 0 if it was not.
        """
        lived = reading - self.paused
        if due is None or lived - max(due, self.now) <= self.patience:
            if lived > self.now:
                self.now = lived
                self._in_a_row = 0
            return 0.0
        lost = lived - self.now
        self.pauses += 1
        if self._in_a_row < MAX_IN_A_ROW:
            self._in_a_row += 1
            self.paused = reading + self.grace - self.now
        else:
            self._in_a_row = 0
            self.now = max(due, self.now)
            self.paused = reading - self.now
        return lost

    def reading_of(self, lived: float) -> float:
        """Return the first reading of the clock at which it is so late in lived time, if no pause comes between."""
        reading = lived + self.paused
        while reading - self.paused < lived:  # The sum was rounded down.
            reading = math.nextafter(reading, math.inf)
        return reading
