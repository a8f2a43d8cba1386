from __future__ import annotations

import asyncio
import math

import pytest

from proglog_trio.rpc.http2.wakeups import Wakeups, wait_until


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
        # One that has passed, by however much, and one that comes.
        for deadline in (-math.inf, clock() - 10, clock() + 0.01):
            await wait_until(event, deadline, clock)
            assert clock() >= deadline
        for deadline_or_none in (None, clock() + 3600):
            event.clear()
            waiting = asyncio.ensure_future(wait_until(event, deadline_or_none, clock))
            await asyncio.sleep(0)
            assert not waiting.done()
            event.set()
            await asyncio.wait_for(waiting, 10)

    asyncio.run(run())
