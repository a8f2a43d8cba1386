"""How the wall clocks of peers differ from this node's.

A puller asks, the source answers what its wall clock says. When between question and answer it said so is not known; so
the difference is known to half of that time (as in Cristian, "Probabilistic clock synchronization", 1989). Which of the
two is right cannot be known: what disagrees is named, and nothing is refused for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, define

from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS, clamped
from proglog_trio.replication.events import ClockReading, LogTimeReturned, PeerClockChanged
from proglog_trio.replication.local_node import LocalNode

QUESTION_SECONDS = 30.0
"""How often each peer is asked."""
FRESH_SECONDS = 3 * QUESTION_SECONDS
"""For so long what a peer answered counts as what its clock says."""
OFF_MILLISECONDS = 10_000
"""A clock is off when it certainly differs by more than this, until it certainly differs by less than the next."""
RIGHT_MILLISECONDS = 5_000
RETURN_SECONDS = 3600.0
"""Log time returns to the wall clock at most so often: each time costs an origin, and a clock may jump for ever."""


@define
class _PeerClock:
    reading: ClockReading | None = None
    is_off: bool = False


@define
class PeerClocks:
    """The peers' clocks, by the names of those that answered; forget those that leave."""

    _clocks: dict[str, _PeerClock] = Factory(dict)

    def answered(self, peer: str, theirs: int, mine: int, took: float, now: float) -> PeerClockChanged | None:
        """Keep what an answer says; return what changes by it.

        Args:
            peer: the peer's name.
            theirs: what its wall clock said, in milliseconds.
            mine: what this node's says now.
            took: seconds between question and answer.
            now: seconds of the monotonic clock.
        """
        clock = self._clocks.setdefault(peer, _PeerClock())
        # A process that was stopped meanwhile makes it longer; none makes it less than nothing.
        half = int(max(took, 0.0) * 500) + 1
        reading = clock.reading = ClockReading(clamped(theirs) + half - mine, half, now)
        difference, was_off = abs(reading.ahead), clock.is_off
        if was_off:
            clock.is_off = difference + half >= RIGHT_MILLISECONDS
        else:
            clock.is_off = difference - half > OFF_MILLISECONDS
        return PeerClockChanged(peer, reading, clock.is_off) if clock.is_off != was_off else None

    def disconnected(self, peer: str) -> None:
        """Forget what a peer's clock says, but not that it was off, so that this is told of once."""
        clock = self._clocks.get(peer)
        if clock is not None:
            clock.reading = None

    def forget(self, peer: str) -> None:
        """Drop all of a peer: it is none any more."""
        self._clocks.pop(peer, None)

    def reading_of(self, peer: str, now: float) -> ClockReading | None:
        """Return what is known of a peer's clock; None if nothing, or nothing fresh."""
        clock = self._clocks.get(peer)
        if clock is None or clock.reading is None or now - clock.reading.at > FRESH_SECONDS:
            return None
        return clock.reading

    def is_off(self, peer: str) -> bool:
        """Tell whether a peer's clock was found to be off."""
        clock = self._clocks.get(peer)
        return clock is not None and clock.is_off

    def confirm_mine(self, now: float) -> bool:
        """Tell whether most of the peers whose clocks are known agree with this node's, to a minute."""
        readings = [reading for peer in self._clocks if (reading := self.reading_of(peer, now)) is not None]
        agreeing = sum(abs(reading.ahead) + reading.uncertainty <= FURTHEST_AHEAD_MILLISECONDS for reading in readings)
        return agreeing * 2 > len(readings)


@define(eq=False, repr=False)
class ClockWatch:
    """Compares wall clocks.

    Attributes:
        node: this one.
        peers: what is known of the others' clocks.
    """

    node: LocalNode
    peers: PeerClocks = Factory(PeerClocks)
    _returned_at: float = float("-inf")

    def answered(self, name: str, theirs: int, took: float) -> None:
        """Compare what a source's wall clock says with this node's.

        When most peers agree with this node's wall clock and log time is far ahead of it, this node's clock was wrong
        and is right now: log time returns to it, or every cause of this node would be too far ahead for the others.

        Args:
            name: the peer's.
            theirs: milliseconds since the Unix epoch.
            took: seconds between question and answer.
        """
        log, now = self.node.log, self.node.clock()
        change = self.peers.answered(name, theirs, log.wall_clock(), took, now)
        if change is not None:
            self.node.emit(change)
        ahead = log.log_time_ahead
        if (
            ahead > FURTHEST_AHEAD_MILLISECONDS
            and now >= self._returned_at + RETURN_SECONDS
            and self.peers.confirm_mine(now)
            and log.return_to_wall_clock()
        ):
            self._returned_at = now
            self.node.emit(LogTimeReturned(ahead))

    def round_trip_to(self, name: str) -> float | None:
        """Return how long a peer's last answer took, in seconds, to 2 ms; None: that is not known."""
        reading = self.peers.reading_of(name, self.node.clock())
        return None if reading is None else (reading.uncertainty - 1) / 500

    def ahead(self, names: Iterable[str]) -> dict[str, float]:
        """Return by how many seconds these peers' wall clocks are ahead of this node's, where that is known."""
        now = self.node.clock()
        readings = {name: self.peers.reading_of(name, now) for name in names}
        return {name: reading.ahead / 1000 for name, reading in readings.items() if reading is not None}
