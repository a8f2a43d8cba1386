from __future__ import annotations

import asyncio

import pytest

from proglog_trio.rpc.http2.wakeups import Wakeups


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
