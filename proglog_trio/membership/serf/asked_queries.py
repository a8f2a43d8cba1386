"""Queries of others' users that this node may answer: each once, and until its time is over."""

from __future__ import annotations

from attrs import define, evolve, field

from proglog_trio.errors import ProglogError
from proglog_trio.membership.swim.timers import Timer, Timers
from proglog_trio.membership.wire.serf import Query

MAX_ASKED = 1024
"""Queries that can be answered at one time; for one more, the oldest cannot be any longer."""


class QueryOver(ProglogError):
    """A query that cannot be answered: its time is over, or it was answered."""


@define(eq=False)
class AskedQueries:
    """Those that were neither answered nor are over, by Lamport time and id.

    Attributes:
        timers: end them.
    """

    timers: Timers
    _open: dict[tuple[int, int], tuple[Query, Timer]] = field(factory=dict)

    def add(self, query: Query) -> None:
        """Have a query answered from now on, for as long as it says."""
        key = (query.ltime, query.id)
        if len(self._open) >= MAX_ASKED:
            self._discard(next(iter(self._open)))
        timer = self.timers.after(query.timeout / 1e9, lambda: self._discard(key))
        # Without what may be large: an answer has nothing of it.
        self._open[key] = (evolve(query, name="", payload=b"", filters=()), timer)

    def get(self, ltime: int, id: int) -> Query:  # noqa: A002 - the protocol's name
        """Return a query that may be answered, without its name, payload and filters; raises QueryOver."""
        found = self._open.get((ltime, id))
        if found is None:
            raise QueryOver("the query's time is over, or it was answered already")
        return found[0]

    def answered(self, query: Query) -> None:
        """Count a query as answered."""
        self._discard((query.ltime, query.id))

    def _discard(self, key: tuple[int, int]) -> None:
        found = self._open.pop(key, None)
        if found is not None:
            found[1].cancel()
