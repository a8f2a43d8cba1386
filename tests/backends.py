"""The loops that clients run on, for tests that run under each: Trio's, asyncio's own, and uvloop.

`tests/client/conftest.py` runs each ``async def`` test of its folder on all of them. Such a test says what it does in
AnyIO's names, and what AnyIO has no word for is here. Time is virtual where it asks for `autojump_clock` or
`mock_clock`.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import trio
import trio.testing
import uvloop
from attrs import define

from proglog_trio.rpc.http2.asyncio_loop import runs_trio

# How long, in seconds of the machine's, a loop with virtual time waits for what none of its timers brings.
HANG_SECONDS = 30.0


class Clock(Protocol):
    """Virtual time, as Trio's MockClock has it: it stands still, and jumps to the next deadline if it may."""

    autojump_threshold: float
    """Infinity: time stands still; 0: it jumps whenever there is nothing else to do."""

    def jump(self, seconds: float) -> None:
        """Move on at once."""


@define(eq=False)
class VirtualClock:
    """Virtual time for asyncio; see Clock."""

    autojump_threshold: float = math.inf
    now: float = 0.0

    def jump(self, seconds: float) -> None:
        """Move on at once."""
        self.now += seconds


class _Selector(selectors.DefaultSelector):
    """Asked by the loop each time when it has nothing left to do, with how long it may wait until its next timer."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0) or self.loop.tell_idle() or self.loop.jump_to_next_timer():
            return events
        events = super().select(HANG_SECONDS)
        if not events:
            raise AssertionError("every task waits, and no timer is set: the test hangs")
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop with virtual time: nothing waits for the machine's clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._idle: list[asyncio.Future[None]] = []
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._clock.now

    async def wait_until_idle(self) -> None:
        """Return once all other tasks wait; before time moves on."""
        waiter = self.create_future()
        self._idle.append(waiter)
        await waiter

    def tell_idle(self) -> bool:
        """Go on with who waits until there is nothing to do; return whether there was one."""
        idle, self._idle = [waiter for waiter in self._idle if not waiter.done()], []
        for waiter in idle:
            waiter.set_result(None)
        return bool(idle)

    def jump_to_next_timer(self) -> bool:
        """Let it be the time of the next timer, if time may jump and there is one."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # typeshed has no such names
        if not timers or self._clock.autojump_threshold == math.inf:
            return False
        self._clock.now = max(self._clock.now, timers[0].when())
        return True


async def wait_all_tasks_blocked() -> None:
    """Return once all other tasks wait for something; under asyncio in virtual time only."""
    if runs_trio():
        await trio.testing.wait_all_tasks_blocked()
        return
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "take autojump_clock or mock_clock"
    await loop.wait_until_idle()


def call_soon_from_threads() -> Callable[[Callable[[], object]], object]:
    """Return what calls a function on this task's loop, soon, from any thread."""
    if runs_trio():
        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


def living_tasks() -> int:
    """How many tasks there are on this loop, this one included."""
    if runs_trio():
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@define(frozen=True)
class Backend:
    """A loop of asyncio's make.

    Attributes:
        make: makes the loop; None: asyncio.run's way.
        loop_class: of which the loop then is.
    """

    make: Callable[[], asyncio.AbstractEventLoop] | None
    loop_class: type[asyncio.AbstractEventLoop]


ASYNCIO = Backend(None, asyncio.SelectorEventLoop)
UVLOOP = Backend(uvloop.new_event_loop, uvloop.Loop)


def virtual(clock: VirtualClock) -> Backend:
    """Return asyncio's own loop with virtual time."""
    return Backend(functools.partial(VirtualLoop, clock), VirtualLoop)


def run_asyncio_test(test: Callable[..., Awaitable[None]], backend: Backend, arguments: dict[str, Any]) -> None:
    """Run a test to its end; fails also for a task that it leaves, and for what asyncio complains of."""
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=backend.make) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        runner.run(_run_alone(test, backend.loop_class, arguments))
    # What was never retrieved is told when it is collected; what is young suffices, and takes no time.
    gc.collect(1)
    assert not complaints, "asyncio complains"


async def _run_alone(
    test: Callable[..., Awaitable[None]], loop_class: type[asyncio.AbstractEventLoop], arguments: dict[str, Any]
) -> None:
    assert type(asyncio.get_running_loop()) is loop_class
    await test(**arguments)
    # A generator that was left unfinished is closed by a task of the loop's own.
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left"


def asyncio_test(test: Callable[..., Coroutine[Any, Any, None]], name: str) -> Callable[..., None]:
    """Return the test as a function that runs it on asyncio's loop or uvloop, as the name says."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        clock = next((value for value in arguments.values() if isinstance(value, VirtualClock)), None)
        if name == "uvloop":
            assert clock is None, "uvloop has the machine's time only"
            run_asyncio_test(test, UVLOOP, arguments)
        else:
            run_asyncio_test(test, virtual(clock) if clock is not None else ASYNCIO, arguments)

    return run
