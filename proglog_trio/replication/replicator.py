"""The replicator: a membership handler with one nursery and one cancel scope for each peer.

```
Replicator.run
├── timekeeper   makes the replica's decisions when their time has come
├── lag watch    says when a peer falls behind or catches up
├── retirer      keeps where old origins ended, and forgets them
├── repairer     gets frames that are damaged here from peers
└── peer "b"     see peer.py; cancelled when b leaves or fails
```
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio
from attrs import define, field, frozen

from proglog_trio.internal_errors import Where
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.replication.directories_file import keep_directories
from proglog_trio.replication.events import (
    Diverged,
    GapMarked,
    LogTimeReturned,
    MissingFilled,
    MissingMarked,
    ReplicationEvent,
    SourceEnded,
)
from proglog_trio.replication.lag import LagWatch
from proglog_trio.replication.peer_clocks import PeerClockChanged
from proglog_trio.replication.peer_task import Peer, RunPull
from proglog_trio.replication.repairer import FetchFrames, Repairer
from proglog_trio.replication.replica import MAX_ORIGINS, Replica

LAG_WATCH_SECONDS = 1.0
ACCEPT_SECONDS = 5.0
"""How long somebody who gives up what is missing is kept waiting until that is on disk."""
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


@frozen
class GivenUp:
    """What somebody gave up.

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
        replica: decides what is pulled from whom.
        peers: those that are there.
        repairer: looks after what is damaged in this node's log.
        directory_of: tells which data directory a member says it has.
        opening_of: tells which opening of its directory a member was started with; opened is this node's own.
        on_copied: called with the member that uses a copy of this node's directory, if it was started before.
        is_there: tells whether a member answers; one that crashed may count as alive for a while.
        copies: the members that use or used a copy of this node's directory, and whether they are alive.
        statuses: tells of every member that is known whether it is alive, failed or has left.
    """

    replica: Replica
    _run_pull: RunPull
    _fetch_frames: FetchFrames
    _rng: random.Random
    directory_of: Callable[[str], bytes | None] = lambda _name: None
    opening_of: Callable[[str], int | None] = lambda _name: None
    opened: int = 0
    on_copied: Callable[[str], None] = lambda _name: None
    is_there: Callable[[str], Awaitable[bool]] = lambda _name: _always()
    copies: dict[str, bool] = field(factory=dict)
    statuses: Callable[[], Mapping[str, MemberStatus]] = dict
    peers: dict[str, Peer] = field(factory=dict)
    repairer: Repairer = field(init=False)
    _beginning: trio.Lock = field(factory=trio.Lock)
    _nursery: trio.Nursery | None = None
    _rescheduled: trio.Event = field(factory=trio.Event)
    _armed: float = math.inf
    _statuses_seen: Mapping[str, MemberStatus] = field(factory=dict)
    _directories_changed: trio.Event = field(factory=trio.Event)
    _superseded: trio.Event = field(factory=trio.Event)
    _superseded_by: int = 0

    def __attrs_post_init__(self) -> None:
        self.repairer = Repairer(self.replica.log, self.replica, self._peers_with, self._fetch_frames, self._rng)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replicate until cancelled."""
        replica = self.replica
        replica.on_decide = self._reschedule
        replica.on_superseded = self._note_superseded
        replica.on_directories = self._note_directories
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
        replica = self.replica
        ranges = replica.give_up_missing(origin)
        records = replica.records_missing(ranges)
        if not records:
            return GivenUp(0, 0)
        _logger.warning("somebody gave up what is missing", records=records)
        with trio.move_on_after(ACCEPT_SECONDS):
            # A node that is killed before that forgets that it was given up: whoever said so waits, and is told.
            await self.repairer.repair_now()
        return GivenUp(records, replica.records_missing(ranges))

    async def join(self, name: str, addr: str) -> None:
        """Begin to pull from a peer."""
        if self._nursery is None or name in self.peers:
            raise RuntimeError(f"the peer {name} cannot join: it is there already, or nothing runs")
        directory_id = self.directory_of(name)
        if directory_id == self.replica.hello.directory_id:
            self._found_copy(name)
            return
        peer = Peer(
            name, addr, self.replica, self._run_pull, self._rng, self.repairer.look_again, beginning=self._beginning
        )
        self.replica.joined(name)
        if directory_id is not None:
            self.replica.alive(name, directory_id)
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
        opened = self.opening_of(name)
        if opened is None or self.opened > opened:
            if self._nursery is not None:
                self._nursery.start_soon(self._end_if_there, name)
        else:
            _logger.error("another node uses a copy of this node's data directory", member=name)

    async def _end_if_there(self, name: str) -> None:
        """Say that this node is the later of two copies, once the other answers: it may be an earlier life of it."""
        turns = self.replica.errors.turns(Where.PEER, peer=name)
        while self.copies.get(name):
            async with turns:
                # It may have left while it was asked.
                if await self.is_there(name) and self.copies.get(name):
                    self.on_copied(name)
                    return
                await trio.sleep(LOOK_AT_COPY_SECONDS)

    async def _run_peer(self, peer: Peer) -> None:
        errors = self.replica.errors
        try:
            with errors.boundary(Where.PEER, peer=peer.name):
                await peer.run()
        finally:
            self.peers.pop(peer.name, None)
            with errors.boundary(Where.PEER, peer=peer.name):
                self.replica.left(peer.name)

    def _peers_with(self, missing: Missing) -> list[str]:
        """Return the addresses of peers, in random order, those first that say that they have what is missing."""
        views = self.replica.plan.peers
        peers = list(self.peers.values())
        self._rng.shuffle(peers)
        wanted = missing.origin, missing.from_sequence, missing.to_sequence
        peers.sort(key=lambda peer: not views[peer.name].offers(*wanted))
        return [peer.address for peer in peers]

    # -- time ----------------------------------------------------------------------------------------------------------

    def _reschedule(self) -> None:
        deadline = self.replica.next_deadline
        if deadline is not None and deadline < self._armed:
            self._rescheduled.set()

    async def _keep_time(self) -> None:
        turns = self.replica.errors.turns(Where.REPLICATION)
        while True:
            async with turns:
                deadline = self.replica.next_deadline
                self._armed = math.inf if deadline is None else deadline
                self._rescheduled = trio.Event()
                with trio.CancelScope(deadline=self._armed):
                    await self._rescheduled.wait()
                self.replica.advance()

    async def _watch_lag(self) -> None:
        watch = LagWatch(self.replica)
        boundary = self.replica.errors.boundary(Where.LAG_WATCH)
        for number in itertools.count(1):
            await trio.sleep(LAG_WATCH_SECONDS)
            with boundary:
                self._look_for_gone()
                if number % REVIEW_LOOKS == 0:
                    self.replica.review_all()
                if self.replica.review_missing():
                    self.repairer.look_again()
            with boundary:
                for change in watch.look():
                    if change.is_behind:
                        _logger.warning("a peer is behind", peer=change.peer, records=change.records)
                    else:
                        _logger.info("a peer has caught up", peer=change.peer)

    # -- what is kept on disk ------------------------------------------------------------------------------------------

    def _look_for_gone(self) -> None:
        """Notice whom nobody waits for any more: the membership has forgotten it, or it was told to leave."""
        now = self.statuses()
        for name, before in self._statuses_seen.items():
            if now.get(name) is None or (before is MemberStatus.FAILED and now[name] is MemberStatus.LEFT):
                self.replica.directories.gone(name)
        self._statuses_seen = now

    def _note_directories(self) -> None:
        self._directories_changed.set()

    async def _keep_directories(self) -> None:
        """Write down which directories there are whenever that changes."""
        log = self.replica.log
        turns = self.replica.errors.turns(Where.REPLICATION)
        while True:
            async with turns:
                await self._directories_changed.wait()
                self._directories_changed = trio.Event()
                data = self.replica.directories.encode()
                if not await _written("which nodes there are", keep_directories, log, data):
                    self._directories_changed.set()

    async def _retire_origins(self) -> None:
        """Keep where origins ended of which nothing is left, as they turn up, and forget old ones after that."""
        replica = self.replica
        turns = replica.errors.turns(Where.REPLICATION)
        unwritten: dict[Origin, int] = {}
        for number in itertools.count(1):
            async with turns:
                await trio.sleep(LAG_WATCH_SECONDS)
                old = replica.old_origins() if number % FORGET_LOOKS == 0 else {}
                unwritten |= old
                if len(unwritten) < MAX_ORIGINS:
                    unwritten |= replica.take_retired()
                if unwritten and await _written("where old origins ended", replica.log.retired_origins.add, unwritten):
                    unwritten = {}
                    if old and (forgotten := replica.forget_origins(old)):
                        _logger.info("origins of which no log has anything left are forgotten", origins=forgotten)

    def _note_superseded(self, opened: int) -> None:
        self._superseded_by = max(self._superseded_by, opened)
        self._superseded.set()

    async def _keep_opening(self) -> None:
        """Set this directory's opening above any that is heard of: it was restored, or its counter is lost."""
        replica = self.replica
        turns = replica.errors.turns(Where.REPLICATION)
        while True:
            async with turns:
                await self._superseded.wait()
                self._superseded = trio.Event()
                if self._superseded_by <= replica.hello.opened:
                    continue
                _logger.warning("a later opening of this data directory is known: it was restored, or is a copy")
                if not await _written("the number of its opening", replica.log.raise_opening, self._superseded_by):
                    self._superseded.set()
                    continue
                replica.reopened(replica.log.opening)
                # Two copies that run at once would raise it in turn for ever.
                await trio.sleep(RAISE_SECONDS)


async def _always() -> bool:
    return True


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
        case GapMarked(origin, first, following, reason):
            _logger.error(
                "records are missing for ever",
                origin=str(origin),
                sequences=f"{first} to {following - 1}",
                reason=reason,
            )
        case MissingMarked(origin, first, following):
            _logger.warning(
                "records are missing at present", origin=str(origin), sequences=f"{first} to {following - 1}"
            )
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
