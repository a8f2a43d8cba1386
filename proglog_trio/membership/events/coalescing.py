"""Coalescing: of much that happens at once, what counts in the end; as Serf's agents do for their event handlers.

Events of members wait until none has come for a while, or until the first has waited for long enough; then each member
is told of with what happened to it last, and those to whom the same happened are in one event. User events that may be
coalesced wait likewise, and of those of one name the newest, by Lamport time, are told. All else is told at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import islice

import trio
from attrs import define, field

from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.event_bytes import payload_bytes
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind
from proglog_trio.membership.serf.user_events import UserEvent

DEFAULT_COALESCE_SECONDS = 3.0
DEFAULT_QUIESCENT_SECONDS = 1.0
MAX_WAITING_EVENTS = 1024
MAX_WAITING_BYTES = 4 * 1024 * 1024
"""User events that wait, and their names and payloads together; with more, all are told before their time."""

MEMBERS_AT_ONCE = 1024
"""That are told of in one piece, some milliseconds' worth; of more, others have turns in between."""

Event = MemberEvent | UserEvent | AskedQuery


@define
class _Waiting:
    """When what waits is to be told.

    Attributes:
        longest: what came first is told after so many seconds, whatever comes meanwhile.
        quiet: all is told when nothing has come for so many seconds.
    """

    longest: float
    quiet: float
    _first: float = math.inf
    _last: float = math.inf

    def came(self, now: float) -> None:
        self._first = min(self._first, now)
        self._last = now

    def told(self) -> None:
        self._first = self._last = math.inf

    @property
    def deadline(self) -> float:
        return min(self._first + self.longest, self._last + self.quiet)


@define(eq=False)
class Coalescing:
    """Coalesces events; it reads no clock.

    Attributes:
        coalesce_seconds: the longest that events of members wait.
        quiescent_seconds: they wait no longer when so much time has passed without any.
        user_coalesce_seconds, user_quiescent_seconds: likewise of user events.
    """

    coalesce_seconds: float = DEFAULT_COALESCE_SECONDS
    quiescent_seconds: float = DEFAULT_QUIESCENT_SECONDS
    user_coalesce_seconds: float = DEFAULT_COALESCE_SECONDS
    user_quiescent_seconds: float = DEFAULT_QUIESCENT_SECONDS
    _members: dict[str, tuple[MemberEventKind, Member]] = field(factory=dict)
    # What was told last of each member that is not forgotten, and of which member it was.
    _told: dict[str, tuple[MemberEventKind, Member]] = field(factory=dict)
    _users: dict[str, list[UserEvent]] = field(factory=dict)
    _users_count: int = 0
    _users_bytes: int = 0
    _members_wait: _Waiting = field(init=False)
    _users_wait: _Waiting = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._members_wait = _Waiting(self.coalesce_seconds, self.quiescent_seconds)
        self._users_wait = _Waiting(self.user_coalesce_seconds, self.user_quiescent_seconds)

    @property
    def deadline(self) -> float:
        """When due should be called; infinite while nothing waits."""
        return min(self._members_wait.deadline, self._users_wait.deadline)

    def add(self, event: Event, now: float) -> list[Event]:
        """Take an event; return what is to be told at once.

        Args:
            event: what has happened.
            now: the time in seconds; any clock that never goes back.
        """
        if isinstance(event, MemberEvent):
            for member in event.members:
                self._members[member.name] = event.kind, member
            self._members_wait.came(now)
            return []
        if isinstance(event, UserEvent) and event.coalesce:
            self._add_user_event(event)
            self._users_wait.came(now)
            if self._users_count > MAX_WAITING_EVENTS or self._users_bytes > MAX_WAITING_BYTES:
                return self._flush_user_events()
            return []
        return [event]

    def due(self, now: float) -> list[Event]:
        """Return what has waited for long enough; of very many members some, and the rest is due at once."""
        events: list[Event] = []
        if self._members_wait.deadline <= now:
            events += self._flush_members()
        if self._users_wait.deadline <= now:
            events += self._flush_user_events()
        return events

    def flush(self) -> list[Event]:
        """Return all that waits; of very many members some: to be called until there is nothing."""
        return [*self._flush_members(), *self._flush_user_events()]

    @property
    def waits(self) -> bool:
        """Whether anything does."""
        return bool(self._members or self._users)

    def _add_user_event(self, event: UserEvent) -> None:
        newest = self._users.get(event.name)
        if newest is not None and newest[0].ltime > event.ltime:
            return
        if newest is not None and newest[0].ltime < event.ltime:
            self._forget(newest)
            newest = None
        if newest is None:
            newest = self._users[event.name] = []
        newest.append(event)
        self._users_count += 1
        self._users_bytes += payload_bytes(event)

    def _forget(self, events: Iterable[UserEvent]) -> None:
        for event in events:
            self._users_count -= 1
            self._users_bytes -= payload_bytes(event)

    def _flush_user_events(self) -> list[Event]:
        events: list[Event] = [event for newest in self._users.values() for event in newest]
        self._users.clear()
        self._users_count = self._users_bytes = 0
        self._users_wait.told()
        return events

    def _flush_members(self) -> list[Event]:
        by_kind: dict[MemberEventKind, list[Member]] = {}
        for name in list(islice(self._members, MEMBERS_AT_ONCE)):
            happened = self._members.pop(name)
            kind, member = happened
            told = self._told.get(name)
            # A member that failed and is back is where it was; unless it is not, of which agents tell nothing.
            if (
                told is not None
                and told[0] is kind
                and kind is not MemberEventKind.UPDATE
                and _are_alike(told[1], member)
            ):
                continue
            by_kind.setdefault(kind, []).append(member)
            if kind is MemberEventKind.REAP:
                self._told.pop(name, None)
            else:
                self._told[name] = happened
        if not self._members:
            self._members_wait.told()
        return [MemberEvent(kind, tuple(members)) for kind, members in by_kind.items()]


def _are_alike(one: Member, other: Member) -> bool:
    return one.port == other.port and one.address == other.address and one.tags == other.tags


@define(eq=False)
class CoalescedEvents:
    """Iterates over the coalesced events of another iterator, under Trio."""

    _events: AsyncIterator[Event]
    _coalescing: Coalescing
    _ready: deque[Event] = field(factory=deque)
    _end: Exception | None = None

    def __aiter__(self) -> CoalescedEvents:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._end is None:
                await self._wait()
            elif self._coalescing.waits:
                self._ready += self._coalescing.flush()
                await trio.lowlevel.checkpoint()
            else:
                raise self._end
        return self._ready.popleft()

    async def _wait(self) -> None:
        event = None
        try:
            with trio.CancelScope(deadline=self._coalescing.deadline):
                event = await anext(self._events)
        except Exception as error:  # noqa: BLE001 - raised above, after what it ends
            self._end = error
            return
        now = trio.current_time()
        if event is not None:
            self._ready += self._coalescing.add(event, now)
        self._ready += self._coalescing.due(now)


def coalesced(events: AsyncIterator[Event], coalescing: Coalescing | None = None) -> AsyncIterator[Event]:
    """Return an iterator over the same events, coalesced.

    It ends as the other does, after what still waits has been told.

    Args:
        events: such as those of Membership.events.
        coalescing: how; None: with Serf's times, 3 s at the longest, 1 s without any.
    """
    return CoalescedEvents(events, coalescing or Coalescing())
