"""Lamport clocks: numbers that order intents, events and queries across members (Lamport, 1978)."""

from __future__ import annotations

from attrs import define

HIGHEST_LAMPORT_TIME = 2**64 - 1
"""What the wire can carry. Counting never gets there; a hostile member can say so, and clocks then stand still."""


@define
class LamportClock:
    """A Lamport clock.

    Attributes:
        time: what the next own message is stamped with, at the least.
    """

    time: int = 1

    def tick(self) -> int:
        """Move on and return the new time."""
        self.time = min(self.time + 1, HIGHEST_LAMPORT_TIME)
        return self.time

    def witness(self, time: int) -> None:
        """Raise this clock above another's time."""
        if time >= self.time:
            self.time = min(time + 1, HIGHEST_LAMPORT_TIME)
