"""Queries of this node's own: who was asked, and who has answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from attrs import define, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.wire.serf import Query, QueryResponse

MAX_QUERIES = 64
"""Own queries that are open at once."""
_TIMEOUT_INTERVALS = 16


class TooManyQueries(Exception):
    """So many queries of this node wait for answers that there can be no other."""


def default_timeout(profile: GossipProfile, members: int) -> float:
    """Return for how long a query waits for answers, in seconds: gossip has reached all members long before."""
    return profile.gossip_interval * _TIMEOUT_INTERVALS * max(1, math.ceil(math.log10(members + 1)))


@define(eq=False)
class OpenQuery:
    """A query that waits for answers.

    Attributes:
        query: what was asked.
        expected: the names of the members that have not answered yet.
        answered: called with each answer: the name of the member that gives it, and its payload. Each name comes once.
        ended: called once, when all have answered or the time is over.
    """

    query: Query
    expected: set[str]
    answered: Callable[[str, bytes], None]
    ended: Callable[[], None]
    _heard: set[str] = field(factory=set)

    def receive(self, response: QueryResponse) -> None:
        """Count an answer; those that were relayed come more than once."""
        if response.from_node in self._heard:
            return
        self._heard.add(response.from_node)
        self.expected.discard(response.from_node)
        self.answered(response.from_node, response.payload)


@define(eq=False)
class OpenQueries:
    """All of them, by Lamport time and id."""

    _open: dict[tuple[int, int], OpenQuery] = field(factory=dict)

    def add(
        self,
        query: Query,
        expected: Iterable[str],
        answered: Callable[[str, bytes], None],
        ended: Callable[[], None],
    ) -> OpenQuery:
        """Wait for answers to a query; raises TooManyQueries."""
        if len(self._open) >= MAX_QUERIES:
            raise TooManyQueries(f"{MAX_QUERIES} queries of this node wait for answers already")
        opened = OpenQuery(query, set(expected), answered, ended)
        self._open[query.ltime, query.id] = opened
        return opened

    def receive(self, response: QueryResponse) -> bool:
        """Count an answer; tell whether it is one to an open query of this node."""
        opened = self._open.get((response.ltime, response.id))
        if opened is None:
            return False
        if not response.flags:  # an acknowledgement says nothing
            opened.receive(response)
            if not opened.expected:
                self.close(opened)
        return True

    def close_all(self) -> None:
        """Wait for nothing any longer: no answer will come, and no time will pass."""
        for opened in list(self._open.values()):
            self.close(opened)

    def close(self, opened: OpenQuery) -> None:
        """Wait no longer."""
        if self._open.pop((opened.query.ltime, opened.query.id), None) is not None:
            opened.ended()
