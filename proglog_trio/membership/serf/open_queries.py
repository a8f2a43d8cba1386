"""Queries of this node's own: who was asked, and who has answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from proglog_trio.errors import ProglogError
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.query_answers import CONFLICT_QUERY
from proglog_trio.membership.swim.timers import Timer
from proglog_trio.membership.wire.serf import RESPONSE_FLAG_ACK, Query, QueryResponse

MAX_QUERIES = 64
"""Own queries that are open at once, for as long as whoever asks likes; one about this node's name has room besides."""
MAX_HEARD = 16_384
"""Names that have answered one query, and again that have acknowledged it: as many as a cluster has members."""
_TIMEOUT_INTERVALS = 16


class TooManyQueries(ProglogError):
    """So many queries of this node wait for answers that there can be no other."""


def default_timeout(profile: GossipProfile, members: int) -> float:
    """Return for how long a query waits for answers, in seconds: gossip has reached all members long before."""
    return profile.gossip_interval * _TIMEOUT_INTERVALS * max(1, math.ceil(math.log10(members + 1)))


def _nothing(*_: object) -> None:
    pass


@frozen
class Listener:
    """Told what becomes of a query.

    Attributes:
        answered: called with each answer: the name of the member that gives it, and its payload. Each name comes once.
        ended: called once, when all have answered or are gone, or the time is over.
        acknowledged: called with the name of each member that has the query. Each comes once.
    """

    answered: Callable[[str, bytes], None]
    ended: Callable[[], None]
    acknowledged: Callable[[str], None] = _nothing


@define(eq=False)
class OpenQuery:
    """A query that waits for answers.

    Attributes:
        query: what was asked.
        listener: see there.
        expected: the names of the members that have not answered yet, and are there. Some for which the query turns
            out not to be may be among them at first.
        is_over: nothing is waited for any more.
    """

    query: Query
    listener: Listener
    expected: set[str]
    is_over: bool = False
    # What is to be done while it is open.
    _timers: list[Timer] = field(factory=list)
    _heard: set[str] = field(factory=set)
    _acknowledged: set[str] = field(factory=set)

    @property
    def is_done(self) -> bool:
        """Whether no answer can be waited for any more."""
        return not self.expected

    def has(self, *timers: Timer) -> None:
        """Have timers cancelled when it ends before them."""
        self._timers += timers

    def end(self) -> None:
        """Say that it is over."""
        self.is_over = True
        for timer in self._timers:
            timer.cancel()
        self.listener.ended()

    def receive(self, response: QueryResponse) -> None:
        """Count a response; those that were relayed come more than once."""
        name = response.from_node
        is_acknowledgement = bool(response.flags & RESPONSE_FLAG_ACK)
        heard = self._acknowledged if is_acknowledgement else self._heard
        if name in heard or len(heard) >= MAX_HEARD:
            return
        heard.add(name)
        if is_acknowledgement:
            self.listener.acknowledged(name)
        else:
            self.expected.discard(name)
            self.listener.answered(name, response.payload)


@define(eq=False)
class OpenQueries:
    """All of them, by Lamport time and id."""

    _open: dict[tuple[int, int], OpenQuery] = field(factory=dict)

    def add(self, query: Query, expected: Iterable[str], listener: Listener) -> OpenQuery:
        """Wait for answers to a query; raises TooManyQueries."""
        if len(self._open) >= MAX_QUERIES + (query.name == CONFLICT_QUERY):
            raise TooManyQueries(f"{MAX_QUERIES} queries of this node wait for answers already")
        opened = OpenQuery(query, listener, set(expected))
        self._open[query.ltime, query.id] = opened
        return opened

    def receive(self, response: QueryResponse) -> bool:
        """Count a response; tell whether it is one to an open query of this node."""
        opened = self._open.get((response.ltime, response.id))
        if opened is None:
            return False
        opened.receive(response)
        self.close_if_done(opened)
        return True

    def gone(self, name: str) -> None:
        """Wait for nothing of a member any longer."""
        for opened in list(self._open.values()):
            opened.expected.discard(name)
            self.close_if_done(opened)

    def close_all(self) -> None:
        """Wait for nothing any longer: no answer will come, and no time will pass."""
        for opened in list(self._open.values()):
            self.close(opened)

    def close_if_done(self, opened: OpenQuery) -> None:
        """Wait no longer if there is nothing to wait for."""
        if opened.is_done:
            self.close(opened)

    def close(self, opened: OpenQuery) -> None:
        """Wait no longer."""
        if self._open.pop((opened.query.ltime, opened.query.id), None) is not None:
            opened.end()
