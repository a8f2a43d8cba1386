"""The Serf core: SWIM below, and on it who joined, left or failed, and what members broadcast to each other.

Time, messages and a seeded RNG go in, through SWIM's core; what is to be sent stands in that core's effects, and what
has happened is told to `emit`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from attrs import frozen

from proglog_trio.internal_errors import Boundaries, Where, no_boundary
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.clusters import ClusterTag, Foreigner
from proglog_trio.membership.serf.intents import Intents, Stage
from proglog_trio.membership.serf.keys import KeyQuestion
from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.member import (
    Member,
    MemberEvent,
    MemberEventKind,
    MemberStatus,
    MemberStatusChange,
)
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.serf.merging import MergeCheck, Merging
from proglog_trio.membership.serf.push_pull import PushPulls
from proglog_trio.membership.serf.querying import Querying
from proglog_trio.membership.serf.spreading import MAX_STREAMED_BYTES, Refused, Spreading
from proglog_trio.membership.serf.user_events import UserEvent, UserEvents
from proglog_trio.membership.serf.vivaldi import Vivaldi
from proglog_trio.membership.swim.admission import Admission, any_address, anybody
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.effects import (
    Changed,
    ExchangeState,
    Foreign,
    Gone,
    NameConflict,
    Notification,
    Paused,
    RoundTrip,
    Seen,
    StatusChange,
    UserMessageReceived,
)
from proglog_trio.membership.swim.foreigners import unsaid
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.rules import IsLaterLife, never_a_later_life
from proglog_trio.membership.swim.swim import Swim
from proglog_trio.membership.wire import serf as wire
from proglog_trio.membership.wire.coordinates import decode_ack_payload, encode_ack_payload
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.recent_decodings import RecentDecodings
from proglog_trio.membership.wire.serf import (
    BROADCAST_TYPES,
    Join,
    Leave,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    decode_serf,
)
from proglog_trio.membership.wire.state import STATE_PREFIX
from proglog_trio.membership.wire.tags import encode_tags, tags_of


@frozen
class HasLeft:
    """Leaving is over, and the node may stop: the news was sent as often as gossip does, or the time for it is over."""


@frozen
class Conflict:
    """A member at another address claims the name of one."""

    name: str
    endpoint: Endpoint


CoreEvent = (
    MemberEvent | UserEvent | Query | MemberStatusChange | HasLeft | Conflict | Foreigner | Paused | StatusChange
)
"""Of queries, those of users that are for this node."""


class Serf:
    """One member of a Serf cluster.

    What holds between two calls: a member is ALIVE or LEAVING if and only if SWIM knows it and does not take it for
    gone; each Lamport clock is above every time of its kind that was heard of a known member.

    Attributes:
        swim: the core below.
        members: who is and was there.
        clock, query_clock: the Lamport clocks of intents and of queries; events have their own.
        intents: of this node and of others.
        events: of users.
        spreading: sends what is for others.
        querying: queries of others, and this node's own.
        push_pull: what is told and learned in state exchanges.
        disagreements: how often SWIM and the members had come to differ about who is there, which only an error brings.
        vivaldi: where this node is in the network, for those who estimate round-trip times.
        cluster: what tells this cluster from others; None: nothing does, and all members are merged.
        emit: called with what has happened.
        refused: counts of what was dropped.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        tags: Mapping[str, str],
        profile: GossipProfile,
        rng: random.Random,
        emit: Callable[[CoreEvent], None],
        *,
        now: float,
        overhead_bytes: int = 0,
        cluster: ClusterTag | None = None,
        is_later_life: IsLaterLife = never_a_later_life,
        allows_address: Callable[[bytes], bool] = any_address,
        merge_check: MergeCheck | None = None,
        on_key_query: Callable[[KeyQuestion], None] | None = None,
        boundaries: Boundaries = no_boundary,
    ) -> None:
        """Make a core that does nothing before start.

        Args:
            name: of this node, unique in the cluster.
            endpoint: what the others send to.
            tags: what is told of this node.
            profile: the timing.
            rng: decides whom to probe and to gossip to.
            emit: called with what has happened.
            now: the time in seconds; any clock that never goes back.
            overhead_bytes: what encryption and label take of each packet.
            cluster: see Serf.
            is_later_life: see Rules.
            allows_address: tells whether a member may have an address of 4 or 16 bytes.
            merge_check: see MergeCheck; None: all may be merged.
            on_key_query: see Querying.
            boundaries: what each timer, message and piece of news is worked on in.

        Raises:
            ValueError: the tags take more than 512 bytes.
        """
        self.emit, self.cluster, self.disagreements = emit, cluster, 0
        self.clock, self.query_clock = LamportClock(), LamportClock()
        self.vivaldi, self.refused = Vivaldi(rng), Refused()
        self._decode = RecentDecodings[SerfMessage](decode_serf, BROADCAST_TYPES)
        merging = None if merge_check is None else Merging(merge_check, boundaries)
        intents, queries, self._events = (BroadcastQueue(profile.retransmit_multiplier) for _ in range(3))
        self._intents = intents
        self.members = Members(name, profile, self._of_members, tags_of)
        self.swim = Swim(
            name,
            endpoint,
            profile,
            rng,
            self._notified,
            now=now,
            meta=encode_tags(tags),
            overhead_bytes=overhead_bytes,
            queues=(intents, queries, self._events),
            ack_payload=lambda: encode_ack_payload(self.vivaldi.coordinate),
            belonging=unsaid if cluster is None else lambda meta: cluster.belonging(tags_of(meta)),
            is_later_life=is_later_life,
            admission=Admission(allows_address, anybody if merging is None else merging.judge),
            boundaries=boundaries,
        )
        self.intents = Intents(self.swim, self.members, self.clock, self._intents, lambda: emit(HasLeft()))
        self.events = UserEvents(LamportClock(), emit)
        self.spreading = Spreading(self.swim, self.refused)
        self.querying = Querying(self.swim, self.members, self.query_clock, self.spreading, queries, emit, on_key_query)
        self.push_pull = PushPulls(
            self.swim, self.members, self.intents, self.events, self.clock, self.query_clock, cluster, self.refused,
            merging,
        )  # fmt: skip

    # -- this node -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Be a member, alone so far."""
        timers = self.swim.rules.timers
        self.swim.start()
        timers.after(self.swim.rules.profile.reap_interval, self._reap)
        timers.after(self.swim.rules.profile.reconnect_interval, self._reconnect)

    def restore_clocks(self, *, member: int, event: int, query: int) -> None:
        """Let the clocks go on from where an earlier life's were: what was heard of then is old, and not told again."""
        for clock, time in ((self.clock, member), (self.events.clock, event), (self.query_clock, query)):
            clock.witness(time - 1)
        self.events.ignore_before(event)
        self.querying.ignore_before(query)

    def snapshot(self) -> list[Member]:
        """Return all members, this node among them."""
        return [member.snapshot() for member in self.members.by_name.values()]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Gossip other tags of this node; raises ValueError if they take more than 512 bytes."""
        self.swim.rules.update_me(encode_tags(tags))

    def fire(self, name: str, payload: bytes, *, coalesce: bool, max_bytes: int) -> None:
        """Send a user event to all members, this one among them; arguments and errors are those of UserEvents.fire."""
        encoded = self.events.fire(name, payload, coalesce=coalesce, max_bytes=max_bytes)
        self.spreading.spread(self._events, encoded)

    def _of_members(self, event: MemberEvent | MemberStatusChange) -> None:
        self.emit(event)
        if isinstance(event, MemberEvent) and event.kind in (MemberEventKind.LEAVE, MemberEventKind.FAILED):
            for member in event.members:
                self.querying.gone(member.name)

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _notified(self, notification: Notification) -> None:
        """Work on SWIM's news; what fails here does not keep SWIM from finishing what it is about."""
        is_message = isinstance(notification, UserMessageReceived)
        with self.swim.boundaries(Where.GOSSIP_MESSAGE if is_message else Where.GOSSIP_NEWS):
            self._react(notification)

    def _react(self, notification: Notification) -> None:
        nodes = self.swim.rules.nodes
        match notification:
            case Seen(name):
                self.members.seen(nodes[name])
                self._place_me()
                # Of an intent that came before its member did.
                self.clock.witness(self.members.by_name[name].status_time)
            case Changed(name):
                self.members.changed(nodes[name])
            case Gone(name, left):
                self.vivaldi.forget(name)
                self.members.gone(name, self.swim.now, left=left)
            case RoundTrip(name, seconds, payload):
                self._measured(name, seconds, payload)
            case UserMessageReceived(payload, _):
                self.receive(payload)
            case NameConflict(name, endpoint):
                self.emit(Conflict(name, endpoint))
            case Foreign(name, endpoint, _, refusal) if refusal is not None:
                self.emit(Foreigner(name, endpoint, refusal, is_refused=True))
            case Foreign(name, endpoint, meta) if self.cluster is not None:
                self.emit(Foreigner(name, endpoint, self.cluster.refusal(tags_of(meta))))
            case Paused() | StatusChange():
                self.emit(notification)

    def _measured(self, name: str, seconds: float, payload: bytes) -> None:
        member = self.members.by_name.get(name)
        if member is None:
            return
        member.round_trip_seconds, member.has_answered = seconds, True
        try:
            coordinate = decode_ack_payload(payload)
        except DecodingError:
            self.refused.malformed += 1
            return
        if coordinate is not None and self.vivaldi.measured(name, coordinate, seconds):
            member.coordinate = coordinate
            self._place_me()

    def _place_me(self) -> None:
        me = self.members.by_name.get(self.members.me)
        if me is not None:
            me.coordinate = self.vivaldi.coordinate

    def receive(self, payload: bytes) -> None:
        """Work on a Serf message that came in a packet or on a stream."""
        if payload[:1] == STATE_PREFIX:
            # A state comes in a push/pull alone, and only there may it be large.
            self.refused.malformed += 1
            return
        try:
            message = self._decode(payload)
        except DecodingError:
            self.refused.malformed += 1
            return
        self._receive(message, payload)

    def _receive(self, message: SerfMessage, payload: bytes) -> None:
        match message:
            case Join() | Leave():
                if self.intents.receive(message):
                    self.spreading.spread(self._intents, payload, by_streams=False)
            case wire.UserEvent() if self.events.awaited_histories:
                pass
            case wire.UserEvent(ltime, event, content, coalesce):
                if self.events.receive(ltime, event, content, coalesce=coalesce):
                    self.spreading.spread(self._events, payload)
            case Query() if self._asks_elsewhere(message):
                self.swim.rules.counters.of_other_clusters += 1
            case Query():
                self.querying.receive(message, payload)
            case Relay() if len(message.payload) > MAX_STREAMED_BYTES:
                self.refused.too_large += 1
            case Relay():
                header = message.header
                target = Endpoint(header.dest_addr.ip, header.dest_addr.port)
                if self.swim.rules.is_elsewhere(target):
                    self.swim.rules.counters.of_other_clusters += 1
                else:
                    self.spreading.send(message.payload, target)
            case QueryResponse() if self.querying.receive_response(message):
                pass
            case _:
                # Responses to queries that are over or never were, and push/pulls outside a stream.
                self.refused.malformed += 1

    def _asks_elsewhere(self, query: Query) -> bool:
        """Tell whether the answers to a query would go to another cluster."""
        has_address = bool(query.addr and query.port)
        return has_address and self.swim.rules.is_elsewhere(Endpoint(query.addr, query.port))

    # -- the passing of time -------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        timers = self.swim.rules.timers
        # First: whatever fails below is tried again.
        next_time = timers.after(self.swim.rules.profile.reap_interval, self._reap)
        boundary = self.swim.boundaries(Where.GOSSIP_TIMER)
        is_done = True
        with boundary:
            is_done = self.members.reap(self.swim.now)
        if not is_done:
            # Many that are to be forgotten at one time are, but not in one piece.
            next_time.cancel()
            timers.after(0, self._reap)
            return
        with boundary:
            self.agree()
        for member in self.members.with_status(MemberStatus.LEAVING):
            if member.name != self.members.me and self.swim.rules.nodes[member.name].status is NodeStatus.ALIVE:
                self.members.stayed(member.name, self.swim.now)

    def agree(self) -> None:
        """Have the members agree with SWIM again about who is there, should an error have come between the two."""
        nodes, members = self.swim.rules.nodes, self.members
        there = {member.name for member in members.with_status(MemberStatus.ALIVE, MemberStatus.LEAVING)}
        for node in list(nodes.values()):
            if node.is_gone == (node.name in there):
                self.disagreements += 1
                with self.swim.boundaries(Where.GOSSIP_NEWS):
                    if node.is_gone:
                        members.gone(node.name, self.swim.now, left=node.status is NodeStatus.LEFT)
                    else:
                        members.seen(node)
        for name in there - nodes.keys():
            self.disagreements += 1
            with self.swim.boundaries(Where.GOSSIP_NEWS):
                members.gone(name, self.swim.now, left=False)

    def _reconnect(self) -> None:
        """Try one failed member again, the more likely the more have failed."""
        rules = self.swim.rules
        rules.timers.after(rules.profile.reconnect_interval, self._reconnect)
        failed = self.members.with_status(MemberStatus.FAILED)
        alive = len(self.members.by_name) - len(failed) - len(self.members.with_status(MemberStatus.LEFT))
        # Where a member of another cluster was found there is none of this one to connect to for a while.
        failed = [member for member in failed if not rules.is_elsewhere(member.endpoint)]
        if failed and self.intents.stage is Stage.ALIVE and rules.rng.random() <= len(failed) / max(1, alive):
            member = rules.rng.choice(failed)
            self.swim.effects.append(
                ExchangeState(member.endpoint, member.name, join=True, is_remembered=member.is_remembered)
            )
