"""Push/pulls: all that this node knows, told to one member, and all that one knows, judged and merged.

What gossip has missed comes with them. All of it is done in steps: there may be thousands of members.
"""

from __future__ import annotations

from attrs import define, evolve

from proglog_trio.internal_errors import Where
from proglog_trio.membership.serf.clusters import ClusterTag, StateRefused
from proglog_trio.membership.serf.intents import Intents
from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.serf.spreading import Refused
from proglog_trio.membership.serf.user_events import UserEvents
from proglog_trio.membership.swim.foreigners import Sender
from proglog_trio.membership.swim.states import OtherCluster
from proglog_trio.membership.swim.swim import Swim
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import PushPull
from proglog_trio.membership.wire.state import (
    STATE_PREFIX,
    Event,
    EventsAtTime,
    SerfPushPull,
    decode_state,
    encode_state,
    is_name,
)
from proglog_trio.membership.wire.tags import tags_of
from proglog_trio.steps import Steps

NAMES_AT_ONCE = 64
EVENTS_AT_ONCE = 16
"""In one step of merging a state."""


@define(eq=False)
class PushPulls:
    """What this node tells in a push/pull, and what it learns from one.

    Attributes:
        swim, members, intents, events: what is told, and what is changed by what is learned.
        clock, query_clock: of intents and of queries; that of events is theirs.
        cluster: what tells this cluster from others; None: nothing does, and all are merged.
        refused: counts what is malformed.
    """

    swim: Swim
    members: Members
    intents: Intents
    events: UserEvents
    clock: LamportClock
    query_clock: LamportClock
    cluster: ClusterTag | None
    refused: Refused

    def local_state_steps(self, *, join: bool) -> Steps[PushPull]:
        """Return all that this node knows, in steps; what changes meanwhile may be in it or not."""
        members = self.members
        events = []
        for time, at_time in list(self.events.items()):
            events.append(
                EventsAtTime(ltime=time, events=tuple(Event(name=name, payload=payload) for name, payload in at_time))
            )
            yield
        state = SerfPushPull(
            ltime=self.clock.time,
            status_ltimes={name: member.status_time for name, member in members.by_name.items()},
            left_members=tuple(member.name for member in members.with_status(MemberStatus.LEFT)),
            event_ltime=self.events.clock.time,
            events=tuple(events),
            query_ltime=self.query_clock.time,
        )
        yield
        user_state = yield from encode_state(state)
        nodes = yield from self.swim.states.local_state_steps()
        return PushPull(nodes, user_state, join)

    def judge_steps(self, remote: PushPull, sender: Sender) -> Steps[bool]:
        """Tell, in steps, whether nothing of other clusters is in what another knows; nothing of it is merged.

        Args:
            remote: what it sent.
            sender: who that was.

        Raises:
            StateRefused: it is of another cluster.
        """
        if self.cluster is None:
            return True
        try:
            return (yield from self.swim.states.judge_steps(remote.nodes, sender))
        except OtherCluster as found:
            raise StateRefused(self.cluster.refusal(tags_of(found.state.meta))) from None

    def merge_steps(
        self, remote: PushPull, *, ignore_events: bool = False, sender: Sender | None = None
    ) -> Steps[None]:
        """Merge what another member knows, in steps, between which other things may happen.

        Of one that knows members of other clusters too, what it knows of members is merged, each by itself, and neither
        its clocks nor events, of which nothing says where they are from.

        Args:
            remote: what it sent.
            ignore_events: events from before are history to this node, and are not delivered, now or later.
            sender: who that was, as far as it is known.

        Raises:
            StateRefused: it is of another cluster; nothing of it was merged.
            DecodingError: the Serf part is malformed; SWIM's part has been merged then.
        """
        is_ours_alone = yield from self.judge_steps(remote, sender or Sender())
        self.refused.malformed += remote.refused
        yield from self.swim.states.merge_steps(remote.nodes)
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
            (self.events.clock, state.event_ltime),
            (self.query_clock, state.query_ltime),
        ):
            # What a state says is what the other's clock shows, which is above every time that it has seen.
            if time > 0:
                clock.witness(time - 1)
        left = set(state.left_members)
        for number, name in enumerate(state.left_members, 1):
            # Agents note a time one higher, which they make up: it can be the time of an intent that a member really
            # had, and with each exchange between two that say left it grows.
            if is_name(name):
                self.intents.left_elsewhere(name, state.status_ltimes.get(name, 0))
            if number % NAMES_AT_ONCE == 0:
                yield
        for number, (name, time) in enumerate(state.status_ltimes.items(), 1):
            if not is_name(name):
                self.refused.malformed += 1
            elif name not in left:
                self.intents.joined_elsewhere(name, time)
            if number % NAMES_AT_ONCE == 0:
                yield
        if ignore_events:
            self.events.ignore_before(state.event_ltime)
        # In Lamport order, which is not that of the ring in which the other remembers them.
        for events in sorted((each for each in state.events if each is not None), key=lambda each: each.ltime):
            for number, event in enumerate(events.events, 1):
                with self.swim.boundaries(Where.GOSSIP_MESSAGE):
                    self.events.receive(events.ltime, event.name, event.payload)
                if number % EVENTS_AT_ONCE == 0:
                    yield
            yield
