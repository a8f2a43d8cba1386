"""What the core says has happened, given to each part of a membership that has to know."""

from __future__ import annotations

import structlog
import trio
from attrs import define, field

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.query_handlers import QueryHandlers
from proglog_trio.membership.peer_notifier import PeerNotifier
from proglog_trio.membership.serf.clusters import Foreigner
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind, MemberStatusChange
from proglog_trio.membership.serf.serf import Conflict, CoreEvent, HasLeft
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.snapshot.changes import Changes
from proglog_trio.membership.subscriptions import Subscriptions
from proglog_trio.membership.swim.effects import Paused, StatusChange
from proglog_trio.membership.trouble_log import TroubleLog
from proglog_trio.membership.wakeup import Wakeup
from proglog_trio.membership.wire.serf import Query

_logger = structlog.get_logger(__name__)


@define(eq=False)
class News:
    """The news of one member's core; made before the core, which calls emit.

    Attributes:
        name: this node's.
        errors: where unforeseen errors are counted.
        peers: tells the handler of peers.
        subscriptions: are told of every event of members, every user event and every query.
        handlers: answer queries.
        changes: are written down; None: nothing is.
        departed: a member has gone.
        name_claimed: a member at another address claims this node's name.
        over: this node has left, or does not gossip any more.
        has_left: it has left.
        status_changed: set at the next change of a member's status, and then replaced.
        changes_seen: how many changes of members' statuses and tags there were.
        changed: set at the next of them, and then replaced.
        conflicts: how often a member claimed a name that another has.
    """

    name: str
    errors: InternalErrors
    peers: PeerNotifier
    subscriptions: Subscriptions
    handlers: QueryHandlers
    changes: Changes | None = None
    departed: Wakeup = field(factory=Wakeup)
    name_claimed: Wakeup = field(factory=Wakeup)
    over: trio.Event = field(factory=trio.Event)
    has_left: bool = False
    status_changed: trio.Event = field(factory=trio.Event)
    changes_seen: int = 0
    changed: trio.Event = field(factory=trio.Event)
    conflicts: int = 0
    _troubles: TroubleLog = field(factory=TroubleLog)

    def emit(self, event: CoreEvent) -> None:
        """Pass an event of the core on; called while that works, and never raises an Exception."""
        boundary = self.errors.boundary(Where.GOSSIP_NEWS)
        with boundary:
            self._emit(event)
        if boundary.failed:
            self.peers.doubt()

    def _emit(self, event: CoreEvent) -> None:
        if self.changes is not None:
            self.changes.note(event)
        match event:
            case MemberEvent():
                self.subscriptions.add(event)
                for member in event.members:
                    self.peers.note(member, event.kind)
                if event.kind not in (MemberEventKind.JOIN, MemberEventKind.UPDATE):
                    self.departed.set()
                self._count_change()
            case UserEvent():
                self.subscriptions.add(event)
            case Query():
                asked = AskedQuery.of(event)
                self.subscriptions.add(asked)
                self.handlers.note(asked)
            case HasLeft():
                self.has_left = True
                self.over.set()
            case Conflict(name, endpoint):
                self.conflicts += 1
                if name == self.name:
                    self.name_claimed.set()
                self._troubles.name_claimed(name, endpoint)
            case Foreigner():
                self._troubles.another_cluster(event)
            case Paused(seconds):
                _logger.warning("this process was stopped, or its loop was held", seconds=round(seconds, 1))
            case MemberStatusChange():
                self.status_changed.set()
                self.status_changed = trio.Event()
                self._count_change()
            case StatusChange():
                _logger.debug(
                    "gossip",
                    member=event.name,
                    before=None if event.before is None else event.before.name.lower(),
                    after=event.after.name.lower(),
                    incarnation=event.incarnation,
                    reason=event.reason,
                )

    def _count_change(self) -> None:
        self.changes_seen += 1
        self.changed.set()
        self.changed = trio.Event()

    def end(self) -> None:
        """Say that there will be no more: this node does not gossip any more."""
        self.over.set()
        self.subscriptions.end()
