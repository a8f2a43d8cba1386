"""User events and queries of this node: sent, asked and answered, within its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from proglog_trio.membership.core_access import CoreAccess
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.query_answers import QueryAnswers
from proglog_trio.membership.serf.open_queries import Listener, OpenQuery
from proglog_trio.membership.serf.query_answers import INTERNAL_PREFIX, check_filters
from proglog_trio.membership.serf.querying import Question
from proglog_trio.membership.wire.serf import MAX_FILTER_NAMES, MAX_FILTERS, Filter, NodeFilter, TagFilter

PING_QUERY = "_serf_ping"
"""The one query of Serf's own that users ask: all members acknowledge it, and nobody answers."""
MAX_QUERY_SECONDS = 86_400.0
MAX_RELAY_FACTOR = 255
"""What the wire can carry; members relay through fewer."""


@frozen(eq=False)
class Talking:
    """See the methods of these names of Membership.

    Attributes:
        gossip: owns the core.
    """

    gossip: CoreAccess

    def send_event(self, name: str, payload: bytes, *, coalesce: bool) -> None:
        """Send a user event to all members, this one among them."""
        limit = self.gossip.config.user_event_bytes
        self.gossip.act(lambda: self.gossip.core.fire(name, payload, coalesce=coalesce, max_bytes=limit))

    def query(
        self,
        name: str,
        payload: bytes,
        *,
        nodes: Sequence[str],
        tags: Mapping[str, str],
        timeout: float | None,
        relay_factor: int,
        acknowledge: bool,
    ) -> QueryAnswers:
        """Ask members, and return what gives their answers."""
        question = Question(
            name=_checked_name(name, payload),
            payload=payload,
            filters=_filters(nodes, tags),
            timeout=_checked_timeout(timeout),
            relay_factor=_checked_relay_factor(relay_factor),
            acknowledge=acknowledge,
            max_bytes=self.gossip.config.query_bytes,
        )
        answers = QueryAnswers()
        opened: list[OpenQuery] = []

        def close() -> None:
            for each in opened:
                self.gossip.core.querying.close(each)

        def ask() -> None:
            listener = Listener(answers.answered, answers.ended, answers.acknowledged)
            opened.append(self.gossip.core.querying.ask(question, listener))

        answers.closed_by(lambda: self.gossip.act(close))
        self.gossip.act(ask)
        return answers

    def answer(self, query: AskedQuery, payload: bytes) -> None:
        """Answer a query."""
        querying, limit = self.gossip.core.querying, self.gossip.config.query_response_bytes
        self.gossip.act(lambda: querying.answer(query.ltime, query.id, payload, limit))


def _checked_name(name: str, payload: bytes) -> str:
    if name.startswith(INTERNAL_PREFIX) and (name != PING_QUERY or payload):
        raise ValueError(f"the name of a query must not begin with {INTERNAL_PREFIX}: those are of Serf itself")
    return name


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not 0 < timeout <= MAX_QUERY_SECONDS:
        raise ValueError(f"a query's timeout must be more than 0 and at most {MAX_QUERY_SECONDS:g} s, not {timeout}")
    return timeout


def _checked_relay_factor(relay_factor: int) -> int:
    if not 0 <= relay_factor <= MAX_RELAY_FACTOR:
        raise ValueError(f"a relay factor must be 0 to {MAX_RELAY_FACTOR}, not {relay_factor}")
    return relay_factor


def _filters(nodes: Sequence[str], tags: Mapping[str, str]) -> tuple[Filter, ...]:
    """Return filters as agents make them: one of all names, and one of each tag; raises ValueError."""
    filters: list[Filter] = [TagFilter(tag=tag, expr=expression) for tag, expression in tags.items()]
    if nodes:
        filters.insert(0, NodeFilter(tuple(nodes)))
    if len(nodes) > MAX_FILTER_NAMES or len(filters) > MAX_FILTERS:
        raise ValueError(f"a query can name up to {MAX_FILTER_NAMES} nodes and {MAX_FILTERS - 1} tags")
    check_filters(filters)
    return tuple(filters)
