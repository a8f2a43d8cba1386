"""Produces that wait until more nodes than this one have their records on disk."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterator

from attrs import Factory, define, frozen

from proglog_trio.log.format.origin import Origin


@frozen
class AcknowledgementResult:
    """How many nodes have the records on disk, and whether that is what was asked for."""

    nodes: int
    reached: bool


LEAST_SETTLED_TO_SWEEP = 64
"""Up to so many settled waits keep their place until their time comes, whatever else there is."""

Done = Callable[[AcknowledgementResult], None]


@define(eq=False)
class _Waiting:
    origin: Origin
    first: int
    following: int
    wanted: int
    done: Done
    settled: bool = False


@define
class Acknowledgements:
    """The produces that wait. Bounded by what produce streams may have in flight.

    Attributes:
        count: returns how many other nodes have the sequences [first, following) of an origin.
    """

    count: Callable[[Origin, int, int], int]
    # None of them is settled, between calls.
    _waiting: dict[Origin, list[_Waiting]] = Factory(dict)
    # A heap, by deadline, then by number: waits have no order of their own. Those that are settled stay in it until
    # they are first in it or more than half of it.
    _deadlines: list[tuple[float, int, _Waiting]] = Factory(list)
    _numbers: Iterator[int] = Factory(itertools.count)
    _ended: bool = False
    # Of those in _deadlines so many are settled.
    _settled: int = 0

    @property
    def next_deadline(self) -> float | None:
        """When the next wait ends unreached."""
        while self._deadlines and self._deadlines[0][2].settled:
            heapq.heappop(self._deadlines)
            self._settled -= 1
        return self._deadlines[0][0] if self._deadlines else None

    @property
    def waiting(self) -> int:
        """How many produces wait."""
        return sum(map(len, self._waiting.values()))

    def wait(self, origin: Origin, first: int, following: int, wanted: int, deadline: float, done: Done) -> None:
        """Call done once so many nodes, this one included, have the sequences [first, following), or when time is up.

        The records are durable here already. After end_all it is called at once, with what is achieved.
        """
        waiting = _Waiting(origin, first, following, wanted, done)
        nodes = self._nodes_with(waiting)
        if nodes >= wanted or self._ended:
            done(AcknowledgementResult(nodes, nodes >= wanted))
            return
        self._waiting.setdefault(origin, []).append(waiting)
        heapq.heappush(self._deadlines, (deadline, next(self._numbers), waiting))

    def held_more(self, origins: Collection[Origin]) -> None:
        """End the waits that are reached by now: a node has more of these origins."""
        for origin in origins:
            for each in self._waiting.get(origin, ()):
                nodes = self._nodes_with(each)
                if nodes >= each.wanted:
                    self._settle(each, nodes, reached=True)
            self._drop_settled(origin)

    def advance(self, now: float) -> None:
        """End the waits whose time is up: what was achieved is said, and that it was not enough."""
        expired: set[Origin] = set()
        while (deadline := self.next_deadline) is not None and deadline <= now:
            waiting = self._deadlines[0][2]  # the next look at the deadlines takes it out
            self._settle(waiting, self._nodes_with(waiting), reached=False)
            expired.add(waiting.origin)
        for origin in expired:
            self._drop_settled(origin)

    def end_all(self) -> None:
        """End all waits, and all that come: the node stops, and nothing would end them."""
        self._ended = True
        for waiting in itertools.chain.from_iterable(self._waiting.values()):
            self._settle(waiting, self._nodes_with(waiting), reached=False)
        self._waiting.clear()
        self._deadlines.clear()
        self._settled = 0

    def _nodes_with(self, waiting: _Waiting) -> int:
        return 1 + self.count(waiting.origin, waiting.first, waiting.following)

    def _settle(self, waiting: _Waiting, nodes: int, *, reached: bool) -> None:
        waiting.settled = True
        self._settled += 1
        if self._settled > LEAST_SETTLED_TO_SWEEP and self._settled > len(self._deadlines) // 2:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].settled]
            heapq.heapify(self._deadlines)
            self._settled = 0
        waiting.done(AcknowledgementResult(nodes, reached))

    def _drop_settled(self, origin: Origin) -> None:
        left = [each for each in self._waiting.pop(origin, ()) if not each.settled]
        if left:
            self._waiting[origin] = left
