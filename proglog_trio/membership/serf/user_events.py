"""User events: what members broadcast to each other, each delivered and passed on once.

In what order events are delivered is a matter of the network, with agents as well; what is promised is that an event
which is fired by a member that has heard of another has a higher Lamport time than that. Those that come together, in a
push/pull, are delivered in Lamport order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field, frozen

from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.limits import check_size
from proglog_trio.membership.serf.seen import RecentRing
from proglog_trio.membership.wire import serf as wire

EVENT_OVERHEAD_BYTES = 256
"""What an event that is remembered counts for besides its name and payload: it bounds how many there are."""


@frozen
class UserEvent:
    """An event that a user of some member has fired.

    Attributes:
        name: what is called what.
        payload: whatever goes with it.
        ltime: its Lamport time: an event that was fired by a member which knew of another has a higher one.
        coalesce: of several with this name that come together, the newest may stand for all. False for one that was
            learned in a push/pull, which does not say.
    """

    name: str
    payload: bytes
    ltime: int
    coalesce: bool


def _event_bytes(event: tuple[str, bytes]) -> int:
    name, payload = event
    return len(name) + len(payload) + EVENT_OVERHEAD_BYTES


@define(eq=False)
class UserEvents:
    """The user events that were heard of lately.

    Attributes:
        clock: of events; it is above the time of each event that was heard of.
        deliver: called with each event, once.
        recent: name and payload of each, by Lamport time.
        awaited_histories: exchanges under way, of a node that was alone, of which the first that succeeds says which
            events are history to it. Until then it takes none that is gossiped: the member that it joins gossips to it
            as soon as it has its state, before its answer is here. What is no history comes again.
    """

    clock: LamportClock
    deliver: Callable[[UserEvent], None]
    recent: RecentRing[tuple[str, bytes]] = field(factory=lambda: RecentRing(_event_bytes))
    awaited_histories: int = 0

    def fire(self, name: str, payload: bytes, *, coalesce: bool, max_bytes: int) -> bytes:
        """Deliver an event of this node's here; return its bytes, to be broadcast.

        Args:
            name: of the event.
            payload: with it.
            coalesce: see UserEvent.
            max_bytes: the most that name and payload may have, and again the encoded event.

        Raises:
            MessageTooLarge: it has more.
        """
        check_size("a user event", len(name.encode("utf-8", "surrogateescape")) + len(payload), max_bytes)
        event = wire.UserEvent(ltime=self.clock.time, name=name, payload=payload, cc=coalesce)
        encoded = wire.encode_serf(event)
        check_size("an encoded user event", len(encoded), max_bytes)
        self.receive(event.ltime, name, payload, coalesce=coalesce)
        return encoded

    def receive(self, ltime: int, name: str, payload: bytes, *, coalesce: bool = False) -> bool:
        """Deliver and remember an event; tell whether it is new, and so to be passed on."""
        # First: what is old is judged by a clock that knows of this very event.
        self.clock.witness(ltime)
        if not self.recent.add(ltime, (name, payload), self.clock.time):
            return False
        self.deliver(UserEvent(name, payload, ltime, coalesce))
        return True

    def ignore_before(self, ltime: int) -> None:
        """Count events from before a Lamport time as seen: they are history to a node that joins."""
        self.recent.lowest = max(self.recent.lowest, ltime)
        self.awaited_histories = 0

    @contextmanager
    def awaiting_history(self) -> Iterator[None]:
        """Take no event that is gossiped until the block ends, or it is known which are history."""
        self.awaited_histories += 1
        try:
            yield
        finally:
            self.awaited_histories = max(self.awaited_histories - 1, 0)

    def items(self) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
        """Yield each Lamport time of which events are remembered, with name and payload of each."""
        return self.recent.items()
