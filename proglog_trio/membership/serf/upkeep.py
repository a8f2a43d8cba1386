"""Upkeep: what Serf does from time to time. It forgets who is gone, and tries failed members again."""

from __future__ import annotations

from attrs import define

from proglog_trio.internal_errors import Where
from proglog_trio.membership.serf.intents import Intents, Stage
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.swim.effects import ExchangeState
from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.swim.swim import Swim


@define(eq=False)
class Upkeep:
    """Keeps the members as they should be.

    Attributes:
        swim, members: who answers, and what is known of all.
        intents: tell whether this node is leaving.
        disagreements: how often SWIM and the members had come to differ about who is there, which only an error brings.
    """

    swim: Swim
    members: Members
    intents: Intents
    disagreements: int = 0

    @property
    def _now(self) -> float:
        return self.swim.rules.timers.now

    def start(self) -> None:
        """Begin."""
        profile, timers = self.swim.rules.profile, self.swim.rules.timers
        timers.after(profile.reap_interval, self._reap)
        timers.after(profile.reconnect_interval, self._reconnect)

    def _reap(self) -> None:
        timers = self.swim.rules.timers
        # First: whatever fails below is tried again.
        next_time = timers.after(self.swim.rules.profile.reap_interval, self._reap)
        boundary = self.swim.boundaries(Where.GOSSIP_TIMER)
        is_done = True
        with boundary:
            is_done = self.members.reap(self._now)
        if not is_done:
            # Many that are to be forgotten at one time are, but not in one piece.
            next_time.cancel()
            timers.after(0, self._reap)
            return
        with boundary:
            self.agree()
        for member in self.members.with_status(MemberStatus.LEAVING):
            if member.name != self.members.me and self.swim.rules.nodes[member.name].status is NodeStatus.ALIVE:
                self.members.stayed(member.name, self._now)

    def agree(self) -> None:
        """Have the members agree with SWIM again about who is there, should an error have come between the two."""
        nodes, members = self.swim.rules.nodes, self.members
        there = {member.name for member in members.with_status(MemberStatus.ALIVE, MemberStatus.LEAVING)}
        for node in list(nodes.values()):
            if node.is_gone == (node.name in there):
                self.disagreements += 1
                with self.swim.boundaries(Where.GOSSIP_NEWS):
                    if node.is_gone:
                        members.gone(node.name, self._now, left=node.status is NodeStatus.LEFT)
                    else:
                        members.seen(node)
        for name in there - nodes.keys():
            self.disagreements += 1
            with self.swim.boundaries(Where.GOSSIP_NEWS):
                members.gone(name, self._now, left=False)

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
            self.swim.effects.append(ExchangeState(member.endpoint, member.name, join=True))
