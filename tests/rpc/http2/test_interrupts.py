from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable

import pytest
import trio

from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.bridge import TrioEventLoop, current_loop


def _in_a_callback(loop: TrioEventLoop, callback: Callable[[], None]) -> None:
    loop.call_soon(callback)


def _in_a_timer(loop: TrioEventLoop, callback: Callable[[], None]) -> None:
    loop.call_later(0.001, callback)


def _in_a_task(loop: TrioEventLoop, callback: Callable[[], None]) -> None:
    async def task() -> None:
        callback()

    loop.create_task(task())


@pytest.mark.parametrize("where", [_in_a_callback, _in_a_timer, _in_a_task])
def test_ctrl_c_in_asyncio_code_is_raised_in_the_main_task(
    where: Callable[[TrioEventLoop, Callable[[], None]], None],
) -> None:
    finished = False

    def callback() -> None:
        nonlocal finished
        signal.raise_signal(signal.SIGINT)
        finished = True

    async def main() -> None:
        async with asyncio_loop():
            where(current_loop.get(), callback)
            with trio.fail_after(10), pytest.raises(KeyboardInterrupt):
                await trio.sleep_forever()
            # The loop goes on.
            await current_loop.get().synchronize()

    trio.run(main)
    assert finished


def test_trio_asyncio_still_leaves_its_callbacks_to_ctrl_c() -> None:
    """When this fails, trio-asyncio protects its loop itself: interrupts.py can go."""
    assert "ki_protection" not in inspect.getsource(sys.modules[TrioEventLoop._main_loop.__module__])
