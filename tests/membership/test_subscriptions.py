import pytest
import trio

from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.subscriptions import MAX_WAITING_BYTES, MAX_WAITING_EVENTS, EventsMissed
from tests.membership.running import JOIN, Peers, event_of, running, start_ours_in


async def test_events_of_members_that_come_together_are_one() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        c = await start("c")
        async with c.membership.events() as events:
            await c.membership.join([b.address])
            event = await anext(events)
            assert isinstance(event, MemberEvent)
            assert event.kind is MemberEventKind.JOIN
            assert {member.name for member in event.members} == {"a", "b"}


async def test_a_subscriber_that_is_too_slow_is_told() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        async with a.membership.events() as slow, a.membership.events() as quick:
            kinds = [MemberEventKind.JOIN, MemberEventKind.FAILED]
            for number in range(MAX_WAITING_EVENTS + 10):
                a.membership.news.emit(event_of(kinds[number % 2], "b", None))
                await anext(quick)
            for _ in range(MAX_WAITING_EVENTS):
                await anext(slow)
            with pytest.raises(EventsMissed, match="1024"):
                await anext(slow)
            a.membership.news.emit(event_of(MemberEventKind.JOIN, "c", None))
            assert await anext(quick) == event_of(MemberEventKind.JOIN, "c", None)
        assert not a.membership.news.subscriptions._open


async def test_subscribers_are_told_what_happened_before_the_end() -> None:
    async with trio.open_nursery() as nursery:
        membership = await running(nursery, Peers())
        async with membership.events() as events:
            await trio.testing.wait_all_tasks_blocked()
            membership.news.emit(event_of(JOIN, "x", "x:1"))
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                assert [event async for event in events][-1] == event_of(JOIN, "x", "x:1")


async def test_what_waits_for_a_subscriber_is_bounded_in_bytes() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        async with a.membership.events() as slow, a.membership.events() as quick:
            for number in range(20):
                a.membership.news.emit(UserEvent("large", bytes(1024 * 1024 - 5), number, False))
                event = await anext(quick)
                assert isinstance(event, UserEvent)
                assert event.ltime == number
            for number in range(MAX_WAITING_BYTES // (1024 * 1024)):
                assert await anext(slow) == UserEvent("large", bytes(1024 * 1024 - 5), number, False)
            with pytest.raises(EventsMissed, match=str(MAX_WAITING_BYTES)):
                await anext(slow)


async def test_events_of_members_and_others_keep_their_order() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        fired = UserEvent("deploy", b"", 1, False)
        async with a.membership.events() as events:
            for event in (event_of(JOIN, "b", None), event_of(JOIN, "c", None), fired, event_of(JOIN, "d", None)):
                a.membership.news.emit(event)
            first = await anext(events)
            assert isinstance(first, MemberEvent)
            assert [member.name for member in first.members] == ["b", "c"]
            assert [await anext(events), await anext(events)] == [fired, event_of(JOIN, "d", None)]
