"""The peers and what they say that they have: who has some sequences, who may have them, and when no log will.

That a peer does *not* have something is known for a range, and as of the moment when it last said what it has. So all
that is remembered of it is which directories were asked for that range, and a peer that says otherwise is believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from attrs import Factory, define

from proglog_trio.log.format.gap_marker import MAX_MISSING
from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.messages import KnownDirectory
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.peer_view import PeerView


@define(repr=False)
class PeerTable:
    """All peers.

    Attributes:
        directories: all that may hold what is missing, those that are away among them.
        views: the members that are peers, connected or not, by their names. A peer is here from joined to left,
            whatever becomes of its streams meanwhile.
    """

    directories: Directories
    views: dict[str, PeerView] = Factory(dict)

    def writer_of(self, origin: Origin) -> PeerView | None:
        """Return the peer that writes an origin, as far as it has said so."""
        return next((peer for peer in self.views.values() if peer.writing == origin), None)

    def written(self, own: Origin | None) -> set[Origin]:
        """Return the origins that are being written, as far as this node knows: what peers say, and its own."""
        written = {peer.writing for peer in self.views.values()} | {own}
        return {origin for origin in written if origin is not None}

    def showing_more(self, origin: Origin, than: int) -> Iterator[PeerView]:
        """Yield the connected peers that have more of an origin than up to a sequence."""
        for peer in self.views.values():
            held = peer.ranges.get(origin)
            if peer.connected and held is not None and held.next > than and origin not in peer.diverged_origins:
                yield peer

    def offered(self, origin: Origin, first: int, following: int) -> list[PeerView]:
        """Return the connected peers that say that they have some of the sequences [first, following)."""
        return [peer for peer in self.views.values() if peer.offers(origin, first, following)]

    def is_left_of(self, origin: Origin) -> bool:
        """Tell whether a peer has, or had when it was last heard, anything of an origin that is not retired."""
        ranges = (peer.ranges.get(origin) for peer in self.views.values())
        return any(held is not None and held.low < held.next for held in ranges)

    # -- what is missing -----------------------------------------------------------------------------------------------

    def ask(self, origin: Origin, first: int, following: int, asked: set[bytes]) -> None:
        """Bring up to date which directories have none of the sequences [first, following), by what peers say now.

        Those of peers that are not connected stay as they were: a peer says what it has, and what it had before is no
        evidence once it has said otherwise.
        """
        for peer in self.views.values():
            if not peer.connected or not peer.has_told or peer.directory_id is None:
                continue
            if peer.offers(origin, first, following):
                asked.discard(peer.directory_id)
            else:
                asked.add(peer.directory_id)

    def may_have(
        self, origin: Origin, first: int, following: int, asked: Collection[bytes] = ()
    ) -> list[KnownDirectory]:
        """Return the directories that may have some of the sequences [first, following): away, or damaged there.

        Args:
            origin: whose sequences.
            first: the first of them.
            following: the one after the last.
            asked: directories that were asked for them before, and did not have them.
        """
        without = set(asked)
        self.ask(origin, first, following, without)
        return [each for each in self.directories.awaited() if each.directory_id not in without]

    def is_gap(self, origin: Origin, first: int, following: int, asked: Collection[bytes] = ()) -> bool:
        """Tell whether no log will ever have the sequences [first, following); arguments as of may_have."""
        # More than a marker can keep offsets for cannot be filled in, wherever it is.
        if following - first > MAX_MISSING or not self.may_have(origin, first, following, asked):
            return True
        # One that has given them up, or has retired them, has looked further than this node can.
        return any(
            peer.connected and (held := peer.ranges.get(origin)) is not None and held.is_gap(first, following)
            for peer in self.views.values()
        )
