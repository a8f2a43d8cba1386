"""The loops of the client's tests: virtual time is the same under both, and what a test leaves makes it fail."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.lowlevel
import trio.testing
import uvloop

from tests import backends
from tests.backends import (
    ASYNCIO,
    UVLOOP,
    Backend,
    Clock,
    VirtualClock,
    living_tasks,
    run_asyncio_test,
    virtual,
    wait_all_tasks_blocked,
)
from tests.trio_thread import in_trio_thread

InVirtualTime = Callable[[Clock], Awaitable[None]]


def run_trio(test: InVirtualTime, autojump_threshold: float) -> None:
    clock = trio.testing.MockClock(autojump_threshold=autojump_threshold)
    trio.run(test, clock, clock=clock)


def run_virtual(test: InVirtualTime, autojump_threshold: float) -> None:
    clock = VirtualClock(autojump_threshold)
    run_asyncio_test(test, virtual(clock), {"clock": clock})


RUNS = [run_trio, run_virtual]


@pytest.mark.parametrize("run", RUNS)
def test_time_jumps_to_the_next_deadline(run: Callable[..., None]) -> None:
    async def test(clock: Clock) -> None:
        ends: list[float] = []

        async def sleep(seconds: float) -> None:
            await anyio.sleep(seconds)
            ends.append(anyio.current_time())

        with anyio.move_on_after(50.0):
            async with anyio.create_task_group() as group:
                for seconds in (3.0, 0.1, 1e5, 2.0):
                    group.start_soon(sleep, seconds)
        assert ends == [0.1, 2.0, 3.0]
        assert anyio.current_time() == 50.0
        for seconds in (1000.0, 1e6, 0.25):
            await anyio.sleep(seconds)
        assert anyio.current_time() == 1_001_050.25

    run(test, 0.0)


@pytest.mark.parametrize("run", RUNS)
def test_time_stands_still_and_is_moved(run: Callable[..., None]) -> None:
    async def test(clock: Clock) -> None:
        ended = False

        async def sleep() -> None:
            nonlocal ended
            await anyio.sleep(10.0)
            ended = True

        async with anyio.create_task_group() as group:
            group.start_soon(sleep)
            await wait_all_tasks_blocked()
            clock.jump(9.0)
            await wait_all_tasks_blocked()
            assert not ended
            clock.jump(1.5)
            await wait_all_tasks_blocked()
            assert ended
            assert anyio.current_time() == 10.5

    run(test, math.inf)


@pytest.mark.parametrize("run", RUNS)
def test_waiting_for_the_others_comes_before_time(run: Callable[..., None]) -> None:
    async def test(clock: Clock) -> None:
        event, steps = anyio.Event(), 0

        async def step() -> None:
            nonlocal steps
            await event.wait()
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
                steps += 1
            await anyio.sleep(1.0)
            steps = -1

        async with anyio.create_task_group() as group:
            group.start_soon(step)
            event.set()
            await wait_all_tasks_blocked()
            assert (steps, anyio.current_time()) == (50, 0.0)
        assert (steps, anyio.current_time()) == (-1, 1.0)

    run(test, 0.0)


def test_what_waits_for_ever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "HANG_SECONDS", 0.05)

    async def test(clock: Clock) -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="the test hangs"):
        run_virtual(test, 0.0)


@pytest.mark.parametrize("backend", [ASYNCIO, UVLOOP])
def test_what_is_left_fails(backend: Backend) -> None:
    async def leaves_a_task(kept: list[object]) -> None:
        kept.append(asyncio.ensure_future(asyncio.sleep(100)))
        assert living_tasks() == 2

    async def leaves_an_error(kept: list[object]) -> None:
        async def fail() -> None:
            raise KeyError

        await asyncio.wait([asyncio.ensure_future(fail())])

    async def leaves_nothing(kept: list[object]) -> None:
        assert type(asyncio.get_running_loop()) is (asyncio.SelectorEventLoop if backend is ASYNCIO else uvloop.Loop)

    with pytest.raises(AssertionError, match="tasks are left"):
        run_asyncio_test(leaves_a_task, backend, {"kept": []})
    with pytest.raises(AssertionError, match="asyncio complains"):
        run_asyncio_test(leaves_an_error, backend, {"kept": []})
    run_asyncio_test(leaves_nothing, backend, {"kept": []})


def test_another_loop_fails() -> None:
    async def test() -> None:
        pytest.fail("it must not begin")

    with pytest.raises(AssertionError):
        run_asyncio_test(test, Backend(uvloop.new_event_loop, asyncio.SelectorEventLoop), {})


def run_plain_trio(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test)


def run_plain_asyncio(test: Callable[[], Awaitable[None]]) -> None:
    run_asyncio_test(test, ASYNCIO, {})


@pytest.mark.parametrize("run", [run_plain_trio, run_plain_asyncio])
def test_trio_in_a_thread(run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    """Results and errors come back, and it is cancelled with who asked."""
    ended: list[str] = []

    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    async def fail() -> None:
        raise KeyError

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("wait")

    async def test() -> None:
        async with in_trio_thread(trio.open_nursery) as (thread, nursery):
            assert await thread.run(double, 3) == 6
            assert await thread.call(len, "four") == 4
            for _ in range(2):
                with pytest.raises(KeyError):
                    await thread.run(fail)
            with anyio.move_on_after(0.01) as scope:
                await thread.run(wait)
            assert scope.cancelled_caught
            assert ended == ["wait"]
            assert isinstance(nursery, trio.Nursery)
        with pytest.RaisesGroup(KeyError):
            async with in_trio_thread(trio.open_nursery) as (thread, nursery):
                await thread.call(nursery.start_soon, fail)

    run(test)
