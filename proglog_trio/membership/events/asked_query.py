"""A query, as the program that may answer it sees it."""

from __future__ import annotations

import trio
from attrs import frozen

from proglog_trio.membership.wire.serf import Query


@frozen
class AskedQuery:
    """A query of some member that is for this node, to be answered with Membership.answer.

    Attributes:
        name: what is asked.
        payload: whatever goes with it.
        source: the name of the member that asks.
        ltime: its Lamport time.
        id: tells queries of one Lamport time apart.
        deadline: until when an answer is waited for, in seconds on Trio's clock.
    """

    name: str
    payload: bytes
    source: str
    ltime: int
    id: int
    deadline: float

    @classmethod
    def of(cls, query: Query) -> AskedQuery:
        """Return a query that has come just now."""
        deadline = trio.current_time() + query.timeout / 1e9
        return cls(query.name, query.payload, query.source_node, query.ltime, query.id, deadline)
