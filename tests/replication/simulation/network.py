"""Time and streams in memory: everything that happens is an entry in one heap, and a seed replays it."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable

from attrs import Factory, define

KEEPALIVE_SECONDS = 8.0
"""A stream over a cut link, or to a process that does not answer, breaks after so long."""


@define(eq=False, repr=False)
class Network:
    """The clock, and which hosts reach which."""

    rng: random.Random
    now: float = 0.0
    delay: tuple[float, float] = (0.0005, 0.003)
    _heap: list[tuple[float, int, Callable[[], None]]] = Factory(list)
    _number: int = 0
    _blocked: dict[tuple[str, str], float] = Factory(dict)
    streams: list[Stream] = Factory(list)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (self.now + max(seconds, 0.0), self._number, action))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = until

    def block(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        targets = list(targets)
        for source in sources:
            for target in targets:
                if source != target:
                    self._blocked.setdefault((source, target), self.now)

    def heal(self) -> None:
        self._blocked.clear()
        for stream in list(self.streams):
            stream.pump()

    def reaches(self, source: str, target: str) -> bool:
        return (source, target) not in self._blocked

    def cut_for(self, one: str, other: str) -> float:
        """Return for how long one of the directions has been cut."""
        since = [self._blocked[pair] for pair in ((one, other), (other, one)) if pair in self._blocked]
        return self.now - min(since) if since else 0.0

    def random_delay(self) -> float:
        return self.rng.uniform(*self.delay)


@define(eq=False, repr=False)
class _End:
    """One direction: what was sent and has not arrived."""

    source: str
    target: str
    waiting: deque[tuple[float, Callable[[], None]]] = Factory(deque)
    is_scheduled: bool = False


@define(eq=False, repr=False)
class Stream:
    """A connection: both directions deliver in order, late over a cut link, and nothing once it is broken."""

    network: Network
    ends: tuple[_End, _End]
    on_broken: tuple[Callable[[], None], Callable[[], None]]
    is_paused: Callable[[str], bool]
    is_broken: bool = False
    stuck_since: float | None = None

    @classmethod
    def open(
        cls,
        network: Network,
        dialler: str,
        server: str,
        on_broken: tuple[Callable[[], None], Callable[[], None]],
        is_paused: Callable[[str], bool],
    ) -> Stream:
        stream = cls(network, (_End(dialler, server), _End(server, dialler)), on_broken, is_paused)
        network.streams.append(stream)
        stream._check_alive()
        return stream

    def send(self, from_dialler: bool, deliver: Callable[[], None]) -> None:
        end = self.ends[0 if from_dialler else 1]
        end.waiting.append((self.network.now + self.network.random_delay(), deliver))
        self._schedule(end)

    def in_flight(self, from_dialler: bool) -> int:
        return len(self.ends[0 if from_dialler else 1].waiting)

    def pump(self) -> None:
        for end in self.ends:
            self._schedule(end)

    def _schedule(self, end: _End) -> None:
        if end.is_scheduled or not end.waiting or self.is_broken:
            return
        end.is_scheduled = True
        self.network.after(end.waiting[0][0] - self.network.now, lambda: self._arrive(end))

    def _arrive(self, end: _End) -> None:
        end.is_scheduled = False
        if self.is_broken or not end.waiting or not self._flows(end):
            return  # pump goes on
        _, deliver = end.waiting.popleft()
        deliver()
        self._schedule(end)

    def _flows(self, end: _End) -> bool:
        return self.network.reaches(end.source, end.target) and not self.is_paused(end.target)

    def _check_alive(self) -> None:
        """Keepalive: both directions have to flow."""
        if self.is_broken:
            return
        if all(self._flows(end) for end in self.ends):
            self.stuck_since = None
        elif self.stuck_since is None:
            self.stuck_since = self.network.now
        elif self.network.now - self.stuck_since >= KEEPALIVE_SECONDS:
            self.break_off()
            return
        self.network.after(1.0, self._check_alive)

    def break_off(self) -> None:
        """End the stream; what was under way is lost. Both ends hear of it."""
        if self.is_broken:
            return
        self.is_broken = True
        self.network.streams.remove(self)
        for end in self.ends:
            end.waiting.clear()
        for tell in self.on_broken:
            tell()
