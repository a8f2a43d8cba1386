"""Handlers of a real member: what is run for what, and that none keeps another waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership import (
    AskedQuery,
    EventFilter,
    EventHandler,
    EventHandlers,
    GossipConfig,
    MemberEvent,
    Membership,
    QueryAnswer,
    UserEvent,
    open_membership,
    parse_filters,
)
from proglog_trio.membership.event_handlers import event_handlers
from proglog_trio.membership.wire import serf as wire
from proglog_trio.membership.wire.serf import encode_serf
from tests.membership.running import LOCAL

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def handled(
    *handlers: EventHandler, seconds: float = 60.0, errors: InternalErrors | None = None
) -> AsyncIterator[tuple[Membership, EventHandlers]]:
    config = GossipConfig(name="me", profile=LOCAL)
    async with open_membership(config, {"role": "web"}) as membership, trio.open_nursery() as nursery:
        running = EventHandlers(membership, handlers, seconds, errors or InternalErrors())
        await nursery.start(running.run)
        with trio.fail_after(60):
            yield membership, running
        nursery.cancel_scope.cancel()


class Heard:
    """A handler that notes what it is called with."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.events: list[Any] = []
        self.answer = answer
        self.news = trio.Event()

    async def __call__(self, event: MemberEvent | UserEvent | AskedQuery) -> bytes | None:
        self.events.append(event)
        self.news.set()
        return self.answer

    async def until(self, count: int) -> None:
        while len(self.events) < count:
            self.news = trio.Event()
            await self.news.wait()


async def answers(membership: Membership, name: str) -> list[bytes]:
    return [each.payload async for each in membership.query(name, timeout=20) if isinstance(each, QueryAnswer)]


async def test_handlers_get_the_events_that_they_want_in_order() -> None:
    some, every = Heard(), Heard()
    async with handled(
        EventHandler(parse_filters("user:a,member-update"), some), EventHandler((EventFilter("*"),), every)
    ) as (membership, running):
        for name in ("a", "b", "a"):
            membership.send_event(name, name.encode())
        await every.until(3)
        await membership.change_tags({"x": "1"})
        await every.until(4)
        await some.until(3)
        assert [getattr(event, "name", "update") for event in some.events] == ["a", "a", "update"]
        assert [getattr(event, "name", "update") for event in every.events] == ["a", "b", "a", "update"]
        assert running.counters.handled == 7


async def test_what_a_script_writes_is_the_answer() -> None:
    async with handled(EventHandler.parse('query:load=echo "$SERF_QUERY_NAME" of "$SERF_SELF_NAME"')) as (me, _):
        assert await answers(me, "load") == [b"load of me\n"]


@pytest.mark.parametrize(
    "script", ["exit 0", "echo out; exit 1", "head -c 2000 /dev/zero"], ids=["none", "fails", "large"]
)
async def test_what_is_no_answer_is_none(script: str) -> None:
    other = Heard()
    with structlog.testing.capture_logs() as logged:
        async with handled(EventHandler.parse(f"query={script}"), EventHandler(parse_filters("user"), other)) as (
            me,
            _,
        ):
            found = [each async for each in me.query("q", timeout=2) if isinstance(each, QueryAnswer)]
            assert found == []
    warnings = [each for each in logged if each["log_level"] == "warning"]
    if "exit 1" in script:
        assert [(each["reason"], each["output"]) for each in warnings] == [("it ended with status 1", "out\n")]
    elif "head" in script:
        assert ["1024" in each["reason"] for each in warnings] == [True]


async def test_a_handler_that_hangs_keeps_nobody_waiting() -> None:
    async def hang(_event: object) -> None:
        await trio.sleep_forever()

    other = Heard(b"well")
    hanging = [EventHandler.parse("*=sleep 1000"), EventHandler((EventFilter("*"),), hang)]
    async with handled(*hanging, EventHandler((EventFilter("*"),), other)) as (membership, running):
        for _ in range(20):
            membership.send_event("x")
        await other.until(20)
        assert await answers(membership, "q") == [b"well"]
        assert running.counters.handled == 21


async def test_what_takes_too_long_is_ended_and_the_next_follows() -> None:
    began = []

    async def slow(event: Any) -> None:
        began.append(event.name)
        if event.name == "slow":
            await trio.sleep_forever()

    last = Heard()
    with structlog.testing.capture_logs() as logged:
        async with handled(
            EventHandler((EventFilter("user"),), slow),
            EventHandler.parse("user:slow=echo so far; sleep 1000"),
            EventHandler((EventFilter("user", "done"),), last),
            seconds=0.5,
        ) as (membership, running):
            membership.send_event("slow")
            membership.send_event("next")
            while running.counters.failed < 2 or began != ["slow", "next"]:  # noqa: ASYNC110 - it has no event for that
                await trio.sleep(0.05)
    reasons = {each["reason"] for each in logged if each["event"] == "an event handler failed"}
    assert reasons == {"it took more than 0.5 s", "it was killed, since it took more than 0.5 s"}


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_handlers, "MAX_WAITING_EVENTS", 2)
    monkeypatch.setattr(event_handlers, "MAX_WAITING_QUERIES", 2)

    async def hang(_event: object) -> None:
        await trio.sleep_forever()

    seen = Heard()
    async with handled(EventHandler((EventFilter("*"),), hang), EventHandler((EventFilter("user", "last"),), seen)) as (
        membership,
        running,
    ):
        for _ in range(10):
            membership.send_event("x")
        for _ in range(5):
            membership.query("q", timeout=20)
        membership.send_event("last")
        await seen.until(1)
        # One of each kind of events runs, and two wait; of queries two run.
        assert running.counters.not_handled == 7 + 1 + 3


async def test_what_waits_is_bounded_in_bytes_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_handlers, "MAX_WAITING_BYTES", 2500)
    began = trio.Event()

    async def hang(_event: object) -> None:
        began.set()
        await trio.sleep_forever()

    def hear(name: str) -> None:
        ltime = membership.gossip.core.events.clock.time
        event = encode_serf(wire.UserEvent(ltime=ltime, name=name, payload=b"", cc=False))
        membership.gossip.act(lambda: membership.gossip.core.receive(event))

    seen = Heard()
    with structlog.testing.capture_logs() as logged:
        async with handled(
            EventHandler((EventFilter("*"),), hang), EventHandler((EventFilter("user", "last"),), seen)
        ) as (membership, running):
            hear("first")
            await began.wait()
            for number in range(10):
                # As long as whoever sends it likes.
                hear(str(number) * 1000)
            hear("last")
            await seen.until(1)
            assert running.counters.not_handled == 8
    told = [each for each in logged if each["event"].startswith("an event is not handled")]
    assert [each["name"] for each in told] == ["2" * event_handlers.LOGGED_NAME_CHARACTERS]


@pytest.mark.internal_errors
async def test_what_was_not_foreseen_costs_one_event() -> None:
    async def fail(event: UserEvent) -> None:
        if event.name == "bad":
            raise RuntimeError("unforeseen")
        await good(event)

    good, errors = Heard(), InternalErrors()
    async with handled(EventHandler((EventFilter("user"),), fail), errors=errors) as (membership, running):  # type: ignore[arg-type]  # of user events alone
        membership.send_event("bad")
        membership.send_event("good")
        await good.until(1)
        assert running.counters.failed == 1
    assert errors.counts[Where.EVENT_HANDLER] == 1


@pytest.mark.internal_errors
async def test_an_answer_that_is_none_costs_that_answer() -> None:
    async def number(_event: object) -> Any:
        return 5

    errors = InternalErrors()
    async with handled(EventHandler((EventFilter("query", "number"),), number), errors=errors) as (membership, running):
        told = [each async for each in membership.query("number", timeout=1)]
        assert not any(isinstance(each, QueryAnswer) for each in told)
        assert errors.counts[Where.EVENT_HANDLER] == 1
        assert not running.counters.not_handled


@pytest.mark.internal_errors
async def test_an_event_that_cannot_be_given_to_handlers_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    given = EventHandlers._give

    def fail(self: EventHandlers, event: Any, *others: Any) -> None:
        if event.name == "bad":
            raise RuntimeError("unforeseen")
        given(self, event, *others)

    monkeypatch.setattr(EventHandlers, "_give", fail)
    good, errors = Heard(), InternalErrors()
    async with handled(EventHandler((EventFilter("user"),), good), errors=errors) as (membership, _):
        membership.send_event("bad")
        membership.send_event("good")
        await good.until(1)
        assert errors.counts[Where.EVENT_HANDLER] == 1


async def test_handlers_end_with_the_membership() -> None:
    async with open_membership(GossipConfig(name="me", profile=LOCAL)) as membership:
        running = EventHandlers(membership, [EventHandler.parse("true")])
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(running.run)
                await membership.leave()
                nursery.cancel_scope.cancel()


def test_handlers_are_bounded_in_number() -> None:
    with pytest.raises(ValueError, match="64"):
        EventHandlers(None, [EventHandler.parse("true")] * 65)  # type: ignore[arg-type]  # it is not looked at
