"""The replicator: a membership handler with one nursery and one cancel scope for each peer.

```
Replicator.run
├── timekeeper   makes the replica's decisions when their time has come
├── lag watch    says when a peer falls behind or catches up; forgets old origins
├── repairer     gets frames that are damaged here from peers
└── peer "b"     see peer.py; cancelled when b leaves or fails
```
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import structlog
import trio
from attrs import define, field

from ..internal_errors import Where
from ..log.missing import Missing
from .events import Diverged, GapMarked, LogTimeReturned, ReplicationEvent, SourceEnded
from .lag import LagWatch
from .peer import Peer, RunPull
from .peer_clocks import PeerClockChanged
from .peers import PeerView
from .repairer import FetchFrames, Repairer
from .replica import Replica

LAG_WATCH_SECONDS = 1.0
FORGET_LOOKS = 60
"""Once in so many looks at the lag, old origins are forgotten."""

_logger = structlog.get_logger(__name__)


@define(eq=False, repr=False)
class Replicator:
    """Pulls from every peer; see `membership.Handler`.

    Attributes:
        replica: decides what is pulled from whom.
        peers: those that are there.
        repairer: looks after what is damaged in this node's log.
        directory_of: tells which data directory a member says it has.
    """

    replica: Replica
    _run_pull: RunPull
    _fetch_frames: FetchFrames
    _rng: random.Random
    directory_of: Callable[[str], bytes | None] = lambda _name: None
    peers: dict[str, Peer] = field(factory=dict)
    repairer: Repairer = field(init=False)
    _beginning: trio.Lock = field(factory=trio.Lock)
    _nursery: trio.Nursery | None = None
    _rescheduled: trio.Event = field(factory=trio.Event)
    _armed: float = math.inf

    def __attrs_post_init__(self) -> None:
        self.repairer = Repairer(self.replica.log, self._peers_with, self._fetch_frames, self._rng)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replicate until cancelled."""
        self.replica.on_decide = self._reschedule
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._watch_lag)
                nursery.start_soon(self.repairer.run)
                task_status.started()
        finally:
            self._nursery = None
            self.replica.close()

    async def join(self, name: str, addr: str) -> None:
        """Begin to pull from a peer."""
        if self._nursery is None or name in self.peers:
            raise RuntimeError(f"the peer {name} cannot join: it is there already, or nothing runs")
        peer = Peer(
            name, addr, self.replica, self._run_pull, self._rng, self.repairer.look_again, beginning=self._beginning
        )
        self.replica.joined(name)
        directory_id = self.directory_of(name)
        if directory_id is not None:
            self.replica.alive(name, directory_id)
        self.peers[name] = peer
        self._nursery.start_soon(self._run_peer, peer)

    async def leave(self, name: str) -> None:
        """Stop pulling from a peer; returns when nothing of that is left."""
        peer = self.peers.get(name)
        if peer is None:
            return  # it has ended with the replicator, which stops together with the membership
        peer.scope.cancel()
        with trio.CancelScope(shield=True):
            # Cancelled just now: it ends by itself, and what waits for it here must not be told before.
            await peer.ended.wait()

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
        peers.sort(key=lambda peer: not _says_it_has(views[peer.name], missing))
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
                if number % FORGET_LOOKS == 0 and (forgotten := self.replica.forget_old_origins()):
                    _logger.info("origins of which no log has anything left are forgotten", origins=forgotten)
            with boundary:
                for change in watch.look():
                    if change.is_behind:
                        _logger.warning("a peer is behind", peer=change.peer, records=change.records)
                    else:
                        _logger.info("a peer has caught up", peer=change.peer)


def _says_it_has(peer: PeerView, missing: Missing) -> bool:
    held = peer.ranges.get(missing.origin)
    return peer.connected and held is not None and held.low <= missing.from_sequence < held.next


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
