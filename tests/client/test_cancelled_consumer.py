"""What a consumer's reads do when the program around them is ending: every read, in every state, however the end came.

In a shielded ``finally`` in the block each gives what has arrived, and then says at once that no more will come; after
the block each says so at once. No task is left. Under asyncio nothing tells a consumer that what is around its block
has been cancelled (asyncio tells one task, once): in the ``finally`` each waits for more, as it did before.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from proglog_trio.client import (
    BackoffConfig,
    Consumer,
    ConsumerClosed,
    ConsumerConfig,
    StartOutOfRange,
    StatusCode,
)
from proglog_trio.client.consumer import run_consumer
from proglog_trio.log.format.position import Position
from proglog_trio.rpc.calls.sessions import ConsumeSession, StreamBroken
from tests.backends import Clock
from tests.client.test_cancelled_producer import (
    BodyFailed,
    LinkBug,
    body_failed,
    deadline_over,
    outer_scope_cancelled,
    sibling_failed,
)
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame

HANG_SECONDS = 1000.0


@define
class World:
    """A node with two batches of three records each, which can be made to fail."""

    follow: bool = True
    then: Callable[[], Awaitable[StreamBroken | None]] = anyio.sleep_forever
    broken: anyio.Event = field(factory=anyio.Event)
    gone: bool = False
    stopped: bool = False
    running: int = 0

    async def link(self, session: ConsumeSession) -> None:
        """Run a stream; see ConsumeLink."""
        self.running += 1
        try:
            await anyio.lowlevel.checkpoint()
            if self.gone:
                raise StreamBroken("connection refused")
            if self.stopped:
                await anyio.sleep_forever()
            if session.end_request() is not None:
                session.received_end(answer_of())
            session.request()
            session.opened()
            session.received(answer_of((0, make_frame(ORIGINS[0], 0, 3)), (3, make_frame(ORIGINS[0], 3, 3))))
            failure: StreamBroken | None = None
            with anyio.CancelScope() as scope:

                async def end() -> None:
                    await self.broken.wait()
                    scope.cancel()

                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(end)
                    failure = await self.then()
                    nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
            if scope.cancelled_caught:
                raise StreamBroken("the connection was lost")
        finally:
            self.running -= 1


# -- the states --------------------------------------------------------------------------------------------------------


async def waiting(world: World, consumer: Consumer) -> None:
    """Everything was delivered, and nothing new comes."""
    for _ in range(6):
        await anext(consumer)


async def inside_a_batch(world: World, consumer: Consumer) -> None:
    """One batch is being delivered, another one has arrived."""
    await anext(consumer)


async def untouched(world: World, consumer: Consumer) -> None:
    """Two batches have arrived."""


async def gone(world: World, consumer: Consumer) -> None:
    """Everything was delivered, and the node is gone."""
    await waiting(world, consumer)
    world.gone = True
    world.broken.set()
    await anyio.sleep(0.3)


async def moving(world: World, consumer: Consumer) -> None:
    """Everything was delivered, the node is gone, and another one is connected to and does not answer."""
    await waiting(world, consumer)
    world.stopped = True
    world.broken.set()
    await anyio.sleep(0.3)


async def gone_inside_a_batch(world: World, consumer: Consumer) -> None:
    """One batch is being delivered, and the node is gone."""
    await inside_a_batch(world, consumer)
    world.gone = True
    world.broken.set()
    await anyio.sleep(0.3)


STATES: dict[Any, int] = {waiting: 0, inside_a_batch: 5, untouched: 6, gone: 0, moving: 0, gone_inside_a_batch: 5}
"""With how many records have arrived that were not delivered."""


# -- the reads ---------------------------------------------------------------------------------------------------------


async def iterate(consumer: Consumer) -> int:
    await anext(consumer)
    return 1


async def iterate_batches(consumer: Consumer) -> int:
    return len(await anext(consumer.batches()))


async def next_batch(consumer: Consumer) -> int:
    batch = await consumer.next_batch()
    assert batch is not None
    return len(batch)


READS = [iterate, iterate_batches, next_batch]
ENDS = [outer_scope_cancelled, deadline_over, body_failed, sibling_failed]


@asynccontextmanager
async def start(world: World) -> AsyncIterator[Consumer]:
    config = ConsumerConfig(follow=world.follow, backoff=BackoffConfig(first=0.1, longest=0.5))
    async with run_consumer(config, world.link, random.Random(1), ("node:1", "node:2")) as consumer:
        yield consumer


async def read_on(read: Callable[[Consumer], Awaitable[int]], consumer: Consumer) -> int:
    """Read all that has arrived, after which reading waits for more."""
    count = 0
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 1.0) as shield:
        while True:
            count += await read(consumer)
    assert shield.cancelled_caught
    return count


async def read_all(read: Callable[[Consumer], Awaitable[int]], consumer: Consumer) -> int:
    """Read on, at once, until an error says that it is over."""
    count = 0
    began = anyio.current_time()
    with anyio.CancelScope(shield=True, deadline=began + HANG_SECONDS) as shield:
        with pytest.raises(ConsumerClosed):  # noqa: PT012 - whichever read is the first
            while True:
                count += await read(consumer)
        with pytest.raises(ConsumerClosed):
            await read(consumer)
    assert not shield.cancelled_caught, "it hangs"
    assert anyio.current_time() == began
    return count


@pytest.mark.parametrize("end", [outer_scope_cancelled, deadline_over, sibling_failed])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("follow", [True, False])
async def test_in_a_shielded_finally(
    follow: bool, read: Any, state: Any, end: Any, autojump_clock: Clock, backend: str
) -> None:
    world = World(follow)
    count, left, position = 0, 0.0, None
    async with end(0.6), start(world) as consumer:
        try:
            await state(world, consumer)
            await anyio.sleep_forever()
        finally:
            count = await (read_all if backend == "trio" else read_on)(read, consumer)
            position = consumer.position
            left = anyio.current_time()
    assert count == STATES[state]
    assert anyio.current_time() == left
    assert position is not None
    assert Position.decode_with_annex(position)[0].next_sequence(ORIGINS[0]) == 6
    assert world.running == 0
    assert await read_all(read, consumer) == 0
    assert consumer.position == position


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("read", READS)
async def test_when_the_body_has_failed(read: Any, state: Any, autojump_clock: Clock) -> None:
    """Nothing is cancelled then: reading goes on as before, until the block is left."""
    world = World()
    count = 0
    async with body_failed(0.0), start(world) as consumer:
        try:
            await state(world, consumer)
            raise BodyFailed
        finally:
            with anyio.CancelScope(shield=True):
                while count < STATES[state]:
                    count += await read(consumer)
    assert count == STATES[state]
    assert world.running == 0
    assert await read_all(read, consumer) == 0


@pytest.mark.parametrize("state", [waiting, inside_a_batch, untouched])
@pytest.mark.parametrize("read", READS)
async def test_when_the_task_behind_it_has_failed(read: Any, state: Any, autojump_clock: Clock) -> None:
    fail = anyio.Event()

    async def then() -> None:
        await fail.wait()
        raise LinkBug

    world = World(then=then)
    with pytest.RaisesGroup(LinkBug, flatten_subgroups=True):
        async with start(world) as consumer:
            await state(world, consumer)
            fail.set()
            try:
                await anyio.sleep_forever()
            finally:
                assert await read_all(read, consumer) == STATES[state]


@pytest.mark.parametrize("read", READS)
async def test_who_reads_in_another_task_is_told(read: Any, autojump_clock: Clock) -> None:
    world = World()
    async with anyio.create_task_group() as nursery:
        with anyio.move_on_after(0.6):
            async with start(world) as consumer:
                await waiting(world, consumer)

                async def wait_for_more() -> None:
                    with pytest.raises(ConsumerClosed):
                        await read(consumer)

                nursery.start_soon(wait_for_more)
                await anyio.sleep_forever()
        left = anyio.current_time()
    assert anyio.current_time() == left


@pytest.mark.parametrize("read", READS)
async def test_what_was_known_of_the_end_stays_known(read: Any, autojump_clock: Clock) -> None:
    """That the log has no more, or that a node refused, is still said after a cancellation."""

    async def ended() -> None:
        await anyio.lowlevel.checkpoint()

    async def refused() -> StreamBroken:
        await anyio.lowlevel.checkpoint()
        return StreamBroken("it is not there", StatusCode.OUT_OF_RANGE)

    for then, said in ((ended, (StopAsyncIteration, AssertionError)), (refused, StartOutOfRange)):
        world = World(follow=then is refused, then=then)
        with anyio.move_on_after(0.6):
            async with start(world) as consumer:
                try:
                    await waiting(world, consumer)
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True), pytest.raises(said):
                        await read(consumer)


async def test_reading_in_a_cancelled_scope_without_a_shield(autojump_clock: Clock) -> None:
    world = World()
    async with start(world) as consumer:
        for read in (iterate_batches, next_batch, iterate):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await read(consumer)
            assert scope.cancelled_caught
        assert consumer.next_offset is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_comes_out_as_it_is(error: type[BaseException], autojump_clock: Clock) -> None:
    world = World()
    with pytest.raises(error):  # noqa: PT012 - the whole block is meant
        async with start(world) as consumer:
            await inside_a_batch(world, consumer)
            raise error
    assert world.running == 0
