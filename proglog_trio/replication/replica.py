"""A node's part in replication: its parts, wired together, and what concerns several of them.

It knows frames, positions and times, and nothing of connections: sessions are opened and closed by what runs the
streams, and hand over messages. The same code runs under gRPC and in simulated clusters. The parts and what they may
do are in this folder's __init__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from attrs import Factory, define, field, frozen, validators

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.applier import Applier
from proglog_trio.replication.decisions import PlanConfig
from proglog_trio.replication.distance import RoundTripTo, unknown_round_trip
from proglog_trio.replication.events import Diverged
from proglog_trio.replication.holdings import Holdings
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import KnownDirectory, OriginRange, Positions
from proglog_trio.replication.missing_review import MissingReview
from proglog_trio.replication.origin_retirement import OriginRetirement
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.peer_clocks import ClockWatch
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.pull_plan import PullPlan
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.scheduler import Scheduler
from proglog_trio.replication.source_session import SourceSession
from proglog_trio.replication.streams import OpenStreams


@frozen(kw_only=True)
class ReplicationConfig:
    """How a node replicates. Times are in seconds.

    Attributes:
        plan: see PlanConfig.
        acknowledgement_seconds: how often a puller tells a source that its records have arrived, at most.
        position_seconds: how often everything else about positions is told, at most; with many peers, more rarely.
        position_seconds_per_peer: by so much for each peer.
        origin_retention_seconds: an origin that no node writes and of which no log has anything left is forgotten when
            nodes have run on this directory for so long since retention left nothing of it here.
    """

    plan: PlanConfig = Factory(PlanConfig)
    acknowledgement_seconds: float = field(default=0.005, validator=validators.ge(0))
    position_seconds: float = field(default=0.1, validator=validators.ge(0))
    position_seconds_per_peer: float = field(default=0.02, validator=validators.ge(0))
    origin_retention_seconds: float = field(default=30 * 86_400.0, validator=validators.ge(0))


class ReplicaHost(Protocol):
    """What runs a replica: does for it what takes time, or a disk. It is not called while the replica is made."""

    def deadline_changed(self) -> None:
        """Call Scheduler.advance at its next_deadline, which may be another than before."""

    def directories_changed(self) -> None:
        """Keep on disk which directories there are."""

    def superseded(self, opened: int) -> None:
        """Raise this directory's opening above one that is known, on disk, and then call Replica.reopened."""


@define(eq=False, repr=False)
class Replica:
    """A node's part in replication.

    Attributes:
        node: this one.
        config: see ReplicationConfig.
        host: runs it.
        kept: which directories were known when this one was last used.
        gossiped_round_trip: how far away peers are, as the membership knows it.
        peers: which there are and what they say.
        streams: those that are open.
        holdings: which nodes have what on disk.
        scheduler: makes what is due, with the plan of what is pulled.
        review: looks at what is missing.
        retirement: finds origins of which nothing is left.
        clocks: compares wall clocks.
    """

    node: LocalNode
    config: ReplicationConfig
    host: ReplicaHost
    kept: Iterable[KnownDirectory] = ()
    gossiped_round_trip: RoundTripTo = unknown_round_trip
    peers: PeerTable = field(init=False)
    streams: OpenStreams = field(init=False)
    holdings: Holdings = field(init=False)
    scheduler: Scheduler = field(init=False)
    review: MissingReview = field(init=False)
    retirement: OriginRetirement = field(init=False)
    clocks: ClockWatch = field(init=False)
    # The states that were told of. A log replaces the state of an origin when something of it has changed.
    _seen: dict[Origin, OriginState] = field(init=False)
    _forget_watch: Callable[[], None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        node, log = self.node, self.node.log
        own_id = node.hello.directory_id
        self.peers = PeerTable(
            Directories(own_id, self._directories_changed, {each.directory_id: each for each in self.kept})
        )
        self.streams = OpenStreams(node)
        self.holdings = Holdings(node, self.peers, self.streams, self.host.superseded)
        # A log may be opened on a disk without room.
        is_full = log.read_only_reason is not None
        plan = PullPlan(
            node.hello.node_name,
            log.planned_origins.get,
            self.peers,
            self.config.plan,
            node.boundary,
            is_full,
            round_trip_to=self.round_trip_to,
        )
        self.scheduler = Scheduler(node, plan, self.holdings.acknowledgements, self.streams, self.host.deadline_changed)
        self.review = MissingReview(node, self.peers)
        self.retirement = OriginRetirement(node, self.peers, self.config.origin_retention_seconds)
        self.clocks = ClockWatch(node)
        self._seen = dict(log.origins)
        self._forget_watch = log.notify_durable(self._log_changed)

    def close(self) -> None:
        """End all waits; no session is open any more."""
        self._forget_watch()
        self.holdings.acknowledgements.end_all()

    def wait_acknowledged(
        self,
        origin: Origin,
        first: int,
        following: int,
        wanted: int,
        timeout: float,
        done: Callable[[AcknowledgementResult], None],
    ) -> None:
        """Call done once so many nodes, this one included, have the sequences [first, following), or time is up.

        Args:
            origin: whose sequences.
            first: the first of them.
            following: the one after the last.
            wanted: how many nodes.
            timeout: in seconds.
            done: is told how many have them then. It may be called before this returns.
        """
        counters = self.node.counters

        def settle(result: AcknowledgementResult) -> None:
            if result.reached:
                counters.acknowledgements_reached += 1
            else:
                counters.acknowledgements_missed += 1
            with self.node.boundary():
                done(result)

        deadline = self.scheduler.now() + timeout
        self.holdings.acknowledgements.wait(origin, first, following, wanted, deadline, settle)
        self.scheduler.reschedule()

    # -- what changes here ---------------------------------------------------------------------------------------------

    def _log_changed(self) -> None:
        """Tell the others what is durable now."""
        log, plan = self.node.log, self.scheduler.plan
        plan.writes(self.node.writing)
        if (log.read_only_reason is not None) != plan.paused:
            plan.pause(not plan.paused)
            self.scheduler.decide()
        # One view of them: the log's own may change while others are told.
        origins = log.origins
        changed = [origin for origin, state in origins.items() if self._seen.get(origin) is not state]
        if changed:
            self._seen.update((origin, origins[origin]) for origin in changed)
            self.streams.advertise(lambda end: end.log_changed(changed))

    def _directories_changed(self, ids: list[bytes]) -> None:
        # Whether something is missing at present or for ever follows from which directories are waited for.
        self.scheduler.plan.touch_all()
        self.review.touch_all()
        self.streams.advertise(lambda end: end.advertiser.note_directories(ids))
        self.host.directories_changed()

    def forget_origins(self, origins: Iterable[Origin]) -> int:
        """Drop old origins, whose ends are kept among the log's retired origins by now; return how many those are."""
        forgotten = self.node.log.durable.forget_origins(origins)
        for origin in forgotten:
            self._seen.pop(origin, None)
        self.scheduler.plan.forget(forgotten)
        self.holdings.progress.forget_origins(forgotten)
        self.streams.advertise(lambda end: end.advertiser.note_forgotten(forgotten))
        return len(forgotten)

    def reopened(self, opened: int) -> None:
        """Say to every node that this directory counts as opened again, by this number, and what it holds."""
        self.node.reopened(opened)
        self.streams.advertise(lambda end: end.say_hello_again())

    # -- peers ---------------------------------------------------------------------------------------------------------

    def joined(self, name: str) -> None:
        """Begin to reckon with a peer; a stream to it may be opened."""
        self.scheduler.plan.joined(name, self.scheduler.now())
        self._peers_changed()

    def left(self, name: str) -> None:
        """Reckon with a peer no more: it is no member, and the stream to it is closed."""
        self.scheduler.plan.left(name)
        self.holdings.left(name)
        self.clocks.peers.forget(name)
        self._peers_changed()

    def _peers_changed(self) -> None:
        self.review.touch_all()
        self.scheduler.decide()

    def _positions_changed(self, name: str, positions: Positions) -> None:
        self.review.touch(positions.ranges)
        self.retirement.heard(positions.ranges)
        for origin in self.scheduler.plan.positions(name, positions):
            mine = OriginRange.of_state(self.node.log.planned_origins[origin])
            self.node.emit(Diverged(name, origin, _place_of(mine), _place_of(positions.ranges[origin])))

    def round_trip_to(self, name: str) -> float | None:
        """Return the round-trip time to a peer, in seconds, if it is known.

        Where the membership does not know it yet it is that of the peer's last answer on its stream.
        """
        known = self.gossiped_round_trip(name)
        return self.clocks.round_trip_to(name) if known is None else known

    def peer_clocks_ahead(self) -> Mapping[str, float]:
        """Return by how many seconds which peer's wall clock is ahead of this node's, where that is known."""
        return self.clocks.ahead(self.peers.views)

    # -- streams -------------------------------------------------------------------------------------------------------

    def _new_advertiser(self) -> Advertiser:
        return Advertiser(self.config.acknowledgement_seconds, self._slow_seconds)

    def _slow_seconds(self) -> float:
        return self.config.position_seconds + self.config.position_seconds_per_peer * len(self.peers.views)

    def open_pull(
        self, name: str, on_ready: Callable[[], None], on_room: Callable[[], None], on_greeted: Callable[[], None]
    ) -> PullSession:
        """Begin to pull from a peer that has joined, on a stream that is open or being opened; see PullSession."""
        session = self.streams.pulls[name] = PullSession(
            self.node,
            self.holdings,
            self._new_advertiser(),
            on_ready,
            name,
            self.scheduler,
            Applier(self.node, name),
            self.clocks,
            self._positions_changed,
            on_room,
            on_greeted,
        )
        return session

    def close_pull(self, session: PullSession) -> None:
        """Pull no more on a stream, which has ended."""
        session.close()
        # Another may have been opened to the peer meanwhile.
        if self.streams.pulls.get(session.peer) is session:
            del self.streams.pulls[session.peer]
            self.clocks.peers.disconnected(session.peer)
            self.scheduler.plan.disconnected(session.peer, self.scheduler.now())
            self.scheduler.decide()

    def open_source(self, on_ready: Callable[[], None]) -> SourceSession:
        """Begin to serve a puller; on_ready: see SourceSession."""
        session = SourceSession(self.node, self.holdings, self._new_advertiser(), on_ready, "the puller")
        self.streams.sources.add(session)
        return session

    def close_source(self, session: SourceSession) -> None:
        """Serve a puller no more, whose stream has ended."""
        self.streams.sources.discard(session)


def _place_of(held: OriginRange) -> str:
    return f"sequences {held.low} to {held.next - 1}, the last header's CRC {held.last_header_crc:#010x}"
