"""Has handlers run for what happens in the cluster, within bounds.

```
EventHandlers.run
├── subscription   gives each event to the handlers that want it
├── handler        one task each: runs it for one event after the other, in their order
└── query          one task each: runs a handler for it, beside all else, and answers
```

A handler that hangs keeps nobody waiting but its own later events, and is killed after a while. Queries do not wait for
events at all, since who asks does not wait for long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import structlog
import trio
from attrs import define, field
from attrs.validators import max_len

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.event_handlers.event_filter import passes_any
from proglog_trio.membership.event_handlers.event_handler import EventHandler
from proglog_trio.membership.event_handlers.script_input import name_of, standard_input, type_of, variables
from proglog_trio.membership.event_handlers.script_run import ScriptFailed, run_script
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.coalescing import Event, coalesced
from proglog_trio.membership.events.event_bytes import payload_bytes
from proglog_trio.membership.membership import Membership, NotAMember
from proglog_trio.membership.serf.asked_queries import QueryOver
from proglog_trio.membership.serf.limits import MessageTooLarge
from proglog_trio.membership.subscriptions import EventsMissed
from proglog_trio.repetition import Repetitions

MAX_HANDLERS = 64
MAX_QUERIES_AT_ONCE = 8
"""For which one handler runs; others wait."""
MAX_WAITING_EVENTS = 1024
"""For one handler; further ones are not handled by it, which is logged."""
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Likewise, of their names and payloads."""
MAX_WAITING_QUERIES = 64
"""For one handler, those that it runs for among them; further ones are not answered by it, which is logged."""
DEFAULT_SECONDS = 60.0
"""How long a handler may run."""
LOGGED_OUTPUT_BYTES = 1024
"""Of the end of what a failing script wrote."""
LOGGED_NAME_CHARACTERS = 200
"""Of the name of an event or a query: whoever can gossip decides how long it is."""

_logger = structlog.get_logger(__name__)


@define
class EventHandlerCounters:
    """What became of events since handlers run.

    Attributes:
        handled: runs that ended well.
        failed: runs that did not, the killed among them.
        not_handled: events and queries that too many others were waiting before.
    """

    handled: int = 0
    failed: int = 0
    not_handled: int = 0


@define(eq=False)
class _Queue:
    """What waits for a handler: nothing that waits for another has to wait for it."""

    handler: EventHandler
    answering: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MAX_QUERIES_AT_ONCE))
    queries: int = 0
    _send: trio.MemorySendChannel[Event] = field(init=False)
    _receive: trio.MemoryReceiveChannel[Event] = field(init=False)
    _waiting_bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(MAX_WAITING_EVENTS)

    def add(self, event: Event) -> bool:
        """Have an event wait as well; tell whether there is room for it."""
        size = payload_bytes(event)
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            return False
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            return False
        self._waiting_bytes += size
        return True

    async def next(self) -> Event:
        """Return the event whose turn it is."""
        event = await self._receive.receive()
        self._waiting_bytes -= payload_bytes(event)
        return event


@define(eq=False)
class EventHandlers:
    """See the module.

    Attributes:
        membership: of this node.
        handlers: what is run.
        seconds: how long each may run.
        errors: where unforeseen errors are counted.
        environment: the variables that scripts have besides those of the event; this process's, unless others are
            given.
        counters: see EventHandlerCounters.
    """

    membership: Membership
    handlers: Sequence[EventHandler] = field(validator=max_len(MAX_HANDLERS))
    seconds: float = DEFAULT_SECONDS
    errors: InternalErrors = field(factory=InternalErrors)
    environment: Mapping[str, str] = field(factory=lambda: dict(os.environ), repr=False)
    counters: EventHandlerCounters = field(factory=EventHandlerCounters)
    _told: Repetitions = field(factory=Repetitions)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run handlers until cancelled or this node is no member any more; then those that run are ended.

        Args:
            task_status: started once no event is missed.
        """
        async with trio.open_nursery() as nursery:
            queues = [_Queue(handler) for handler in self.handlers]
            for queue in queues:
                nursery.start_soon(self._run_in_order, queue)
            started: Callable[[], None] = task_status.started
            while True:
                try:
                    async with self.membership.events() as events:
                        started()
                        started = _nothing
                        async for event in coalesced(events):
                            with self.errors.boundary(Where.EVENT_HANDLER):
                                self._give(event, queues, nursery)
                            # Many may come at once.
                            await trio.lowlevel.checkpoint()
                except EventsMissed as error:
                    _logger.error("events were not handled", reason=str(error))
                else:
                    break
            nursery.cancel_scope.cancel()

    def _give(self, event: Event, queues: Sequence[_Queue], nursery: trio.Nursery) -> None:
        type_, name = type_of(event), name_of(event)
        for queue in queues:
            if not passes_any(queue.handler.filters, type_, name):
                continue
            if not isinstance(event, AskedQuery):
                if not queue.add(event):
                    self._left_out(queue.handler, event)
            elif queue.queries < MAX_WAITING_QUERIES:
                queue.queries += 1
                nursery.start_soon(self._answer, queue, event)
            else:
                self._left_out(queue.handler, event)

    def _left_out(self, handler: EventHandler, event: Event) -> None:
        self.counters.not_handled += 1
        # Others decide how many there are.
        repeated = self._told.news((handler.called, type_of(event)))
        if repeated is not None:
            _logger.warning(
                "an event is not handled: too much waits for its handler",
                handler=handler.called,
                happened=type_of(event),
                name=_logged_name(event),
                repeated=repeated,
            )

    async def _run_in_order(self, queue: _Queue) -> None:
        while True:
            await self._handle(queue.handler, await queue.next())

    async def _answer(self, queue: _Queue, query: AskedQuery) -> None:
        try:
            # Who asks does not wait for longer.
            with trio.move_on_at(query.deadline) as scope:
                await queue.answering.acquire()
            if scope.cancelled_caught:
                self._left_out(queue.handler, query)
                return
            try:
                answer = await self._handle(queue.handler, query)
            finally:
                queue.answering.release()
        finally:
            queue.queries -= 1
        if answer is None:
            return
        # What a program's own handler returns may be anything.
        with self.errors.boundary(Where.EVENT_HANDLER, handler=queue.handler.called):
            try:
                self.membership.answer(query, answer)
            except (QueryOver, MessageTooLarge, NotAMember) as error:
                _logger.warning(
                    "a query is not answered",
                    handler=queue.handler.called,
                    query=_logged_name(query),
                    reason=str(error),
                )

    async def _handle(self, handler: EventHandler, event: Event) -> bytes | None:
        """Run a handler for an event; return what it answers."""
        answer: bytes | None = None
        boundary = self.errors.boundary(Where.EVENT_HANDLER, handler=handler.called)
        with boundary:
            try:
                if isinstance(handler.action, str):
                    answer = await self._run_script(handler.action, event)
                else:
                    with trio.fail_after(self.seconds):
                        answer = await handler.action(event)
                self.counters.handled += 1
            except (ScriptFailed, trio.TooSlowError) as error:
                self.counters.failed += 1
                self._tell(handler, event, error)
        self.counters.failed += boundary.failed
        return answer

    async def _run_script(self, script: str, event: Event) -> bytes | None:
        me = self.membership.member(self.membership.name)
        tags = {} if me is None else me.tags
        environment = {**self.environment, **variables(event, self.membership.name, tags)}
        output = await run_script(script, environment, standard_input(event), self.seconds)
        return output.end or None

    def _tell(self, handler: EventHandler, event: Event, error: ScriptFailed | trio.TooSlowError) -> None:
        output = error.output[-LOGGED_OUTPUT_BYTES:] if isinstance(error, ScriptFailed) else b""
        _logger.warning(
            "an event handler failed",
            handler=handler.called,
            happened=type_of(event),
            name=_logged_name(event),
            reason=str(error) or f"it took more than {self.seconds:g} s",
            output=output.decode("utf-8", "replace"),
        )


def _logged_name(event: Event) -> str | None:
    name = name_of(event)
    return None if name is None else name[:LOGGED_NAME_CHARACTERS]


def _nothing() -> None:
    """Do nothing."""
