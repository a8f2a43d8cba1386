"""A network and a clock in memory: everything that happens is an entry in one heap, and a seed replays it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from proglog_trio.membership.swim.node import Endpoint

RETRANSMISSION_SECONDS = 0.2
"""How long a stream waits before it sends a lost segment again; each further wait is twice as long."""
MAX_RETRANSMISSIONS = 6


@frozen(kw_only=True)
class Conditions:
    """What the network does to packets.

    Attributes:
        loss, duplication: shares of the packets.
        delay: the least and the most, in seconds.
        reordering: the share of packets that take reordering_delay longer, and so arrive after later ones.
        reordering_delay: in seconds.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay: tuple[float, float] = (0.0005, 0.002)
    reordering: float = 0.0
    reordering_delay: float = 0.3


PERFECT = Conditions()


@define
class Traffic:
    """What was sent."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    streams: int = 0
    state_exchanges: int = 0


@define(eq=False)
class Network:
    """Delivers packets and stream messages, later or never.

    Attributes:
        rng: decides on loss, duplication and delay.
        conditions: see there; may change at any time.
        now: in seconds.
        traffic: counts.
        distance: how long anything takes from one place to another, in seconds, beside what the conditions say; None:
            no longer.
    """

    rng: random.Random
    conditions: Conditions = PERFECT
    now: float = 0.0
    traffic: Traffic = field(factory=Traffic)
    distance: Callable[[Endpoint, Endpoint], float] | None = None
    _heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = field(factory=list)
    _number: int = 0
    _blocked: set[tuple[Endpoint, Endpoint]] = field(factory=set)

    # -- time ----------------------------------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[..., None], *arguments: object) -> None:
        """Do something at a time; what is set for the same time is done in the order in which it was set."""
        self._number += 1
        heapq.heappush(self._heap, (max(time, self.now), self._number, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Do something after a while."""
        self.at(self.now + seconds, action, *arguments)

    def run(self, until: float) -> None:
        """Let time pass."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            action(*arguments)
        self.now = max(self.now, until)

    # -- partitions ----------------------------------------------------------------------------------------------------

    def block(self, sources: Iterable[Endpoint], targets: Iterable[Endpoint]) -> None:
        """Let nothing through from sources to targets; the other direction is as it was."""
        targets = list(targets)
        self._blocked |= {(source, target) for source in sources for target in targets}

    def heal(self) -> None:
        """End all partitions."""
        self._blocked.clear()

    @property
    def is_whole(self) -> bool:
        """Whether no partition stands."""
        return not self._blocked

    def reaches(self, source: Endpoint, target: Endpoint) -> bool:
        """Tell whether anything gets from one to the other."""
        return (source, target) not in self._blocked

    # -- delivery ------------------------------------------------------------------------------------------------------

    def _delay(self, source: Endpoint, target: Endpoint) -> float:
        conditions = self.conditions
        low, high = conditions.delay
        delay = low + (high - low) * self.rng.random()
        if conditions.reordering and self.rng.random() < conditions.reordering:
            delay += conditions.reordering_delay * self.rng.random()
        return delay if self.distance is None else delay + self.distance(source, target)

    def send(self, source: Endpoint, target: Endpoint, size: int, deliver: Callable[..., None], *rest: object) -> None:
        """Send a packet: deliver is called for each copy that arrives."""
        conditions, traffic = self.conditions, self.traffic
        traffic.packets += 1
        traffic.bytes += size
        if not self.reaches(source, target) or (conditions.loss and self.rng.random() < conditions.loss):
            traffic.lost += 1
            return
        self.after(self._delay(source, target), deliver, *rest)
        if conditions.duplication and self.rng.random() < conditions.duplication:
            self.after(self._delay(source, target), deliver, *rest)

    def stream(self, source: Endpoint, target: Endpoint, deliver: Callable[..., None], *rest: object) -> None:
        """Send one direction of a stream: what is lost is sent again, until a partition or too much loss ends it."""
        delay = self._delay(source, target)
        for attempt in range(MAX_RETRANSMISSIONS):
            if not self.conditions.loss or self.rng.random() >= self.conditions.loss:
                break
            delay += RETRANSMISSION_SECONDS * 2**attempt
        else:
            return

        def arrive() -> None:
            if self.reaches(source, target):
                deliver(*rest)

        if self.reaches(source, target):
            self.after(delay, arrive)
