from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import pytest

from proglog_trio.rpc.http2.wakeups import DeadlineWaits, Wakeups


def test_all_who_wait_are_woken_and_cancelling_one_leaves_the_others() -> None:
    async def run() -> None:
        wakeups = Wakeups()
        wakeups.wake_all()
        waiting = [asyncio.ensure_future(wakeups.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        wakeups.wake_all()
        await waiting[0]
        await waiting[2]
        again = asyncio.ensure_future(wakeups.wait())
        await asyncio.sleep(0)
        assert not again.done()
        wakeups.wake_all()
        await again

    asyncio.run(run())


def test_a_wait_ends_with_its_event_or_at_its_deadline() -> None:
    async def run() -> None:
        clock = asyncio.get_running_loop().time
        event = asyncio.Event()
        with contextlib.closing(DeadlineWaits(event, clock)) as waits:
            # Deadlines that have passed, by however much, and one that comes.
            for deadline in (-math.inf, clock() - 10, clock() + 0.01):
                event.clear()
                assert await waits.wait(deadline)
                assert clock() >= deadline
            for deadline_or_none in (None, clock() + 3600):
                event.clear()
                waiting = asyncio.ensure_future(waits.wait(deadline_or_none))
                await asyncio.sleep(0)
                assert not waiting.done()
                event.set()
                assert await asyncio.wait_for(waiting, 10)
            assert not await waits.wait(None)

    asyncio.run(run())


def test_a_timer_is_kept_where_the_deadline_moves_on_and_set_anew_where_it_comes_earlier() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        set_for: list[float] = []
        event = asyncio.Event()

        def call_later(delay: float, *arguments: Any) -> asyncio.TimerHandle:
            set_for.append(delay)
            return real(delay, *arguments)

        real, loop.call_later = loop.call_later, call_later  # type: ignore[method-assign,assignment]
        now = 100.0
        with contextlib.closing(DeadlineWaits(event, lambda: now)) as waits:

            async def wait(deadline: float | None) -> None:
                event.clear()
                loop.call_soon(event.set)
                assert await waits.wait(deadline)

            for deadline in (3700.0, 3800.0, None, 3700.0):
                await wait(deadline)
            assert set_for == [3600.0]
            await wait(200.0)
            assert set_for == [3600.0, 100.0]
            event.clear()
            assert await waits.wait(now)
            assert set_for == [3600.0, 100.0, 0.0]
            await wait(300.0)
            assert set_for == [3600.0, 100.0, 0.0, 200.0]

    asyncio.run(run())
