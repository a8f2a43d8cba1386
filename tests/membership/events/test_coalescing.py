from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.coalescing import (
    MAX_WAITING_EVENTS,
    MEMBERS_AT_ONCE,
    Coalescing,
    Event,
    coalesced,
)
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.subscriptions import EventsMissed

JOIN, UPDATE, FAILED, REAP = (
    MemberEventKind.JOIN,
    MemberEventKind.UPDATE,
    MemberEventKind.FAILED,
    MemberEventKind.REAP,
)
QUERY = AskedQuery("q", b"", "a", 1, 1, 0.0)


def of(kind: MemberEventKind, *names: str) -> MemberEvent:
    return MemberEvent(kind, tuple(Member(name, "127.0.0.1", 1, {}, MemberStatus.ALIVE) for name in names))


def fired(name: str, ltime: int, payload: bytes = b"", *, coalesce: bool = True) -> UserEvent:
    return UserEvent(name, payload, ltime, coalesce)


def test_members_are_told_of_together_with_what_happened_last() -> None:
    coalescing = Coalescing()
    assert coalescing.deadline == math.inf
    for event in (of(JOIN, "a"), of(JOIN, "b"), of(FAILED, "a"), of(JOIN, "c")):
        assert coalescing.add(event, 0.0) == []
    assert coalescing.deadline == 1.0
    assert coalescing.due(0.9) == []
    assert coalescing.due(1.0) == [of(FAILED, "a"), of(JOIN, "b", "c")]
    assert coalescing.deadline == math.inf


def test_what_keeps_coming_waits_no_longer_than_allowed() -> None:
    coalescing = Coalescing(coalesce_seconds=3.0, quiescent_seconds=1.0)
    for tenth in range(30):
        assert coalescing.due(tenth / 10) == []
        coalescing.add(of(JOIN, f"m{tenth}"), tenth / 10)
    assert coalescing.deadline == 3.0
    (event,) = coalescing.due(3.0)
    assert isinstance(event, MemberEvent)
    assert len(event.members) == 30


def test_a_member_that_is_where_it_was_is_not_told_of() -> None:
    coalescing = Coalescing()
    coalescing.add(of(JOIN, "a"), 0.0)
    assert coalescing.flush() == [of(JOIN, "a")]
    coalescing.add(of(FAILED, "a"), 1.0)
    coalescing.add(of(JOIN, "a"), 1.0)
    assert coalescing.flush() == []
    for _ in range(2):
        coalescing.add(of(UPDATE, "a"), 2.0)
        assert coalescing.flush() == [of(UPDATE, "a")]
    for kind in (FAILED, REAP):
        coalescing.add(of(kind, "a"), 3.0)
        assert coalescing.flush() == [of(kind, "a")]
    assert coalescing._told == {}


def test_a_member_that_is_back_elsewhere_or_with_other_tags_is_told_of() -> None:
    coalescing = Coalescing()
    for change in ({}, {"address": "127.0.0.2"}, {"port": 2}, {"tags": {"role": "web"}}):
        again = MemberEvent(JOIN, (evolve(of(JOIN, "a").members[0], **change),))
        coalescing.add(of(FAILED, "a"), 1.0)
        coalescing.add(again, 1.0)
        assert coalescing.flush() == [again]
        coalescing.add(of(FAILED, "a"), 2.0)
        coalescing.add(again, 2.0)
        assert coalescing.flush() == []


def test_of_very_many_members_some_are_told_of_at_once() -> None:
    coalescing = Coalescing()
    names = [f"m{number}" for number in range(2 * MEMBERS_AT_ONCE + 1)]
    coalescing.add(of(JOIN, *names), 0.0)
    found = []
    for count in (MEMBERS_AT_ONCE, MEMBERS_AT_ONCE, 1):
        assert coalescing.waits
        assert coalescing.deadline == 1.0
        (event,) = coalescing.due(1.0)
        assert isinstance(event, MemberEvent)
        assert len(event.members) == count
        found += [member.name for member in event.members]
    assert found == names
    assert not coalescing.waits
    assert coalescing.deadline == math.inf


async def test_all_of_very_many_members_are_told_of_before_the_end() -> None:
    async def joined() -> AsyncIterator[Event]:
        yield of(JOIN, *(f"m{number}" for number in range(2 * MEMBERS_AT_ONCE + 1)))

    told = [len(event.members) async for event in coalesced(joined()) if isinstance(event, MemberEvent)]
    assert told == [MEMBERS_AT_ONCE, MEMBERS_AT_ONCE, 1]


def test_the_newest_user_events_of_a_name_are_told() -> None:
    coalescing = Coalescing()
    for event in (fired("a", 3), fired("b", 1), fired("a", 5, b"1"), fired("a", 4), fired("a", 5, b"2")):
        assert coalescing.add(event, 0.0) == []
    assert coalescing.due(1.0) == [fired("a", 5, b"1"), fired("a", 5, b"2"), fired("b", 1)]
    assert coalescing.due(100.0) == []


def test_what_is_not_to_wait_does_not() -> None:
    coalescing = Coalescing()
    single = fired("a", 3, coalesce=False)
    assert coalescing.add(single, 0.0) == [single]
    assert coalescing.add(QUERY, 0.0) == [QUERY]
    assert coalescing.deadline == math.inf


def test_no_more_waits_than_allowed() -> None:
    coalescing = Coalescing()
    told: list[Event] = []
    for number in range(MAX_WAITING_EVENTS + 1):
        told += coalescing.add(fired(f"e{number}", 1), 0.0)
    assert len(told) == MAX_WAITING_EVENTS + 1
    assert coalescing.add(fired("large", 1, bytes(5_000_000)), 0.0) == [fired("large", 1, bytes(5_000_000))]
    # Whoever can gossip decides how long a name is, too.
    assert coalescing.add(fired("n" * 5_000_000, 1), 0.0) == [fired("n" * 5_000_000, 1)]
    for ltime in range(1, 100):
        assert coalescing.add(fired("n" * 1_000_000, ltime), 0.0) == []


@given(
    st.lists(st.tuples(st.floats(0, 2), st.sampled_from("abc"), st.integers(0, 5), st.binary(max_size=1)), max_size=40)
)
def test_the_newest_of_each_name_is_always_told_and_in_time(came: list[tuple[float, str, int, bytes]]) -> None:
    coalescing = Coalescing()
    now = 0.0
    waiting: list[UserEvent] = []
    began: float | None = None
    for seconds, name, ltime, payload in came:
        now += seconds
        told = coalescing.due(now)
        if told:
            names = {event.name for event in waiting}
            newest = {each: max(event.ltime for event in waiting if event.name == each) for each in names}
            assert {event.name: event.ltime for event in told if isinstance(event, UserEvent)} == newest
            waiting, began = [], None
        event = fired(name, ltime, payload)
        waiting.append(event)
        began = now if began is None else began
        assert coalescing.add(event, now) == []
        assert coalescing.deadline == min(began + 3.0, now + 1.0)


async def test_an_iterator_is_coalesced_and_ends_as_it_did(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[Event](100)

    class Subscription:
        def __aiter__(self) -> Subscription:
            return self

        async def __anext__(self) -> Event:
            try:
                return await receive.receive()
            except trio.EndOfChannel:
                raise EventsMissed("too many") from None

    async with trio.open_nursery() as nursery:

        async def happen() -> None:
            for event in (of(JOIN, "a"), QUERY, of(JOIN, "b")):
                await send.send(event)
            await trio.sleep(5)
            await send.send(of(FAILED, "a"))
            send.close()

        nursery.start_soon(happen)
        began = trio.current_time()
        told = coalesced(Subscription())
        assert await anext(told) == QUERY
        assert trio.current_time() == began
        assert await anext(told) == of(JOIN, "a", "b")
        assert trio.current_time() == began + 1
        assert await anext(told) == of(FAILED, "a")
        assert trio.current_time() == began + 5
        for _ in range(2):
            with pytest.raises(EventsMissed):
                await anext(told)
