"""The Serf core: SWIM below, and on it who joined, left or failed, and what members broadcast to each other.

Time, messages and a seeded RNG go in, through SWIM's core; what is to be sent stands in that core's effects, and what
has happened is told to `emit`.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping

from attrs import define, evolve, field, frozen

from proglog_trio.internal_errors import Boundaries, Where
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.clusters import ClusterTag, Foreigner, StateRefused
from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberStatus, MemberStatusChange
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.serf.querying import Querying
from proglog_trio.membership.serf.seen import RecentRing
from proglog_trio.membership.serf.vivaldi import Vivaldi
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
from proglog_trio.membership.swim.foreigners import Sender, unsaid
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.swim import OtherCluster, Swim
from proglog_trio.membership.wire.coordinates import decode_ack_payload, encode_ack_payload
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import PushPull, UserMessage, encode_message
from proglog_trio.membership.wire.serf import (
    Join,
    Leave,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    UserEvent,
    decode_serf,
    encode_serf,
)
from proglog_trio.membership.wire.state import (
    STATE_PREFIX,
    Event,
    EventsAtTime,
    SerfPushPull,
    decode_state,
    encode_state,
    is_name,
)
from proglog_trio.membership.wire.tags import decode_tags, encode_tags
from proglog_trio.steps import Steps, complete

MAX_RELAYED_BYTES = 16 * 1024
"""Agents may be configured to send responses of up to 9 KiB."""
EVENT_OVERHEAD_BYTES = 256
"""What an event that is remembered counts for besides its name and payload: it bounds how many there are."""
NAMES_AT_ONCE = 64
EVENTS_AT_ONCE = 16
"""In one step of merging a state."""


class Stage(enum.Enum):
    """Where this node is in its own life."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"


@frozen
class HasLeft:
    """Leaving is over: everybody was told, as far as gossip tells, and the node may stop."""


@frozen
class Conflict:
    """Somebody at another address claims a member's name."""

    name: str
    endpoint: Endpoint


CoreEvent = MemberEvent | MemberStatusChange | HasLeft | Conflict | Foreigner | Paused | StatusChange


@define
class Refused:
    """What arrived and was not taken, by reason."""

    malformed: int = 0
    too_large: int = 0


@define(eq=False)
class Serf:
    """One member of a Serf cluster.

    Attributes:
        swim: the core below.
        members: who is and was there.
        clock, event_clock, query_clock: the three Lamport clocks.
        intents, queries, events: what is broadcast, in the order in which it goes out.
        stage: see Stage.
        vivaldi: where this node is in the network, for those who estimate round-trip times.
        refused: counts of what was not taken.
        querying: queries of others, and this node's own.
        cluster: what tells this cluster from others; None: nothing does, and everybody is merged.
        disagreements: how often SWIM and the members had come to differ about who is there, which only an error brings.
    """

    swim: Swim
    members: Members
    emit: Callable[[CoreEvent], None]
    clock: LamportClock = field(factory=LamportClock)
    event_clock: LamportClock = field(factory=LamportClock)
    query_clock: LamportClock = field(factory=LamportClock)
    cluster: ClusterTag | None = None
    stage: Stage = Stage.ALIVE
    refused: Refused = field(factory=Refused)
    disagreements: int = 0
    vivaldi: Vivaldi = field(init=False)
    querying: Querying = field(init=False)
    _intents: BroadcastQueue = field(init=False)
    _queries: BroadcastQueue = field(init=False)
    _events: BroadcastQueue = field(init=False)
    _recent_events: RecentRing[tuple[str, bytes]] = field(factory=lambda: RecentRing(_event_bytes))

    def __attrs_post_init__(self) -> None:
        multiplier = self.swim.rules.profile.retransmit_multiplier
        self._intents, self._queries, self._events = (BroadcastQueue(multiplier) for _ in range(3))
        self.swim.queues += [self._intents, self._queries, self._events]
        self.vivaldi = Vivaldi(self.swim.rules.rng)
        self.querying = Querying(
            self.swim, self.members, self.query_clock, lambda payload: self._pass_on(self._queries, payload)
        )
        self.swim.prober.ack_payload = lambda: encode_ack_payload(self.vivaldi.coordinate)

    @classmethod
    def make(
        cls,
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
    ) -> Serf:
        """Return a core that does nothing before start; the arguments are those of Swim.make, and of Serf.

        Raises:
            ValueError: the tags take more than 512 bytes.
        """
        holder: list[Serf] = []
        swim = Swim.make(
            name,
            endpoint,
            profile,
            rng,
            lambda notification: holder[0].notified(notification),
            now=now,
            meta=encode_tags(tags),
            overhead_bytes=overhead_bytes,
            belonging=unsaid if cluster is None else lambda meta: cluster.belonging(tags_of(meta)),
        )
        serf = cls(swim, Members(name, profile, emit, tags_of), emit, cluster=cluster)
        holder.append(serf)
        return serf

    def use_boundaries(self, boundaries: Boundaries) -> None:
        """Have everything that this core does run in boundaries: each timer, message and piece of news in its own."""
        self.swim.boundaries = boundaries
        self.swim.rules.timers.boundary = lambda: boundaries(Where.GOSSIP_TIMER)

    # -- this node -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Be a member, alone so far."""
        profile, timers = self.swim.rules.profile, self.swim.rules.timers
        self.swim.start()
        timers.after(profile.reap_interval, self._reap)
        timers.after(profile.reconnect_interval, self._reconnect)

    @property
    def name(self) -> str:
        """This node's name."""
        return self.swim.rules.me.name

    @property
    def now(self) -> float:
        """The time, as the core knows it."""
        return self.swim.rules.timers.now

    def snapshot(self) -> list[Member]:
        """Return all members, this node among them."""
        return [member.snapshot() for member in self.members.by_name.values()]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tell everybody other tags of this node; raises ValueError if they take more than 512 bytes."""
        self.swim.rules.update_me(encode_tags(tags))

    def announce_join(self) -> None:
        """Tell everybody that this node has joined: that it is not leaving, should anybody think so."""
        time = self.clock.tick()
        self.members.join_intent(self.name, time, self.now)
        self._broadcast_intent(Join(ltime=time, node=self.name))

    def leave(self) -> None:
        """Leave the cluster: HasLeft is emitted when that is over, at the latest after the profile's timeouts."""
        if self.stage is not Stage.ALIVE:
            return
        self.stage = Stage.LEAVING
        profile = self.swim.rules.profile
        time = self.clock.tick()
        self.members.leave_intent(self.name, time, self.now, prune=False)
        # Whatever fails on the way, those who wait for the end of it do not wait for ever.
        self.swim.rules.timers.after(2 * profile.broadcast_timeout + profile.leave_propagation, self._has_left)
        leave_swim = self._once(self._leave_swim)
        if not self._others_there():
            leave_swim()
            return
        self._broadcast_intent(Leave(ltime=time, node=self.name, prune=False), leave_swim)
        self.swim.rules.timers.after(profile.broadcast_timeout, leave_swim)

    def _leave_swim(self) -> None:
        profile, timers = self.swim.rules.profile, self.swim.rules.timers

        def stay_a_while() -> None:
            timers.after(profile.leave_propagation, self._has_left)

        told = self._once(stay_a_while)
        alone = not self._others_there()
        self.swim.rules.leave(told)
        if alone:
            self._has_left()
        else:
            timers.after(profile.broadcast_timeout, told)

    def _has_left(self) -> None:
        if self.stage is not Stage.LEFT:
            self.stage = Stage.LEFT
            self.emit(HasLeft())

    def _once(self, action: Callable[[], None]) -> Callable[[], None]:
        """Return what runs an action in a timer of its own, when first called."""
        called = False

        def run() -> None:
            nonlocal called
            if not called:
                called = True
                self.swim.rules.timers.after(0, action)

        return run

    def _others_there(self) -> bool:
        rules = self.swim.rules
        # The suspected among them: they may live, and have to be told.
        return any(node is not rules.me and not node.is_gone for node in rules.nodes.values())

    def force_leave(self, name: str, *, prune: bool = False) -> bool:
        """Let a failed member count as left, or forget it at once; tell whether the member is known."""
        known = name in self.members.by_name
        time = self.clock.tick()
        if name == self.name:
            return known
        if self.members.leave_intent(name, time, self.now, prune=prune):
            self._broadcast_intent(Leave(ltime=time, node=name, prune=prune))
        return known

    # -- what arrives --------------------------------------------------------------------------------------------------

    def notified(self, notification: Notification) -> None:
        """Take SWIM's news; what fails here does not keep SWIM from finishing what it is about."""
        is_message = isinstance(notification, UserMessageReceived)
        with self.swim.boundaries(Where.GOSSIP_MESSAGE if is_message else Where.GOSSIP_NEWS):
            self._notified(notification)

    def _notified(self, notification: Notification) -> None:
        nodes = self.swim.rules.nodes
        match notification:
            case Seen(name):
                self.members.seen(nodes[name])
                # Of an intent that came before its member did.
                self.clock.witness(self.members.by_name[name].status_time)
            case Changed(name):
                self.members.changed(nodes[name])
            case Gone(name, left):
                self.vivaldi.forget(name)
                self.members.gone(name, self.now, left=left)
            case RoundTrip(name, seconds, payload):
                self._measured(name, seconds, payload)
            case UserMessageReceived(payload, _):
                self.receive(payload)
            case NameConflict(name, endpoint):
                self.emit(Conflict(name, endpoint))
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
        if coordinate is not None:
            self.vivaldi.measured(name, coordinate, seconds)

    def receive(self, payload: bytes) -> None:
        """Take a Serf message that came in a packet or on a stream."""
        if payload[:1] == STATE_PREFIX:
            # A state comes in a push/pull alone, and only there may it be large.
            self.refused.malformed += 1
            return
        try:
            message = decode_serf(payload)
        except DecodingError:
            self.refused.malformed += 1
            return
        self._receive(message, payload)

    def _receive(self, message: SerfMessage, payload: bytes) -> None:
        match message:
            case Leave():
                if self._take_leave(message):
                    self._pass_on(self._intents, payload)
            case Join() if self._is_foreign(message.node):
                self.swim.rules.counters.of_other_clusters += 1
            case Join():
                self._witness_of(message.node, message.ltime)
                if self.members.join_intent(message.node, message.ltime, self.now):
                    self._pass_on(self._intents, payload)
            case UserEvent():
                if self._take_event(message.ltime, message.name, message.payload):
                    self._pass_on(self._events, payload)
            case Query() if self._asks_elsewhere(message):
                self.swim.rules.counters.of_other_clusters += 1
            case Query():
                self.querying.receive(message, payload)
            case Relay() if len(message.payload) > MAX_RELAYED_BYTES:
                self.refused.too_large += 1
            case Relay():
                header = message.header
                target = Endpoint(header.dest_addr.ip, header.dest_addr.port)
                if self.swim.rules.is_elsewhere(target):
                    self.swim.rules.counters.of_other_clusters += 1
                else:
                    self.swim.send(target, encode_message(UserMessage(message.payload)))
            case QueryResponse() if self.querying.take_response(message):
                pass
            case _:
                # Responses to queries that are over or never were, and push/pulls outside a stream.
                self.refused.malformed += 1

    def _take_leave(self, message: Leave) -> bool:
        """Take a leave intent; tell whether it is to be passed on."""
        if self._is_foreign(message.node):
            self.swim.rules.counters.of_other_clusters += 1
            return False
        self._witness_of(message.node, message.ltime)
        if message.node == self.name and self.stage is Stage.ALIVE:
            me = self.members.by_name.get(self.name)
            if me is not None and message.ltime >= me.status_time:
                # An old intent of an earlier life, or somebody's force-leave: this node is here and stays. One of the
                # very time of its join counts for those who hear it first.
                self.announce_join()
            return False
        return self.members.leave_intent(message.node, message.ltime, self.now, prune=message.prune)

    def _witness_of(self, name: str, time: int) -> None:
        """Take note of the time of an intent about a member; one about nobody that is known counts when it comes.

        It may be one of another cluster, whose times must not be seen here.
        """
        if name in self.members.by_name:
            self.clock.witness(time)

    def _is_foreign(self, name: str) -> bool:
        """Tell whether a name is one of another cluster, and of no member of this one."""
        rules = self.swim.rules
        return bool(rules.foreigners) and name not in rules.nodes and rules.foreigners.is_named(name, rules.timers.now)

    def _asks_elsewhere(self, query: Query) -> bool:
        """Tell whether the answers to a query would go to another cluster."""
        has_address = bool(query.addr and query.port)
        return has_address and self.swim.rules.is_elsewhere(Endpoint(query.addr, query.port))

    def _take_event(self, ltime: int, name: str, payload: bytes) -> bool:
        self.event_clock.witness(ltime)
        return self._recent_events.take(ltime, (name, payload), self.event_clock.time)

    def _pass_on(self, queue: BroadcastQueue, payload: bytes) -> None:
        if len(payload) > self.swim.largest_broadcast:
            self.refused.too_large += 1  # It came by a stream, and fits into no packet.
        else:
            queue.add(encode_message(UserMessage(payload)))

    def _broadcast_intent(self, intent: Join | Leave, finished: Callable[[], None] | None = None) -> None:
        self._intents.add(encode_message(UserMessage(encode_serf(intent))), None, finished)

    # -- push/pull -----------------------------------------------------------------------------------------------------

    def local_state(self, *, join: bool) -> PushPull:
        """Return all that this node knows, for a push/pull."""
        return complete(self.local_state_steps(join=join))

    def local_state_steps(self, *, join: bool) -> Steps[PushPull]:
        """Return all that this node knows, in steps; what changes meanwhile may be in it or not."""
        members = self.members
        events = []
        for time, at_time in list(self._recent_events.items()):
            events.append(
                EventsAtTime(ltime=time, events=tuple(Event(name=name, payload=payload) for name, payload in at_time))
            )
            yield
        state = SerfPushPull(
            ltime=self.clock.time,
            status_ltimes={name: member.status_time for name, member in members.by_name.items()},
            left_members=tuple(member.name for member in members.with_status(MemberStatus.LEFT)),
            event_ltime=self.event_clock.time,
            events=tuple(events),
            query_ltime=self.query_clock.time,
        )
        yield
        user_state = yield from encode_state(state)
        nodes = yield from self.swim.local_state_steps()
        return PushPull(nodes, user_state, join)

    def judge(self, remote: PushPull, sender: Sender) -> None:
        """Look whether another may be told what this node knows; the arguments and errors are those of judge_steps."""
        complete(self.judge_steps(remote, sender))

    def judge_steps(self, remote: PushPull, sender: Sender) -> Steps[bool]:
        """Tell, in steps, whether nothing of other clusters is in what another knows; nothing of it is taken.

        Args:
            remote: what it sent.
            sender: who that was.

        Raises:
            StateRefused: it is of another cluster.
        """
        if self.cluster is None:
            return True
        try:
            return (yield from self.swim.judge_steps(remote.nodes, sender))
        except OtherCluster as found:
            raise StateRefused(self.cluster.refusal(tags_of(found.state.meta))) from None

    def merge(self, remote: PushPull, *, ignore_events: bool = False, sender: Sender | None = None) -> None:
        """Take what another member knows; the arguments and errors are those of merge_steps."""
        complete(self.merge_steps(remote, ignore_events=ignore_events, sender=sender))

    def merge_steps(
        self, remote: PushPull, *, ignore_events: bool = False, sender: Sender | None = None
    ) -> Steps[None]:
        """Take what another member knows, in steps, between which other things may happen.

        Of one that knows members of other clusters too, what it knows of members is taken, each by itself, and neither
        its clocks nor events, of which nothing says where they are from.

        Args:
            remote: what it sent.
            ignore_events: events from before are history to this node, and are not delivered, now or later.
            sender: who that was, as far as it is known.

        Raises:
            StateRefused: it is of another cluster; nothing of it was taken.
            DecodingError: the Serf part is malformed; SWIM's part has been taken then.
        """
        is_ours_alone = yield from self.judge_steps(remote, sender or Sender())
        self.refused.malformed += remote.refused
        yield from self.swim.merge_steps(remote.nodes)
        if not remote.user_state:
            return
        if remote.user_state[:1] != STATE_PREFIX:
            self.refused.malformed += 1
            return
        try:
            state = yield from decode_state(remote.user_state)
        except DecodingError as error:
            raise error.within("Serf push_pull message") from None
        if not is_ours_alone:
            state = evolve(state, ltime=0, event_ltime=0, query_ltime=0, events=())
        for clock, time in (
            (self.clock, state.ltime),
            (self.event_clock, state.event_ltime),
            (self.query_clock, state.query_ltime),
        ):
            if time > 0:
                clock.witness(time - 1)
        left = set(state.left_members)
        for number, name in enumerate(state.left_members, 1):
            # Agents take a time one higher, which they make up: it can be the time of an intent that somebody really
            # had, and with each exchange between two who say left it grows.
            if is_name(name):
                self._left_elsewhere(name, state.status_ltimes.get(name, 0))
            if number % NAMES_AT_ONCE == 0:
                yield
        for number, (name, time) in enumerate(state.status_ltimes.items(), 1):
            if not is_name(name):
                self.refused.malformed += 1
            elif name not in left:
                self._joined_elsewhere(name, time)
            if number % NAMES_AT_ONCE == 0:
                yield
        if ignore_events:
            self._recent_events.lowest = max(self._recent_events.lowest, state.event_ltime)
        for events in state.events:
            if events is None:
                continue
            for number, event in enumerate(events.events, 1):
                with self.swim.boundaries(Where.GOSSIP_MESSAGE):
                    self._take_event(events.ltime, event.name, event.payload)
                if number % EVENTS_AT_ONCE == 0:
                    yield
            yield

    def _left_elsewhere(self, name: str, time: int) -> None:
        with self.swim.boundaries(Where.GOSSIP_MESSAGE):
            if name == self.name:
                self._take_leave(Leave(ltime=time, node=name, prune=False))
            elif not self._is_foreign(name):
                self._witness_of(name, time)
                self.members.left_elsewhere(name, time, self.now)

    def _joined_elsewhere(self, name: str, time: int) -> None:
        with self.swim.boundaries(Where.GOSSIP_MESSAGE):
            if self._is_foreign(name):
                return
            self._witness_of(name, time)
            if self.members.join_intent(name, time, self.now) and name == self.name and self.stage is Stage.ALIVE:
                # Newer than what this node said of itself: somebody has learned of an earlier life's leave, and
                # thinks that this one is leaving.
                self.announce_join()

    # -- the passing of time -------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        timers = self.swim.rules.timers
        # First: whatever fails below is tried again.
        next_time = timers.after(self.swim.rules.profile.reap_interval, self._reap)
        boundary = self.swim.boundaries(Where.GOSSIP_TIMER)
        is_done = True
        with boundary:
            is_done = self.members.reap(self.now)
        if not is_done:
            # Many that are to be forgotten at one time are, but not in one piece.
            next_time.cancel()
            timers.after(0, self._reap)
            return
        with boundary:
            self.agree()
        for member in self.members.with_status(MemberStatus.LEAVING):
            if member.name != self.name and self.swim.rules.nodes[member.name].status is NodeStatus.ALIVE:
                self.members.stayed(member.name, self.now)

    def agree(self) -> None:
        """Have the members agree with SWIM again about who is there, should an error have come between the two."""
        nodes, members = self.swim.rules.nodes, self.members
        there = {member.name for member in members.with_status(MemberStatus.ALIVE, MemberStatus.LEAVING)}
        for node in list(nodes.values()):
            if node.is_gone == (node.name in there):
                self.disagreements += 1
                with self.swim.boundaries(Where.GOSSIP_NEWS):
                    if node.is_gone:
                        members.gone(node.name, self.now, left=node.status is NodeStatus.LEFT)
                    else:
                        members.seen(node)
        for name in there - nodes.keys():
            self.disagreements += 1
            with self.swim.boundaries(Where.GOSSIP_NEWS):
                members.gone(name, self.now, left=False)

    def _reconnect(self) -> None:
        """Try one failed member again, the more likely the more have failed."""
        rules = self.swim.rules
        rules.timers.after(rules.profile.reconnect_interval, self._reconnect)
        failed = self.members.with_status(MemberStatus.FAILED)
        alive = len(self.members.by_name) - len(failed) - len(self.members.with_status(MemberStatus.LEFT))
        # Where somebody of another cluster was found there is nobody to connect to for a while.
        failed = [member for member in failed if not rules.is_elsewhere(member.endpoint)]
        if failed and self.stage is Stage.ALIVE and rules.rng.random() <= len(failed) / max(1, alive):
            member = rules.rng.choice(failed)
            self.swim.effects.append(ExchangeState(member.endpoint, member.name, join=True))


def _event_bytes(event: tuple[str, bytes]) -> int:
    name, payload = event
    return len(name) + len(payload) + EVENT_OVERHEAD_BYTES


def tags_of(meta: bytes) -> dict[str, str]:
    """Return the tags in a meta; none where it is not Serf's: whatever it is shall still be a member."""
    try:
        return decode_tags(meta)
    except DecodingError:
        return {}
