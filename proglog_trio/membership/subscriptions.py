"""Subscriptions: what happens to members, user events and queries, for every part of a program that wants to know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import trio
from attrs import define, field

from proglog_trio.errors import ProglogError
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.event_bytes import payload_bytes
from proglog_trio.membership.serf.member import MemberEvent
from proglog_trio.membership.serf.members import together
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.wakeup import Wakeup

MAX_WAITING_EVENTS = 1024
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Of the payloads of user events and queries that wait for one subscriber; a node remembers events of half as many."""

Event = MemberEvent | UserEvent | AskedQuery

_logger = structlog.get_logger(__name__)


class EventsMissed(ProglogError):
    """A subscriber did not read its events fast enough; it should look at all members anew. User events are lost."""


@define(eq=False)
class _Subscription:
    send: trio.MemorySendChannel[Event]
    missed: bool = False
    # Of the payloads that wait in the channel.
    waiting_bytes: int = 0

    def has_room(self, event: Event) -> bool:
        """Tell whether an event may wait as well."""
        return self.waiting_bytes + payload_bytes(event) <= MAX_WAITING_BYTES


@define(eq=False)
class _Events:
    """The iterator of one subscription; no generator, since one that is left early wants to be closed by hand."""

    _subscription: _Subscription
    _receive: trio.MemoryReceiveChannel[Event]

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        try:
            event = await self._receive.receive()
        except trio.EndOfChannel:
            if self._subscription.missed:
                raise EventsMissed(
                    f"more than {MAX_WAITING_EVENTS} events waited, or {MAX_WAITING_BYTES} bytes of them"
                ) from None
            raise StopAsyncIteration from None
        self._subscription.waiting_bytes -= payload_bytes(event)
        return event


@define(eq=False)
class Subscriptions:
    """The subscriptions to one member's events.

    Attributes:
        errors: where it is counted that one could not be told.
    """

    errors: InternalErrors
    # Those that are told; one that missed an event is not among them any more.
    _open: set[_Subscription] = field(factory=set)
    # What no subscription was told of yet.
    _waiting: list[Event] = field(factory=list)
    _news: Wakeup = field(factory=Wakeup)
    _ended: bool = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Subscribe; see Membership.events."""
        send, receive = trio.open_memory_channel[Event](MAX_WAITING_EVENTS)
        subscription = _Subscription(send)
        self._open.add(subscription)
        if self._ended:
            send.close()
        try:
            async with receive:
                yield _Events(subscription, receive)
        finally:
            self._open.discard(subscription)

    def add(self, event: Event) -> None:
        """Have subscribers told of an event; events of members that come before they are told come together."""
        self._waiting.append(event)
        self._news.set()

    async def run(self) -> None:
        """Tell subscribers what is new, until cancelled; then call end."""
        turns = self.errors.turns(Where.MEMBERSHIP_SUBSCRIBER)
        while True:
            async with turns:
                await self._news.wait()
                self._news.clear()
                self._tell_what_waits()

    def end(self) -> None:
        """Tell what is left to tell, and end all iterators."""
        self._ended = True
        self._tell_what_waits()
        for subscription in self._open:
            subscription.send.close()

    def _tell_what_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        boundary = self.errors.boundary(Where.MEMBERSHIP_SUBSCRIBER)
        with boundary:
            self._tell(waiting)
        if boundary.failed:
            for subscription in list(self._open):
                self._miss(subscription)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in together(events):
            if isinstance(event, MemberEvent):
                _logger.info("members", happened=event.kind.value, names=[member.name for member in event.members])
            for subscription in list(self._open):
                self._tell_one(subscription, event)

    def _tell_one(self, subscription: _Subscription, event: Event) -> None:
        boundary = self.errors.boundary(Where.MEMBERSHIP_SUBSCRIBER)
        with boundary:
            try:
                if not subscription.has_room(event):
                    raise trio.WouldBlock
                subscription.send.send_nowait(event)
                subscription.waiting_bytes += payload_bytes(event)
            except trio.WouldBlock:
                self._miss(subscription)
            except trio.BrokenResourceError:
                self._open.discard(subscription)
        if boundary.failed:
            self._miss(subscription)

    def _miss(self, subscription: _Subscription) -> None:
        """End a subscription that was not told of everything, and have it say so."""
        subscription.missed = True
        self._open.discard(subscription)
        subscription.send.close()
