"""Origins of which no log has anything left: where they ended is kept, and the rest of them forgotten in time."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import MAX_ORIGINS, OriginRange
from proglog_trio.replication.peers.peer_table import PeerTable


@define(eq=False, repr=False)
class OriginRetirement:
    """Finds such origins. Their ends are written and they are forgotten elsewhere, in this order; see Replicator.

    Attributes:
        node: this one.
        peers: may have something left of an origin.
        retention_seconds: an origin is old when nodes have run on this directory for so long since retention left
            nothing of it here.
    """

    node: LocalNode
    peers: PeerTable
    retention_seconds: float
    # Where origins ended of which peers have nothing left, and this log never had anything. MAX_ORIGINS at most.
    _ends: dict[Origin, int] = Factory(dict)

    def heard(self, ranges: Mapping[Origin, OriginRange]) -> None:
        """Keep where origins ended of which a peer says that it has nothing left."""
        for origin, held in ranges.items():
            is_retired = held.low == held.next and origin not in self.node.log.origins
            if is_retired and held.next > self._ends.get(origin, 0) and len(self._ends) < MAX_ORIGINS:
                self._ends[origin] = held.next

    def pop_ends(self) -> dict[Origin, int]:
        """Return where origins ended that only peers remember, once: they are to be kept among the retired origins.

        Not before every peer has said what it has: what one has nothing left of another may have.
        """
        if not all(peer.has_told for peer in self.peers.views.values()):
            return {}
        waiting = {origin: end for origin, end in self._ends.items() if origin not in self.node.log.origins}
        self._ends = {origin: end for origin, end in waiting.items() if self.peers.is_left_of(origin)}
        return {origin: end for origin, end in waiting.items() if origin not in self._ends}

    def old_origins(self) -> dict[Origin, int]:
        """Return where origins ended that no node writes and of which no log that is known has anything left."""
        oldest = self.node.log.running_time.milliseconds() - self.retention_seconds * 1000
        written = self.peers.written(self.node.writing)
        return {
            origin: state.next
            for origin, state in self.node.log.origins.items()
            if state.low == state.next
            and state.emptied is not None
            and state.emptied <= oldest
            and origin not in written
            and not self.peers.is_left_of(origin)
        }
