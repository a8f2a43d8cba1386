from __future__ import annotations

import trio

from proglog_trio.rpc.http2.bridge import TrioEventLoop, open_loop
from proglog_trio.rpc.http2.timers import LEAST_CANCELLED_TO_SWEEP, sweep_cancelled_timers

HOUR = 3600.0


async def _timers_left(loop: TrioEventLoop, count: int) -> int:
    for _ in range(count):
        handle = loop.call_later(HOUR, print)
        await loop.synchronize()
        handle.cancel()
    await loop.synchronize()
    return len(loop._timers)


async def test_cancelled_timers_are_swept() -> None:
    async with open_loop() as loop:
        sweep_cancelled_timers(loop)
        sweep_cancelled_timers(loop)
        kept = loop.call_later(HOUR, print)
        assert await _timers_left(loop, 5 * LEAST_CANCELLED_TO_SWEEP) <= LEAST_CANCELLED_TO_SWEEP + 1
        assert kept in loop._timers


async def test_timers_that_are_left_still_fire() -> None:
    async with open_loop() as loop:
        sweep_cancelled_timers(loop)
        fired = trio.Event()
        loop.call_later(0.05, fired.set)
        await _timers_left(loop, 2 * LEAST_CANCELLED_TO_SWEEP)
        with trio.fail_after(5):
            await fired.wait()


async def test_trio_asyncio_still_keeps_cancelled_timers() -> None:
    """When this fails, trio-asyncio sweeps cancelled timers itself: timers.py can go."""
    async with open_loop() as loop:
        assert await _timers_left(loop, 3 * LEAST_CANCELLED_TO_SWEEP) == 3 * LEAST_CANCELLED_TO_SWEEP
