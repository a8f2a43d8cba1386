"""The replicator: a membership handler with one nursery and one cancel scope for each peer.

```
Replicator.run
├── timekeeper   makes the replica's decisions when their time has come
├── lag watch    says when a peer falls behind or catches up
├── retirer      keeps where old origins ended, and forgets them
├── repairer     gets frames that are damaged here from peers
├── directories  keeps on disk which directories there are
├── opening      raises this directory's opening where a later one is known
└── peer "b"     see peer_task.py; cancelled when b leaves or fails
```
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
import trio
from attrs import Factory, define, field, frozen

from proglog_trio.deadline_timer import DeadlineTimer
from proglog_trio.internal_errors import Where
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.replication.distance import distance_class
from proglog_trio.replication.events import (
    Diverged,
    GapMarked,
    LogTimeReturned,
    MissingFilled,
    MissingMarked,
    PeerClockChanged,
    ReplicationEvent,
    SourceEnded,
)
from proglog_trio.replication.messages import MAX_ORIGINS
from proglog_trio.replication.peer_task import NewStream, PeerTask
from proglog_trio.replication.peers.directories_file import keep_directories
from proglog_trio.replication.peers.lag import LagWatch
from proglog_trio.replication.repairer import FetchFrames, Repairer
from proglog_trio.replication.replica import Replica, ReplicaHost

LAG_WATCH_SECONDS = 1.0
ACCEPT_SECONDS = 5.0
"""How long an operator who gives up what is missing is kept waiting until that is on disk."""
MAX_COPIES = 64
LOOK_AT_COPY_SECONDS = 1.0
RAISE_SECONDS = 10.0
REWRITE_SECONDS = 60.0
"""After so long what could not be written is tried again."""
REVIEW_LOOKS = 60
"""Once in so many looks everything that is missing is looked at again."""
FORGET_LOOKS = 60
"""Once in so many looks old origins are forgotten."""

_logger = structlog.get_logger(__name__)


class Members(Protocol):
    """What the replicator asks of the membership, whose handler it is."""

    def directory_of(self, name: str) -> bytes | None:
        """Return the id of the data directory that a member says it has; None: it says nothing, or is none."""

    def opening_of(self, name: str) -> int | None:
        """Return which opening of its directory a member was started with, as it says."""

    def statuses(self) -> Mapping[str, str]:
        """Return how every member is that is known, in Serf's words: "alive", "leaving", "left" or "failed"."""

    async def answers(self, name: str) -> bool:
        """Ask whether a member is there; one that crashed may count as alive for a while."""


@frozen
class GivenUp:
    """What an operator gave up.

    Attributes:
        records: how many records.
        unwritten: how many of them are not written down yet.
    """

    records: int
    unwritten: int


@define(eq=False, repr=False)
class Replicator:
    """Pulls from every peer; see `membership.PeerHandler`.

    Attributes:
        members: knows the members; asked while it runs only.
        on_copied: called with the member that uses a copy of this node's directory, if it was started before.
        replica: decides which peer is pulled for what.
        opened: the opening of this node's directory with which it was started.
        repairer: looks after what is damaged in this node's log.
        peers: those that are there.
        copies: the members that use or used a copy of this node's directory, and whether they are alive.
    """

    _new_replica: Callable[[ReplicaHost], Replica]
    _new_stream: NewStream
    _fetch_frames: FetchFrames
    _rng: random.Random
    members: Members
    on_copied: Callable[[str], None]
    replica: Replica = field(init=False)
    opened: int = field(init=False)
    repairer: Repairer = field(init=False)
    peers: dict[str, PeerTask] = field(factory=dict)
    copies: dict[str, bool] = field(factory=dict)
    _beginning: trio.Lock = field(factory=trio.Lock)
    # While it runs.
    _nursery: trio.Nursery | None = None
    _timer: DeadlineTimer = Factory(
        lambda self: DeadlineTimer(lambda: self.replica.scheduler.next_deadline), takes_self=True
    )
    # As of the last look.
    _statuses_seen: Mapping[str, str] = field(factory=dict)
    # Each of these is set when there is something to write, and another one afterwards.
    _directories_changed: trio.Event = field(factory=trio.Event)
    _superseded: trio.Event = field(factory=trio.Event)
    _superseded_by: int = 0

    def __attrs_post_init__(self) -> None:
        self.replica = replica = self._new_replica(self)
        self.opened = replica.node.hello.opened
        self.repairer = Repairer(replica.node.log, replica.review, self._peers_with, self._fetch_frames, self._rng)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replicate until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._watch_lag)
                nursery.start_soon(self.repairer.run)
                nursery.start_soon(self._keep_directories)
                nursery.start_soon(self._keep_opening)
                nursery.start_soon(self._retire_origins)
                task_status.started()
        finally:
            self._nursery = None
            self.replica.close()

    async def accept_gaps(self, origin: Origin | None) -> GivenUp:
        """Give up what is missing at present of an origin, or of all; return once that is on disk, or could not be."""
        review = self.replica.review
        ranges = review.give_up(origin)
        records = review.records_missing(ranges)
        if not records:
            return GivenUp(0, 0)
        _logger.warning("an operator gave up what is missing", records=records)
        with trio.move_on_after(ACCEPT_SECONDS):
            # A node that is killed before that forgets that it was given up: the operator waits, and is told.
            await self.repairer.repair_now()
        return GivenUp(records, review.records_missing(ranges))

    async def join(self, name: str, addr: str) -> None:
        """Begin to pull from a peer."""
        if self._nursery is None or name in self.peers:
            raise RuntimeError(f"the peer {name} cannot join: it is there already, or nothing runs")
        directory_id = self.members.directory_of(name)
        if directory_id == self.replica.node.hello.directory_id:
            self._found_copy(name)
            return
        peer = PeerTask(
            name, addr, self.replica, self._new_stream, self._rng, self.repairer.look_again, beginning=self._beginning
        )
        self.replica.joined(name)
        if directory_id is not None:
            self.replica.holdings.alive(name, directory_id)
        self.peers[name] = peer
        self._nursery.start_soon(self._run_peer, peer)

    async def leave(self, name: str) -> None:
        """Stop pulling from a peer; returns when nothing of that is left."""
        if name in self.copies:
            self.copies[name] = False
        peer = self.peers.get(name)
        if peer is None:
            return  # it has ended with the replicator, which stops together with the membership
        peer.scope.cancel()
        with trio.CancelScope(shield=True):
            # Cancelled just now: it ends by itself, and what waits for it here must not be told before.
            await peer.ended.wait()

    def _found_copy(self, name: str) -> None:
        """A member uses a copy of this node's directory: each would count for the other, so one of them ends."""
        self.copies.pop(name, None)
        if len(self.copies) >= MAX_COPIES:
            del self.copies[next(iter(self.copies))]
        self.copies[name] = True
        opened = self.members.opening_of(name)
        if opened is None or self.opened > opened:
            if self._nursery is not None:
                self._nursery.start_soon(self._end_if_there, name)
        else:
            _logger.error("another node uses a copy of this node's data directory", member=name)

    async def _end_if_there(self, name: str) -> None:
        """Say that this node is the later of two copies, once the other answers: it may be an earlier life of it."""
        turns = self.replica.node.errors.turns(Where.PEER, peer=name)
        while self.copies.get(name):
            async with turns:
                # It may have left while it was asked.
                if await self.members.answers(name) and self.copies.get(name):
                    self.on_copied(name)
                    return
                await trio.sleep(LOOK_AT_COPY_SECONDS)

    async def _run_peer(self, peer: PeerTask) -> None:
        errors = self.replica.node.errors
        try:
            with errors.boundary(Where.PEER, peer=peer.name):
                await peer.run()
        finally:
            self.peers.pop(peer.name, None)
            with errors.boundary(Where.PEER, peer=peer.name):
                self.replica.left(peer.name)

    def _peers_with(self, missing: Missing) -> list[str]:
        """Return the addresses of peers, those first that say that they have what is missing, and the nearest of them.

        Among those that are equally near the order is random.
        """
        views, round_trip_to = self.replica.peers.views, self.replica.round_trip_to
        peers = list(self.peers.values())
        self._rng.shuffle(peers)
        wanted = missing.origin, missing.from_sequence, missing.to_sequence
        peers.sort(key=lambda peer: (not views[peer.name].offers(*wanted), distance_class(round_trip_to(peer.name))))
        return [peer.address for peer in peers]

    # -- time ----------------------------------------------------------------------------------------------------------

    def deadline_changed(self) -> None:
        """See ReplicaHost."""
        self._timer.rearm()

    async def _keep_time(self) -> None:
        scheduler = self.replica.scheduler
        turns = self.replica.node.errors.turns(Where.REPLICATION)
        while True:
            async with turns:
                await self._timer.wait()
                scheduler.advance()

    async def _watch_lag(self) -> None:
        replica = self.replica
        watch = LagWatch(replica.node, replica.peers)
        boundary = replica.node.errors.boundary(Where.LAG_WATCH)
        for number in itertools.count(1):
            await trio.sleep(LAG_WATCH_SECONDS)
            with boundary:
                self._look_for_ended()
                if number % REVIEW_LOOKS == 0:
                    replica.review.touch_all()
                if replica.review.review():
                    self.repairer.look_again()
            with boundary:
                for change in watch.look():
                    if change.is_behind:
                        _logger.warning("a peer is behind", peer=change.peer, records=change.records)
                    else:
                        _logger.info("a peer has caught up", peer=change.peer)

    # -- what is kept on disk ------------------------------------------------------------------------------------------

    def _look_for_ended(self) -> None:
        """Wait no more for members that the membership has forgotten, or that were told to leave when they had failed.

        One that leaves by itself is waited for: every restart does that.
        """
        now = self.members.statuses()
        for name, before in self._statuses_seen.items():
            if now.get(name) is None or (before == "failed" and now[name] == "left"):
                self.replica.peers.directories.gone(name)
        self._statuses_seen = now

    def directories_changed(self) -> None:
        """See ReplicaHost."""
        self._directories_changed.set()

    async def _keep_directories(self) -> None:
        """Write down which directories there are whenever that changes."""
        node, directories = self.replica.node, self.replica.peers.directories
        turns = node.errors.turns(Where.REPLICATION)
        while True:
            async with turns:
                await self._directories_changed.wait()
                self._directories_changed = trio.Event()
                if not await _written("which nodes there are", keep_directories, node.log, directories.encode()):
                    self._directories_changed.set()

    async def _retire_origins(self) -> None:
        """Keep where origins ended of which nothing is left, as they turn up, and forget old ones after that."""
        node, retirement = self.replica.node, self.replica.retirement
        turns = node.errors.turns(Where.REPLICATION)
        unwritten: dict[Origin, int] = {}
        for number in itertools.count(1):
            async with turns:
                await trio.sleep(LAG_WATCH_SECONDS)
                old = retirement.old_origins() if number % FORGET_LOOKS == 0 else {}
                unwritten |= old
                if len(unwritten) < MAX_ORIGINS:
                    unwritten |= retirement.pop_ends()
                keep = node.log.durable.retired_origins.add
                if unwritten and await _written("where old origins ended", keep, unwritten):
                    unwritten = {}
                    if old and (forgotten := self.replica.forget_origins(old)):
                        _logger.info("origins of which no log has anything left are forgotten", origins=forgotten)

    def superseded(self, opened: int) -> None:
        """See ReplicaHost."""
        self._superseded_by = max(self._superseded_by, opened)
        self._superseded.set()

    async def _keep_opening(self) -> None:
        """Set this directory's opening above any that is heard of: it was restored, or its counter was."""
        node = self.replica.node
        turns = node.errors.turns(Where.REPLICATION)
        while True:
            async with turns:
                await self._superseded.wait()
                self._superseded = trio.Event()
                if self._superseded_by <= node.hello.opened:
                    continue
                _logger.warning("a later opening of this data directory is known: it was restored, or is a copy")
                if not await _written("the number of its opening", node.log.raise_opening, self._superseded_by):
                    self._superseded.set()
                    continue
                self.replica.reopened(node.log.opening)
                # Two copies that run at once would raise it in turn for ever.
                await trio.sleep(RAISE_SECONDS)


async def _written(what: str, write: Callable[..., object], *arguments: object) -> bool:
    """Write something in a thread; False: the disk does not take it now, and it is time to try again."""
    try:
        await trio.to_thread.run_sync(write, *arguments)
    except OSError as error:
        _logger.warning("what is kept beside the log cannot be written", what=what, error=str(error))
        await trio.sleep(REWRITE_SECONDS)
        return False
    return True


def log_event(event: ReplicationEvent) -> None:
    """Log what replication tells of itself."""
    match event:
        case Diverged(peer, origin, here, there):
            _logger.error("logs have diverged", peer=peer, origin=str(origin), here=here, there=there)
        case GapMarked(origin, reason=why):
            _logger.error("records are missing for ever", origin=str(origin), sequences=event.sequences, reason=why)
        case MissingMarked(origin):
            _logger.warning("records are missing at present", origin=str(origin), sequences=event.sequences)
        case MissingFilled(records):
            _logger.info("records that were missing have turned up", records=records)
        case SourceEnded(peer, origin, sequence):
            _logger.warning("a peer cannot read what it had", peer=peer, origin=str(origin), from_sequence=sequence)
        case PeerClockChanged(peer, reading, is_off):
            tell = _logger.warning if is_off else _logger.info
            tell(
                "a peer's wall clock and this node's differ" if is_off else "a peer's wall clock agrees again",
                peer=peer,
                ahead_seconds=reading.ahead / 1000,
                uncertainty_seconds=reading.uncertainty / 1000,
            )
        case LogTimeReturned(ahead):
            _logger.warning(
                "log time was ahead of the wall clock, which most peers confirm, and follows it again",
                ahead_seconds=ahead / 1000,
            )
