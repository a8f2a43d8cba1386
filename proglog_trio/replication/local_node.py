"""This node, as all parts of its replica know it: its log, what it says of itself, and where things are counted."""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, evolve

from proglog_trio.internal_errors import Boundary, InternalErrors, Where
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.log import Log
from proglog_trio.replication.events import ReplicationCounters, ReplicationEvent
from proglog_trio.replication.messages import Hello


@define(eq=False, repr=False)
class LocalNode:
    """This node.

    Attributes:
        log: its own.
        hello: what it says of itself. Only its opening changes, and only upwards; see Replica.reopened.
        clock: seconds, monotonic; goes on while the process is stopped.
        on_event: is told what happens, after it was counted.
        counters: of what replication does here.
        errors: where unforeseen errors of one session, origin or decision are counted.
    """

    log: Log
    hello: Hello
    clock: Callable[[], float]
    on_event: Callable[[ReplicationEvent], None]
    counters: ReplicationCounters = Factory(ReplicationCounters)
    errors: InternalErrors = Factory(InternalErrors)

    @property
    def writing(self) -> Origin | None:
        """The origin under which this node appends; None before its first append, or that is durable."""
        return self.log.own_origin

    def emit(self, event: ReplicationEvent) -> None:
        """Count an event and tell of it."""
        self.counters.count(event)
        self.on_event(event)

    def reopened(self, opened: int) -> None:
        """Count this node's directory as opened again, by a number that is greater than before."""
        self.hello = evolve(self.hello, opened=opened)

    def boundary(self) -> Boundary:
        """Return a context manager that keeps what goes wrong with one session, origin or decision to it."""
        return self.errors.boundary(Where.REPLICATION)
