"""User events: what members broadcast to each other, each delivered and passed on once."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.seen import RecentRing

EVENT_OVERHEAD_BYTES = 256
"""What an event that is remembered counts for besides its name and payload: it bounds how many there are."""


def _event_bytes(event: tuple[str, bytes]) -> int:
    name, payload = event
    return len(name) + len(payload) + EVENT_OVERHEAD_BYTES


@define(eq=False)
class UserEvents:
    """The user events that were heard of lately.

    Attributes:
        clock: of events; it is above the time of each event that was heard of.
        recent: name and payload of each, by Lamport time.
    """

    clock: LamportClock
    recent: RecentRing[tuple[str, bytes]] = field(factory=lambda: RecentRing(_event_bytes))

    def receive(self, ltime: int, name: str, payload: bytes) -> bool:
        """Remember an event; tell whether it is new, and so to be passed on."""
        # First: what is old is judged by a clock that knows of this very event.
        self.clock.witness(ltime)
        return self.recent.add(ltime, (name, payload), self.clock.time)

    def ignore_before(self, ltime: int) -> None:
        """Count events from before a Lamport time as seen: they are history to a node that joins."""
        self.recent.lowest = max(self.recent.lowest, ltime)

    def items(self) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
        """Yield each Lamport time of which events are remembered, with name and payload of each."""
        return self.recent.items()
