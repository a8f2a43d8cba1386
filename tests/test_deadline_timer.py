from __future__ import annotations

import math

import trio
import trio.testing

from proglog_trio.deadline_timer import DeadlineTimer


async def _waits(timer: DeadlineTimer, ends: list[tuple[float, float]]) -> None:
    while True:
        armed = await timer.wait()
        ends.append((trio.current_time(), armed))
        if trio.current_time() >= armed:
            return


async def test_a_wait_ends_at_the_deadline_or_when_it_moves_forward(autojump_clock: trio.testing.MockClock) -> None:
    deadline: float | None = None
    timer = DeadlineTimer(lambda: deadline)
    ends: list[tuple[float, float]] = []
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_waits, timer, ends)
        await trio.sleep(1)
        deadline = start + 9
        timer.rearm()
        await trio.sleep(1)
        # A later one does not wake it.
        deadline = start + 20
        timer.rearm()
        await trio.sleep(1)
        deadline = start + 5
        timer.rearm()
        timer.rearm()
    assert ends == [(start + 1, math.inf), (start + 3, start + 9), (start + 5, start + 5)]


async def test_a_wait_can_be_ended_and_does_not_end_the_next(autojump_clock: trio.testing.MockClock) -> None:
    timer = DeadlineTimer(lambda: start + 10)
    start = trio.current_time()
    ends: list[tuple[float, float]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_waits, timer, ends)
        await trio.sleep(1)
        timer.wake()
    assert ends == [(start + 1, start + 10), (start + 10, start + 10)]


async def test_a_deadline_that_has_passed_is_a_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    for passed in (trio.current_time() - 10, -math.inf):
        with trio.testing.assert_checkpoints():
            assert await DeadlineTimer(lambda passed=passed: passed).wait() == passed  # type: ignore[misc]
