from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from attrs import evolve

from proglog_trio.membership import (
    AskedQuery,
    GossipConfig,
    MemberEvent,
    Membership,
    MessageTooLarge,
    NotAMember,
    QueryAcknowledgement,
    QueryAnswer,
    QueryHandler,
    QueryOver,
    TooManyQueries,
    UserEvent,
    bind_membership,
    open_membership,
)
from proglog_trio.membership.serf.open_queries import MAX_QUERIES
from tests.membership.running import EVENTUALLY_SECONDS, LOCAL, QUICK, start_ours_in

PATIENCE_SECONDS = 120


@asynccontextmanager
async def member(
    name: str,
    through: Membership | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    handlers: Mapping[str, QueryHandler] | None = None,
    limit: int | None = None,
) -> AsyncIterator[Membership]:
    config = GossipConfig(name=name, profile=LOCAL)
    if limit is not None:
        config = evolve(config, user_event_bytes=limit, query_bytes=limit, query_response_bytes=limit)
    start = [] if through is None else [through.address]
    async with open_membership(config, tags, start_addresses=start, query_handlers=handlers or {}) as membership:
        with trio.fail_after(PATIENCE_SECONDS):
            yield membership


async def next_event(events: AsyncIterator[MemberEvent | UserEvent | AskedQuery]) -> UserEvent | AskedQuery:
    async for event in events:
        if not isinstance(event, MemberEvent):
            return event
    raise AssertionError("the events have ended")


async def test_an_event_reaches_everybody_and_its_own_node_once() -> None:
    async with (
        member("a") as a,
        member("b", a) as b,
        a.events() as of_a,
        b.events() as of_b,
    ):
        a.send_event("deploy", b"1", coalesce=True)
        a.send_event("deploy", b"2")
        assert await next_event(of_a) == UserEvent("deploy", b"1", 1, True)
        assert await next_event(of_a) == UserEvent("deploy", b"2", 2, False)
        got = [await next_event(of_b), await next_event(of_b)]
        assert {event.payload for event in got} == {b"1", b"2"}
        b.send_event("done")
        done = await next_event(of_a)
        assert isinstance(done, UserEvent)
        assert done.ltime == 3


async def test_large_events_and_answers_arrive() -> None:
    async def echo(query: AskedQuery) -> bytes:
        return query.payload * 2

    limit = 9 * 1024
    async with (
        member("a", limit=limit) as a,
        member("b", a, handlers={"echo": echo}, limit=limit) as b,
        member("c", a, handlers={"echo": echo}, limit=limit) as c,
        b.events() as of_b,
        c.events() as of_c,
    ):
        a.send_event("large", bytes(9000))
        for events in (of_b, of_c):
            event = await next_event(events)
            assert (event.name, len(event.payload)) == ("large", 9000)
        answers = a.query("echo", bytes(4000), nodes=["b", "c"], acknowledge=False)
        assert [len(answer.payload) async for answer in answers if isinstance(answer, QueryAnswer)] == [8000, 8000]
        assert a.counters["gossip"].messages_by_stream > 0
        assert c.counters["gossip"].messages_by_stream > 0


async def test_a_query_is_acknowledged_answered_and_over_when_all_have_answered() -> None:
    async def load(query: AskedQuery) -> bytes:
        return f"{query.source} {query.payload.decode()}".encode()

    async with (
        member("a", handlers={"load": load}) as a,
        member("b", a, handlers={"load": load}) as _,
    ):
        began = trio.current_time()
        answers = [answer async for answer in a.query("load", b"now", timeout=60)]
        assert trio.current_time() - began < 30
        assert sorted(answer.member for answer in answers if isinstance(answer, QueryAcknowledgement)) == ["a", "b"]
        assert sorted((answer.member, answer.payload) for answer in answers if isinstance(answer, QueryAnswer)) == [
            ("a", b"a now"),
            ("b", b"a now"),
        ]


async def test_filters_name_who_is_asked() -> None:
    async def who(_query: AskedQuery) -> bytes:
        return b"me"

    handlers: dict[str, QueryHandler] = {"who": who}
    async with (
        member("a", tags={"role": "web"}, handlers=handlers) as a,
        member("b", a, tags={"role": "db"}, handlers=handlers),
        member("c", a, tags={"role": "web"}, handlers=handlers),
    ):

        async def answering(**changes: object) -> list[str]:
            answers = a.query("who", acknowledge=False, timeout=60, **changes)  # type: ignore[arg-type]  # filters
            return sorted([answer.member async for answer in answers])

        assert await answering() == ["a", "b", "c"]
        assert await answering(tags={"role": "^web$"}) == ["a", "c"]
        assert await answering(nodes=["b"]) == ["b"]
        assert await answering(nodes=["b", "c"], tags={"role": "web"}) == ["c"]
        assert await answering(nodes=["nobody"]) == []


async def test_a_subscriber_answers_by_hand() -> None:
    async with member("a") as a, member("b", a) as b, b.events() as events:
        answers = a.query("load", nodes=["b"], timeout=60)
        query = await next_event(events)
        assert isinstance(query, AskedQuery)
        assert (query.name, query.payload, query.source) == ("load", b"", "a")
        assert trio.current_time() + 50 < query.deadline < trio.current_time() + 61
        with pytest.raises(MessageTooLarge):
            b.answer(query, bytes(2000))
        b.answer(query, b"0.5")
        with pytest.raises(QueryOver, match="answered already"):
            b.answer(query, b"0.5")
        assert [each async for each in answers] == [QueryAcknowledgement("b"), QueryAnswer("b", b"0.5")]


async def test_an_answer_comes_too_late() -> None:
    async with member("a") as a, a.events() as events:
        answers = a.query("load", timeout=0.01)
        query = await next_event(events)
        assert isinstance(query, AskedQuery)
        assert [each async for each in answers] == [QueryAcknowledgement("a")]
        with pytest.raises(QueryOver):
            a.answer(query, b"")


async def test_a_query_ends_with_the_member_that_has_failed_or_left() -> None:
    async with member("a") as a:
        async with member("b", a):
            answers = a.query("load", nodes=["b"], acknowledge=False, timeout=3600)
        assert [each async for each in answers] == []


async def test_a_query_that_nobody_wants_any_more() -> None:
    async with member("a") as a:
        for _ in range(2 * MAX_QUERIES):
            answers = a.query("load", timeout=3600)
            answers.close()
            answers.close()
            assert [each async for each in answers] == [QueryAcknowledgement("a")]
        for _ in range(MAX_QUERIES):
            a.query("load", timeout=3600)
        with pytest.raises(TooManyQueries):
            a.query("load")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "_serf_ping", "payload": b"x"},
        {"name": "_serf_conflict"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": 1e9},
        {"relay_factor": -1},
        {"relay_factor": 256},
        {"tags": {"role": "("}},
        {"tags": {f"t{number}": "" for number in range(17)}},
    ],
)
async def test_what_cannot_be_asked(changes: dict[str, object]) -> None:
    async with member("a") as a:
        with pytest.raises(ValueError, match=r"query|relay|expression"):
            a.query(**{"name": "load", **changes})  # type: ignore[arg-type]  # on purpose
        assert [each async for each in a.query("load", nodes=["nobody"])] == []


async def test_limits() -> None:
    async with member("a") as a:
        with pytest.raises(MessageTooLarge):
            a.send_event("e", bytes(512))
        with pytest.raises(MessageTooLarge):
            a.query("q", bytes(1024))
    for bad in (0, 9 * 1024 + 1):
        with pytest.raises(ValueError, match="must be 1 to 9216 bytes"):
            GossipConfig(name="a", user_event_bytes=bad)


async def test_nothing_is_sent_where_nothing_gossips() -> None:
    membership = await bind_membership(GossipConfig(name="a", profile=LOCAL), {})
    with pytest.raises(NotAMember):
        membership.send_event("e")
    with pytest.raises(NotAMember):
        membership.query("q")
    with pytest.raises(NotAMember):
        membership.answer(AskedQuery("q", b"", "b", 1, 1, trio.current_time() + 60), b"")
    await membership.close()


async def test_nothing_is_sent_by_a_member_that_waits_for_its_name() -> None:
    """It would be stamped by a clock that knows of no other event, and so be old to all others."""
    async with member("a") as other, start_ours_in() as start:
        other.gossip.core.events.clock.time = 1000
        holder = await start("b", join=[other.address], profile=QUICK)
        waiting = await bind_membership(GossipConfig(name="b", profile=QUICK), {})
        async with trio.open_nursery() as nursery:
            is_ready = trio.Event()

            async def begin() -> None:
                await nursery.start(partial(waiting.run, [other.address], name_patience=EVENTUALLY_SECONDS))
                is_ready.set()

            nursery.start_soon(begin)
            while not waiting._running:  # noqa: ASYNC110 - it has no event for that
                await trio.sleep(0.01)
            with pytest.raises(NotAMember):
                waiting.send_event("early")
            with pytest.raises(NotAMember):
                waiting.query("early")
            async with other.events() as events:
                await holder.leave()
                with trio.fail_after(EVENTUALLY_SECONDS):
                    await is_ready.wait()
                    waiting.send_event("e")
                    async for event in events:
                        if isinstance(event, UserEvent):
                            assert (event.name, event.ltime) == ("e", 1000)
                            break
            nursery.cancel_scope.cancel()


async def test_answers_end_with_the_membership() -> None:
    async with member("a") as a:
        answers = a.query("load", timeout=3600)
    assert [each async for each in answers] == [QueryAcknowledgement("a")]
