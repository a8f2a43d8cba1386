from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proglog_trio.errors import LogClosed
from proglog_trio.rpc.server.in_flight import Answer, InFlight, PendingAppend


def _append(number: int, size: int = 1) -> PendingAppend:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return PendingAppend(number, 1, size, answer)


def _finish(*appends: PendingAppend) -> None:
    for append in appends:
        append.answer.set_result(LogClosed("any answer will do"))


def in_asyncio(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            await asyncio.wait_for(test(), 10)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@in_asyncio
async def test_appends_are_answered_in_their_order() -> None:
    in_flight = InFlight(100)
    first, second, third = (_append(number) for number in range(3))
    for append in (first, second, third):
        await in_flight.wait_room(append.size)
        in_flight.add(append)
    _finish(second)
    answering = asyncio.ensure_future(in_flight.next())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not answering.done(), "the first is not over yet"
    _finish(first)
    assert await answering == [first, second]
    in_flight.end()
    _finish(third)
    assert await in_flight.next() == [third]
    assert await in_flight.next() == []


@in_asyncio
async def test_what_is_in_flight_is_bounded_but_one_may_be_larger() -> None:
    in_flight = InFlight(10)
    large = _append(0, size=1000)
    await in_flight.wait_room(large.size)
    in_flight.add(large)
    waiting = asyncio.ensure_future(in_flight.wait_room(1))
    await asyncio.sleep(0)
    _finish(large)
    finished = await in_flight.next()
    assert not waiting.done(), "it is not sent yet"
    in_flight.answered(finished)
    await waiting


@in_asyncio
async def test_an_error_comes_after_the_answers_to_what_came_before_it() -> None:
    in_flight = InFlight(10)
    append = _append(0)
    in_flight.add(append)
    error = ValueError("the request makes no sense")
    in_flight.end(error)
    _finish(append)
    assert await in_flight.next() == [append]
    with pytest.raises(ValueError, match="the request makes no sense") as raised:
        await in_flight.next()
    assert raised.value is error
