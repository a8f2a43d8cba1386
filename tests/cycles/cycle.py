"""One cycle: a producer and a consumer come to a node, something happens to it, and they are left at some moment."""

import asyncio
import random
import sys
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, field, frozen

from proglog_trio.client import (
    BatchDelivery,
    ConsumerConfig,
    ProducerConfig,
    open_consumer,
    open_producer,
)
from proglog_trio.rpc.http2.asyncio_loop import runs_trio
from tests.cycles.node import READY_SECONDS, CycledNode

BATCH = [b"x" * 1000] * 32
LARGE_BATCH = [b"x" * 10_000] * 100
MAX_BATCHES = 24
MOMENT_SECONDS = 0.5
"""How long a moment is waited for: it may never come, when the node is stopped or gone."""
LATE_SECONDS = 10.0
"""No client takes longer to leave, whatever its node does."""


class Moment(Enum):
    """Where clients are when they are cancelled."""

    CONNECTING = "connecting"
    OPENING = "opening"
    SENDING = "sending"
    READING = "reading"
    LEAVING = "leaving"


class Fault(Enum):
    """What happens to the node."""

    NONE = "none"
    PAUSED = "paused"
    """It is stopped, and goes on when the clients have left."""
    KILLED = "killed"
    """It is killed, and started again when the clients have left."""
    BACK = "killed and back"
    """It is killed and started again before the clients are cancelled."""


EARLY_FAULTS = {5: Fault.KILLED, 10: Fault.PAUSED, 15: Fault.BACK}
"""Of the cycles with these numbers."""


class Ending(Enum):
    """How the clients' blocks are left."""

    SCOPE = "scope"
    """By a cancelled scope of AnyIO."""
    TASK = "task"
    """By Task.cancel; under Trio by a scope."""
    TIMEOUT = "timeout"
    """By a scope whose time is over."""
    ERROR = "error"
    """By an error of the body of one of them; the other is cancelled by its task group."""
    WAITED = "waited"
    """By themselves, with all delivered; only where nothing happens to the node."""


class BodyFailed(Exception):
    """What a body raises."""


@frozen
class Plan:
    """What a cycle is to be, drawn at random.

    Attributes:
        moment: where the clients are when something happens.
        fault, ending: what happens to the node then, and afterwards to the clients.
        fault_first: it happens before the clients come.
        ticks: of the loop, between the moment and the ending.
        seconds: as well.
        large: whether so much is sent that the connection's windows and buffers are full where the node is stopped.
        slow: whether the consumer takes nothing after its first batch, so that its windows are full.
    """

    moment: Moment
    fault: Fault
    ending: Ending
    fault_first: bool
    ticks: int
    seconds: float
    large: bool
    slow: bool

    @classmethod
    def draw(cls, seed: int, number: int, *, kills: bool) -> "Plan":
        """Return what a cycle is to be; kills: whether the node may be killed."""
        rng = random.Random(f"{seed}-{number}")
        weights = (84, 12, 2, 2) if kills else (88, 12, 0, 0)
        (fault,) = rng.choices(list(Fault), weights)
        # A short run has each fault too.
        fault = EARLY_FAULTS.get(number, fault)
        endings = [each for each in Ending if each is not Ending.WAITED or fault is Fault.NONE]
        moment = rng.choice(list(Moment))
        return cls(
            moment=moment,
            fault=fault,
            ending=rng.choice(endings),
            fault_first=fault in (Fault.PAUSED, Fault.KILLED) and rng.random() < 0.3,
            ticks=rng.randrange(40),
            seconds=rng.choice((0.0, 0.0, rng.uniform(0, 0.003), rng.uniform(0, 0.03))),
            large=fault is Fault.PAUSED and moment is Moment.SENDING,
            slow=rng.random() < 0.5,
        )


@define(eq=False)
class Clients:
    """A producer and a consumer, their bodies, and how far they are."""

    address: str
    plan: Plan
    deliveries: list[BatchDelivery] = field(factory=list)
    # What a body waits for before it raises, or before it goes on with nothing else to do.
    fails: anyio.Event = field(factory=anyio.Event)
    _reached: dict[Moment, anyio.Event] = field(factory=lambda: {moment: anyio.Event() for moment in Moment})

    async def wait(self, moment: Moment) -> None:
        """Wait for a moment, for a while."""
        with anyio.move_on_after(MOMENT_SECONDS):
            await self._reached[moment].wait()

    async def _stay(self) -> None:
        """Stay in the body until it is to fail, or for ever."""
        await self.fails.wait()
        raise BodyFailed

    async def produce(self) -> None:
        """Send until there is an end to it."""
        plan = self.plan
        self._reached[Moment.CONNECTING].set()
        room = 12_000_000 if plan.large else 256 * 1024
        config = ProducerConfig(buffer_bytes=room, linger=0, connect_timeout=READY_SECONDS)
        async with open_producer(self.address, config) as producer:
            self._reached[Moment.OPENING].set()
            for number in range(MAX_BATCHES):
                self.deliveries.append(await producer.send_batch(LARGE_BATCH if plan.large else BATCH))
                self._reached[Moment.SENDING].set()
                if plan.moment is Moment.LEAVING and number >= plan.ticks % 8:
                    break
            if plan.ending is Ending.WAITED:
                await producer.flush()
            elif plan.moment is not Moment.LEAVING:
                await self._stay()
            self._reached[Moment.LEAVING].set()

    async def consume(self) -> None:
        """Read until there is an end to it."""
        plan = self.plan
        config = ConsumerConfig(on_missing="skip", prefetch_bytes=256 * 1024, connect_timeout=READY_SECONDS)
        async with open_consumer(self.address, config) as consumer:
            self._reached[Moment.OPENING].set()
            count = 0
            async for batch in consumer.batches():
                batch.values()
                self._reached[Moment.READING].set()
                count += 1
                if plan.moment is Moment.LEAVING or (plan.ending is Ending.WAITED and count >= MAX_BATCHES):
                    return
                if plan.slow and plan.ending is not Ending.WAITED:
                    await self._stay()


async def _together(*bodies: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as group:
        for body in bodies:
            group.start_soon(body)


async def _together_in_asyncio(*bodies: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(body())


async def run_cycle(node: CycledNode, plan: Plan) -> tuple[Clients, float]:
    """Run one cycle; return its clients, and how many seconds they took to leave when they were to.

    Raises:
        AssertionError: they did not leave as they should, or the node ended by itself.
    """
    clients = Clients(node.address, plan)
    together = _together if runs_trio() or plan.ending is Ending.SCOPE else _together_in_asyncio
    ended = anyio.Event()
    scope = anyio.CancelScope()
    task: asyncio.Task[None] | None = None
    left_at = anyio.current_time()

    async def clients_end() -> None:
        nonlocal left_at
        try:
            with scope:
                await together(clients.produce, clients.consume)
        except* BodyFailed:
            assert plan.ending is Ending.ERROR
        finally:
            left_at = anyio.current_time()
            ended.set()

    if plan.fault_first:
        _begin_fault(node, plan.fault)
    async with anyio.create_task_group() as group:
        if plan.ending is Ending.TASK and not runs_trio():
            task = asyncio.create_task(clients_end())
        else:
            group.start_soon(clients_end)
        await clients.wait(plan.moment)
        if not plan.fault_first:
            _begin_fault(node, plan.fault)
        if plan.fault is Fault.BACK:
            await node.start()
        await anyio.sleep(plan.seconds)
        for _ in range(plan.ticks):
            await anyio.lowlevel.checkpoint()
        asked_at = anyio.current_time()
        with anyio.move_on_after(LATE_SECONDS) as late:
            if plan.ending is Ending.TIMEOUT:
                scope.deadline = asked_at = asked_at + plan.seconds
            elif plan.ending is Ending.ERROR:
                clients.fails.set()
                # A body that waits for its node, or has been left, does not raise.
                await anyio.sleep(plan.seconds)
                asked_at = anyio.current_time()
                scope.cancel()
            elif task is not None:
                task.cancel()
            elif plan.ending is not Ending.WAITED:
                scope.cancel()
            await ended.wait()
        if late.cancelled_caught:
            # Said here as well: what does not end when it is cancelled may not end now either.
            problem = f"the clients had not left after {LATE_SECONDS:g} s: {plan}"
            sys.stderr.write(f"{problem}\n")
            raise AssertionError(problem)
    if task is not None:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    if plan.fault is Fault.PAUSED:
        node.resume()
    elif plan.fault is Fault.KILLED:
        await node.start()
    return clients, max(left_at - asked_at, 0.0)


def _begin_fault(node: CycledNode, fault: Fault) -> None:
    if fault is Fault.PAUSED:
        node.pause()
    elif fault in (Fault.KILLED, Fault.BACK):
        node.kill()
