from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import define, field

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.query_handlers import MAX_HANDLED, QueryHandler, QueryHandlers
from proglog_trio.membership.serf.limits import MessageTooLarge


@define
class Watched:
    """Handlers that run, and what they answered."""

    handlers: QueryHandlers
    answers: list[tuple[int, bytes]] = field(factory=list)

    def answer(self, query: AskedQuery, payload: bytes) -> None:
        if len(payload) > 100:
            raise MessageTooLarge("it is")
        self.answers.append((query.id, payload))

    def note(self, number: int, seconds: float = 10.0) -> None:
        self.handlers.note(AskedQuery("q", b"", "b", 1, number, trio.current_time() + seconds))


@asynccontextmanager
async def running(handler: QueryHandler) -> AsyncIterator[Watched]:
    tested = Watched(QueryHandlers({"q": handler}, InternalErrors()))
    async with trio.open_nursery() as nursery:
        await nursery.start(tested.handlers.run, tested.answer)
        yield tested
        nursery.cancel_scope.cancel()


async def test_one_that_hangs_blocks_nobody_and_ends_with_its_query(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[float] = []

    async def handler(query: AskedQuery) -> bytes:
        if query.id == 1:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())
        return b"quick"

    async with running(handler) as tested:
        began = trio.current_time()
        tested.note(1, 5.0)
        tested.note(2)
        await trio.sleep(20)
        assert tested.answers == [(2, b"quick")]
        assert ended == [began + 5]
        assert (tested.handlers.counters.answered, tested.handlers.counters.unanswered) == (1, 1)


async def test_no_more_run_than_allowed(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(_query: AskedQuery) -> bytes:
        await trio.sleep(1)
        return b""

    async with running(handler) as tested:
        for number in range(MAX_HANDLED + 3):
            tested.note(number)
        await trio.sleep(2)
        assert len(tested.answers) == MAX_HANDLED
        assert tested.handlers.counters.dropped == 3
        tested.note(0)
        await trio.sleep(2)
        assert len(tested.answers) == MAX_HANDLED + 1


@pytest.mark.internal_errors
async def test_one_that_raises_costs_its_own_answer_alone(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(query: AskedQuery) -> bytes | None:
        if query.id == 1:
            raise RuntimeError("broken")
        return None if query.id == 2 else bytes(query.id)

    async with running(handler) as tested:
        for number in (1, 2, 3, 1000):
            tested.note(number)
        await trio.sleep(1)
        assert tested.answers == [(3, bytes(3))]
        assert tested.handlers.errors.counts[Where.MEMBERSHIP_QUERY] == 1
        assert tested.handlers.counters.unanswered == 3


async def test_a_query_without_a_handler_and_one_after_the_end() -> None:
    async def handler(_query: AskedQuery) -> bytes:
        pytest.fail("it is not called")

    async with running(handler) as tested:
        tested.handlers.note(AskedQuery("other", b"", "b", 1, 1, trio.current_time() + 1))
        await trio.testing.wait_all_tasks_blocked()
    tested.note(1)
