"""What this node has answered, until nobody waits for it any more: a packet may be lost, and be asked for again."""

from __future__ import annotations

from attrs import define, field

from proglog_trio.membership.swim.timers import Timer, Timers
from proglog_trio.membership.wire.serf import Query

MAX_GIVEN = 1024
"""Queries whose responses are kept at one time; for one more, those to the oldest are forgotten."""
MAX_GIVEN_BYTES = 1024 * 1024
"""Likewise, of their responses."""


@define(eq=False)
class _Given:
    # of the asker
    address: bytes
    port: int
    timer: Timer
    responses: list[bytes] = field(factory=list)


@define(eq=False)
class GivenAnswers:
    """The responses to queries of others, encoded, by Lamport time and id of the query.

    Attributes:
        timers: end them.
    """

    timers: Timers
    _given: dict[tuple[int, int], _Given] = field(factory=dict)
    _bytes: int = 0

    def add(self, query: Query, response: bytes) -> None:
        """Keep a response for as long as the query says that there is somebody who waits for it."""
        key = (query.ltime, query.id)
        given = self._given.get(key)
        if given is None:
            timer = self.timers.after(query.timeout / 1e9, lambda: self._forget(key))
            given = self._given[key] = _Given(query.addr, query.port, timer)
        given.responses.append(response)
        self._bytes += len(response)
        while len(self._given) > MAX_GIVEN or self._bytes > MAX_GIVEN_BYTES:
            self._forget(next(iter(self._given)))

    def again(self, query: Query) -> list[bytes]:
        """Return what was answered to a query that comes again, from the same asker; it is forgotten then.

        So nothing is sent more than twice, however often somebody asks.
        """
        given = self._given.get((query.ltime, query.id))
        if given is None or (given.address, given.port) != (query.addr, query.port):
            return []
        self._forget((query.ltime, query.id))
        return given.responses

    def _forget(self, key: tuple[int, int]) -> None:
        given = self._given.pop(key)
        given.timer.cancel()
        self._bytes -= sum(map(len, given.responses))
