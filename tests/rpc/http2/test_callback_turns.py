import asyncio
import time

import pytest
import trio
import trio.testing

from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop, run_asyncio
from proglog_trio.rpc.http2.bridge import TrioEventLoop, open_loop, trio_as_aio
from proglog_trio.rpc.http2.callback_turns import AT_A_STRETCH_SECONDS, CallbackTurns, run_ready_together

CALLBACKS = 50


def turns_of(loop: asyncio.AbstractEventLoop) -> CallbackTurns:
    turns = loop._main_loop_one  # type: ignore[attr-defined]
    assert isinstance(turns, CallbackTurns)
    return turns


async def turns_of_trio_for_callbacks(loop: asyncio.AbstractEventLoop) -> int:
    """Return how many turns Trio's tasks have while a loop runs callbacks that are ready."""
    left = CALLBACKS
    done = trio.Event()

    def callback() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    turns = 0
    for _ in range(CALLBACKS):
        loop.call_soon(callback)
    while not done.is_set():
        await trio.lowlevel.checkpoint()
        turns += 1
    return turns


async def test_callbacks_that_are_ready_run_in_one_turn() -> None:
    async with asyncio_loop() as loop:
        # This machine may stand still for a millisecond, and then again.
        assert await turns_of_trio_for_callbacks(loop) < CALLBACKS / 2


async def test_trio_asyncio_still_takes_a_turn_for_each() -> None:
    async with open_loop() as loop:
        assert await turns_of_trio_for_callbacks(loop) >= CALLBACKS, "callback_turns.py can go"


async def test_callbacks_keep_their_order() -> None:
    async with asyncio_loop() as loop:
        seen: list[int] = []
        done = trio.Event()
        for number in range(CALLBACKS):
            loop.call_soon(seen.append, number)
        loop.call_soon(done.set)
        await done.wait()
    assert seen == list(range(CALLBACKS))


async def test_callbacks_without_end_leave_trio_its_turns() -> None:
    async with asyncio_loop() as loop:
        ended = False

        def again() -> None:
            if not ended:
                loop.call_soon(again)

        again()
        began = time.perf_counter()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        took = time.perf_counter() - began
        ended = True
        assert turns_of(loop).callbacks > 5
    # each of them a stretch; with room for a machine that does other things
    assert took < 5 * AT_A_STRETCH_SECONDS + 2


async def test_timers_fire_in_their_order_and_not_before_their_time(autojump_clock: trio.testing.MockClock) -> None:
    async with asyncio_loop() as loop:
        began = trio.current_time()
        seen: list[tuple[str, float]] = []
        done = trio.Event()

        def fire(name: str) -> None:
            seen.append((name, trio.current_time() - began))

        loop.call_later(2, fire, "late")
        loop.call_later(1, fire, "early")
        loop.call_later(1.5, fire, "cancelled").cancel()
        loop.call_soon(fire, "now")
        loop.call_later(3, done.set)
        await done.wait()
    assert [name for name, _ in seen] == ["now", "early", "late"]
    assert [at for _, at in seen] == pytest.approx([0, 1, 2])


async def test_callbacks_that_go_on_do_not_keep_a_timer_back() -> None:
    async with asyncio_loop() as loop:
        fired = trio.Event()

        def again() -> None:
            if not fired.is_set():
                loop.call_soon(again)

        loop.call_later(0.01, fired.set)
        again()
        with trio.fail_after(5):
            await fired.wait()


async def test_trio_tasks_are_started_in_their_turn() -> None:
    async with asyncio_loop():
        seen: list[str] = []

        async def in_trio() -> str:
            seen.append("started")
            await trio.lowlevel.checkpoint()
            return "from Trio"

        async def in_asyncio() -> str:
            return await trio_as_aio(in_trio)()  # type: ignore[no-any-return]

        assert await run_asyncio(in_asyncio) == "from Trio"
        assert seen == ["started"]


async def test_an_error_of_a_callback_ends_the_loop_as_before() -> None:
    class CallbackFailed(Exception):
        pass

    def fail() -> None:
        raise CallbackFailed

    with pytest.RaisesGroup(CallbackFailed, flatten_subgroups=True):
        async with asyncio_loop() as loop:
            loop.call_soon(fail)
            await trio.sleep_forever()


async def test_a_loop_is_changed_once() -> None:
    async with open_loop() as loop:
        assert loop._main_loop_one.__func__ is TrioEventLoop._main_loop_one
        run_ready_together(loop)
        turns = turns_of(loop)
        run_ready_together(loop)
        assert turns_of(loop) is turns
