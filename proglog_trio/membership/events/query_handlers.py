"""Handlers of queries: functions by the name of the query, whose results are the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio
from attrs import define, field

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.serf.asked_queries import QueryOver
from proglog_trio.membership.serf.limits import MessageTooLarge

MAX_HANDLED = 64
"""Queries that are handled at once, of all names; beyond that they are not answered, and counted."""

QueryHandler = Callable[[AskedQuery], Awaitable[bytes | None]]
"""Called with each query of a name; what it returns is the answer, None: there is none."""

_logger = structlog.get_logger(__name__)


@define
class QueryCounters:
    """What became of the queries for which there are handlers.

    Attributes:
        answered: the handler has answered.
        unanswered: it did not want to, it failed, it took too long, or its answer could not be sent.
        dropped: it was not called, since too many queries were being handled.
    """

    answered: int = 0
    unanswered: int = 0
    dropped: int = 0


@define(eq=False)
class QueryHandlers:
    """Calls the handlers of one member, each in a task of its own that is cancelled when the query's time is over.

    Attributes:
        by_name: the handlers.
        errors: where errors of handlers are counted.
        counters: see there.
    """

    by_name: Mapping[str, QueryHandler]
    errors: InternalErrors
    counters: QueryCounters = field(factory=QueryCounters)
    _running: int = 0
    # Of run; None: it does not run.
    _nursery: trio.Nursery | None = None
    _answer: Callable[[AskedQuery, bytes], None] | None = None

    async def run(
        self,
        answer: Callable[[AskedQuery, bytes], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Call handlers until cancelled; answer: answers a query."""
        self._answer = answer
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def note(self, query: AskedQuery) -> None:
        """Have a query handled, if there is a handler for it."""
        handler = self.by_name.get(query.name)
        if handler is None or self._nursery is None:
            return
        if self._running >= MAX_HANDLED:
            self.counters.dropped += 1
            _logger.debug("a query is not handled: too many are", query=query.name, source=query.source)
            return
        self._running += 1
        self._nursery.start_soon(self._handle, handler, query)

    async def _handle(self, handler: QueryHandler, query: AskedQuery) -> None:
        is_answered = False
        try:
            with self.errors.boundary(Where.MEMBERSHIP_QUERY, query=query.name, source=query.source):
                is_answered = await self._answered(handler, query)
        finally:
            self._running -= 1
            self.counters.answered += is_answered
            self.counters.unanswered += not is_answered

    async def _answered(self, handler: QueryHandler, query: AskedQuery) -> bool:
        payload = None
        with trio.CancelScope(deadline=query.deadline) as scope:
            payload = await handler(query)
        if scope.cancelled_caught:
            _logger.warning("a query was not answered in time", query=query.name, source=query.source)
        if payload is None or self._answer is None:
            return False
        try:
            self._answer(query, payload)
        except (QueryOver, MessageTooLarge) as error:
            _logger.warning("a query was not answered", query=query.name, source=query.source, reason=str(error))
            return False
        return True
