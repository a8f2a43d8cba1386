"""What is due is done when its time has come: decisions about pulls, and acknowledgements that were not reached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from attrs import define, field

from proglog_trio.errors import LogClosed, LogReadOnly
from proglog_trio.lived_time import LivedTime
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.applier import Applier
from proglog_trio.replication.decisions import Decision, Pass, Start
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.peers.acknowledgements import Acknowledgements
from proglog_trio.replication.pull_plan import PullPlan
from proglog_trio.replication.streams import OpenStreams

LATE_SECONDS = 0.5
"""A decision that is later than this was not made because the process was stopped, or its loop was held."""
READING_SECONDS = 0.5
"""How long what has arrived meanwhile is read before the time of decisions goes on."""


@define(eq=False, repr=False)
class Scheduler:
    """Makes decisions in their time, and carries them out.

    They go by the time that this process lived through: while it was stopped it could not see who sent what, so no
    source has stalled then, nothing has been missing for long, and no peer has been waited for.

    Attributes:
        node: this one.
        plan: decides about pulls.
        acknowledgements: those that wait.
        streams: where decisions are told.
        on_deadline: called when next_deadline may have changed.
    """

    node: LocalNode
    plan: PullPlan
    acknowledgements: Acknowledgements
    streams: OpenStreams
    on_deadline: Callable[[], None]
    _time: LivedTime = field(init=False)
    # The next deadline as it was last told of, in lived time: by then the clock is read.
    _due: float | None = None

    def __attrs_post_init__(self) -> None:
        self._time = LivedTime(self.node.clock(), LATE_SECONDS, READING_SECONDS)

    @property
    def next_deadline(self) -> float | None:
        """When advance must be called, if nothing happens before; in seconds."""
        return None if self._due is None else self._time.reading_of(self._due)

    def now(self) -> float:
        """Return the time in seconds, without the pauses in which this process was stopped."""
        if self._time.advance(self.node.clock(), self._due):
            self.node.counters.pauses += 1
        return self._time.now

    def advance(self) -> None:
        """Do what is due."""
        self.acknowledgements.advance(self.now())
        self.decide()

    def decide(self) -> None:
        """Decide from which peers to pull, and tell them."""
        boundary = self.node.boundary()
        for decision in self.plan.decide(self.now()):
            with boundary:
                self._carry_out(decision)
        self.reschedule()

    def reschedule(self) -> None:
        """Find out when something is due next, and tell."""
        deadlines = (self.plan.next_deadline, self.acknowledgements.next_deadline)
        self._due = min((deadline for deadline in deadlines if deadline is not None), default=None)
        self.on_deadline()

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, Pass):
            self._pass(decision)
            return
        # Its stream may have ended since it was decided.
        pull = self.streams.pulls.get(decision.peer)
        if pull is None:
            return
        if isinstance(decision, Start):
            pull.want(decision.want)
        else:
            pull.stop(decision.origin)

    def _pass(self, decision: Pass) -> None:
        origin, crc = decision.origin, decision.previous_header_crc
        state = self.node.log.planned_origins.get(origin, OriginState())
        with contextlib.suppress(LogReadOnly, LogClosed):  # then nothing is pulled, either
            Applier(self.node, self.node.hello.node_name).mark(
                origin, state.next, decision.to_sequence, crc, is_final=decision.is_final
            )
