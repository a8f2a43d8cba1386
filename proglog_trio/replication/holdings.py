"""Who has what on disk: learned from every stream, passed on to every other, counted for acknowledgements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from attrs import Factory, define, field

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello, HolderNews, Positions, Told
from proglog_trio.replication.peers.acknowledgements import Acknowledgements
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.peers.progress import ProgressTracker
from proglog_trio.replication.streams import OpenStreams, StreamEnd


@define(eq=False, repr=False)
class Holdings:
    """What nodes hold, as this one knows it.

    Attributes:
        node: this one.
        peers: say who writes what; of origins that are written it is told on who has them.
        streams: where that is told.
        on_superseded: called with the number when a later opening of this node's own directory is known than this one.
        progress: what is known of each disk.
        acknowledgements: end as soon as enough disks have their records.
        living: the directory ids of members that are alive, by their names: what a dead disk held counts for nothing.
    """

    node: LocalNode
    peers: PeerTable
    streams: OpenStreams
    on_superseded: Callable[[int], None]
    progress: ProgressTracker = field(init=False)
    acknowledgements: Acknowledgements = field(init=False)
    living: dict[str, bytes] = Factory(dict)
    # While a message is read, what has grown by it: there are two streams to each node, which are told once.
    _grown_meanwhile: dict[bytes, Collection[Origin]] | None = None

    def __attrs_post_init__(self) -> None:
        self.progress = ProgressTracker(self.node.hello.directory_id, self._grown, self.living.values)
        self.acknowledgements = Acknowledgements(self._count)

    def alive(self, name: str, directory_id: bytes) -> None:
        """Count a member's disk for acknowledgements, while the member is alive."""
        self.living[name] = directory_id
        self.peers.directories.met(directory_id, name)

    def left(self, name: str) -> None:
        """Count a member's disk no more."""
        self.living.pop(name, None)

    def learn(self, hello: Hello, positions: Positions) -> None:
        """Keep what a node says of its own disk."""
        nexts = {origin: held.next for origin, held in positions.ranges.items()}
        not_held = {origin: ranges for origin, held in positions.ranges.items() if (ranges := held.not_held)}
        # First: what is forgotten makes room for what is new.
        self.progress.forget_origins(positions.forgotten, hello.directory_id)
        self.progress.learn(hello.directory_id, hello.opened, nexts, not_held)

    def learn_of_others(self, others: Iterable[HolderNews]) -> None:
        """Keep what a node says about third ones, unless it is about this one: that it was opened again."""
        grown: dict[bytes, Collection[Origin]] = {}
        self._grown_meanwhile = grown
        try:
            for news in others:
                if news.directory_id != self.node.hello.directory_id:
                    self.progress.learn(news.directory_id, news.opened, news.nexts, news.not_held, from_itself=False)
                elif news.opened > self.node.hello.opened:
                    self.on_superseded(news.opened)
        finally:
            self._grown_meanwhile = None
            self._tell_of(grown)

    def met(self, advertiser: Advertiser, hello: Hello) -> None:
        """Tell a node that has just said who it is what is known of others, and of its own directory."""
        self.peers.directories.met(hello.directory_id, hello.node_name)
        known = self.progress.opening_of(hello.directory_id)
        if known > hello.opened:
            advertiser.note_superseded(known)
        written = self.peers.written(self.node.writing)
        for directory_id in self.progress.known():
            advertiser.note_other(directory_id, written)

    def tell(self, advertiser: Advertiser) -> Told:
        """Return what the other end of a stream is to be told now."""
        node = self.node
        return advertiser.collect(node.clock(), node.log.origins, node.writing, self.progress, self.peers.directories)

    def _grown(self, directory_id: bytes, origins: Collection[Origin]) -> None:
        if self._grown_meanwhile is None:
            self._tell_of({directory_id: origins})
        else:
            self._grown_meanwhile[directory_id] = {*self._grown_meanwhile.get(directory_id, ()), *origins}

    def _tell_of(self, grown: Mapping[bytes, Collection[Origin]]) -> None:
        """Tell the others, and those who wait, that these disks have more of these origins."""
        # Only a writer waits for how far others are, so of what is written no more all that is told is told directly.
        written = self.peers.written(self.node.writing)
        news = {
            directory_id: found for directory_id, origins in grown.items() if (found := written.intersection(origins))
        }

        def note(end: StreamEnd) -> None:
            for directory_id, origins in news.items():
                end.advertiser.note_other(directory_id, origins)

        if news:
            self.streams.advertise(note)
        self.acknowledgements.held_more({origin: None for origins in grown.values() for origin in origins})

    def _count(self, origin: Origin, first: int, following: int) -> int:
        return self.progress.count(origin, first, following, set(self.living.values()))
