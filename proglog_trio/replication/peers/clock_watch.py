"""The peers' wall clocks beside this node's: what is told of them, and what follows when this node's was wrong."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, define

from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS
from proglog_trio.replication.events import LogTimeReturned
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.peers.peer_clocks import PeerClocks

RETURN_SECONDS = 3600.0
"""Log time returns to the wall clock at most so often: each time costs an origin, and a clock may jump for ever."""


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

    def ahead(self, names: Iterable[str]) -> dict[str, float]:
        """Return by how many seconds these peers' wall clocks are ahead of this node's, where that is known."""
        now = self.node.clock()
        readings = {name: self.peers.reading_of(name, now) for name in names}
        return {name: reading.ahead / 1000 for name, reading in readings.items() if reading is not None}
