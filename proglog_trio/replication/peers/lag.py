"""How far peers are behind this node, and this node behind them, in records."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from proglog_trio.internal_errors import Where
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import OriginRange
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.peers.peer_view import PeerView

BEHIND_LOOKS = 5


@frozen
class Lag:
    """Records that one has and the other does not.

    Attributes:
        peer_behind: this node has them, the peer does not.
        node_behind: the other way round.
    """

    peer_behind: int
    node_behind: int


def lag_of(mine: Mapping[Origin, OriginState], peer: PeerView) -> Lag:
    """Return how far a peer and this node are apart, as far as the peer has said.

    What a peer writes it has before any other node, whether it has said so yet or not.

    Args:
        mine: what this node's log has.
        peer: the peer.
    """
    peer_behind = sum(
        _beyond(OriginRange.of_state(state), following)
        for origin, state in mine.items()
        # Of thousands of origins a peer lacks something of a few, and no more need be looked at.
        if state.next > (following := held.next if (held := peer.ranges.get(origin)) else 0) and origin != peer.writing
    )
    node_behind = sum(
        _beyond(held, state.next if (state := mine.get(origin)) else 0) for origin, held in peer.ranges.items()
    )
    return Lag(peer_behind, node_behind)


def _beyond(held: OriginRange, following: int) -> int:
    """Return how many sequences at or after one a log has; what retention dropped cannot be had from there."""
    not_held = sum(max(min(end, held.next) - max(begin, following), 0) for begin, end in held.not_held)
    return max(held.next - following - not_held, 0)


@frozen
class LagChange:
    """A peer has fallen behind, or has caught up."""

    peer: str
    is_behind: bool
    records: int


@define(repr=False)
class LagWatch:
    """Notices when a peer falls behind and when it catches up.

    A peer is behind while it lacks what this node had `BEHIND_LOOKS` looks ago: under load every peer lacks the newest.
    """

    node: LocalNode
    peers: PeerTable
    # Up to where this node had each origin at the last looks, the oldest first.
    _history: deque[dict[Origin, int]] = field(factory=lambda: deque(maxlen=BEHIND_LOOKS))
    # The peers of which was told that they are behind, and not yet that they have caught up.
    _behind: set[str] = field(factory=set)

    def look(self) -> Iterator[LagChange]:
        """Yield what has changed since the last look."""
        origins = self.node.log.origins
        due = self._history[0] if len(self._history) == BEHIND_LOOKS else {}
        self._history.append({origin: state.next for origin, state in origins.items()})
        peers = self.peers.views
        self._behind.intersection_update(peers)
        boundary = self.node.errors.boundary(Where.LAG_WATCH)
        for name, peer in peers.items():
            change: LagChange | None = None
            with boundary:
                change = self._change(name, peer, due)
            if change is not None:
                yield change

    def _change(self, name: str, peer: PeerView, due: Mapping[Origin, int]) -> LagChange | None:
        if not peer.connected or not peer.has_told:
            return None
        origins = self.node.log.origins
        lacks = any(
            (held.next if (held := peer.ranges.get(origin)) else 0) < following
            for origin, following in due.items()
            if origin in origins and origin != peer.writing
        )
        if lacks and name not in self._behind:
            records = lag_of(origins, peer).peer_behind
            self._behind.add(name)
            return LagChange(name, is_behind=True, records=records)
        if not lacks and name in self._behind:
            self._behind.discard(name)
            return LagChange(name, is_behind=False, records=0)
        return None
