"""Intents: that a member has joined, that it leaves, or that one that failed counts as left.

SWIM tells who answers; an intent tells what a member means to do, or what an operator says of it. Each is stamped with
a Lamport time, and of two about one member the one with the higher time counts, in whatever order they are heard.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import define

from proglog_trio.internal_errors import Where
from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.swim import Swim
from proglog_trio.membership.wire.memberlist import UserMessage, encode_message
from proglog_trio.membership.wire.serf import Join, Leave, encode_serf


class Stage(enum.Enum):
    """Where this node is in its own life; it only goes on, never back."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"


@define(eq=False)
class Intents:
    """The intents of this node, and what those of others change.

    Attributes:
        swim: who answers; it is told when this node leaves.
        members: whose statuses intents change.
        clock: of intents; it is above the time of each intent about a known member.
        queue: the broadcasts of intents.
        has_left: called once, when leaving is over.
        stage: see Stage.
    """

    swim: Swim
    members: Members
    clock: LamportClock
    queue: BroadcastQueue
    has_left: Callable[[], None]
    stage: Stage = Stage.ALIVE

    # -- this node's ---------------------------------------------------------------------------------------------------

    def announce_join(self) -> None:
        """Tell all members that this node has joined: that it is not leaving, should one of them think so."""
        time = self.clock.tick()
        self.members.join_intent(self.swim.name, time, self.swim.now)
        self._broadcast(Join(ltime=time, node=self.swim.name))

    def leave(self) -> None:
        """Leave the cluster; has_left is called when that is over, at the latest after the profile's timeouts.

        First the intent is gossiped, then, in SWIM's own words, that this node is gone: a member that hears only the
        second shows it as failed.
        """
        if self.stage is not Stage.ALIVE:
            return
        self.stage = Stage.LEAVING
        profile, timers = self.swim.rules.profile, self.swim.rules.timers
        time = self.clock.tick()
        self.members.leave_intent(self.swim.name, time, self.swim.now, prune=False)
        # Whatever fails on the way, the end of it comes.
        timers.after(2 * profile.broadcast_timeout + profile.leave_propagation, self._leaving_is_over)
        leave_swim = self._once(self._leave_swim)
        if not self._others_there():
            leave_swim()
            return
        self._broadcast(Leave(ltime=time, node=self.swim.name, prune=False), leave_swim)
        timers.after(profile.broadcast_timeout, leave_swim)

    def _leave_swim(self) -> None:
        profile, timers = self.swim.rules.profile, self.swim.rules.timers

        def stay_a_while() -> None:
            # Others pass the news on, and still ask this node meanwhile.
            timers.after(profile.leave_propagation, self._leaving_is_over)

        told = self._once(stay_a_while)
        alone = not self._others_there()
        self.swim.rules.leave(told)
        if alone:
            self._leaving_is_over()
        else:
            timers.after(profile.broadcast_timeout, told)

    def _leaving_is_over(self) -> None:
        if self.stage is not Stage.LEFT:
            self.stage = Stage.LEFT
            self.has_left()

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
        if name == self.swim.name:
            return known
        if self.members.leave_intent(name, time, self.swim.now, prune=prune):
            self._broadcast(Leave(ltime=time, node=name, prune=prune))
        return known

    def _broadcast(self, intent: Join | Leave, finished: Callable[[], None] | None = None) -> None:
        self.queue.add(encode_message(UserMessage(encode_serf(intent))), None, finished)

    # -- what arrives --------------------------------------------------------------------------------------------------

    def receive(self, intent: Join | Leave) -> bool:
        """Change what is known by a broadcast intent; tell whether it is to be passed on."""
        if self._is_foreign(intent.node):
            self.swim.rules.counters.of_other_clusters += 1
            return False
        self._witness(intent.node, intent.ltime)
        if isinstance(intent, Join):
            return self.members.join_intent(intent.node, intent.ltime, self.swim.now)
        if intent.node == self.swim.name and self.stage is Stage.ALIVE:
            me = self.members.by_name.get(self.swim.name)
            if me is not None and intent.ltime >= me.status_time:
                # An old intent of an earlier life, or another member's force-leave: this node is here and stays. One of
                # the very time of its join counts for those who hear it first.
                self.announce_join()
            return False
        return self.members.leave_intent(intent.node, intent.ltime, self.swim.now, prune=intent.prune)

    def left_elsewhere(self, name: str, time: int) -> None:
        """Merge that another member counts one as left, the newest intent about it having this time."""
        with self.swim.boundaries(Where.GOSSIP_MESSAGE):
            if name == self.swim.name:
                self.receive(Leave(ltime=time, node=name, prune=False))
            elif not self._is_foreign(name):
                self._witness(name, time)
                self.members.left_elsewhere(name, time, self.swim.now)

    def joined_elsewhere(self, name: str, time: int) -> None:
        """Merge that another member does not count one as left, the newest intent about it having this time."""
        with self.swim.boundaries(Where.GOSSIP_MESSAGE):
            if self._is_foreign(name):
                return
            self._witness(name, time)
            is_news = self.members.join_intent(name, time, self.swim.now)
            if is_news and name == self.swim.name and self.stage is Stage.ALIVE:
                # Newer than what this node said of itself: another member has learned of an earlier life's leave, and
                # thinks that this one is leaving.
                self.announce_join()

    def _witness(self, name: str, time: int) -> None:
        """Raise the clock above the time of an intent about a known member; one about another counts when it comes.

        It may be one of another cluster, whose times must not be seen here.
        """
        if name in self.members.by_name:
            self.clock.witness(time)

    def _is_foreign(self, name: str) -> bool:
        """Tell whether a name is one of another cluster, and of no member of this one."""
        rules = self.swim.rules
        return bool(rules.foreigners) and name not in rules.nodes and rules.foreigners.is_named(name, self.swim.now)
