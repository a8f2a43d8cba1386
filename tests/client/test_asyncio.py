"""What only asyncio has: its own time-outs and cancellation, its task groups, blocks that are left in another task.

A cancellation is told once, to one task, and counted (`Task.cancelling`): whoever asked for it must find it as it was.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field

from proglog_trio.client import (
    Consumer,
    ConsumerClosed,
    ConsumerConfig,
    DeliveryAbandoned,
    Producer,
    ProducerClosed,
    ProducerConfig,
    open_consumer,
    open_producer,
)
from proglog_trio.client.consumer import run_consumer
from proglog_trio.client.producer import run_producer
from proglog_trio.rpc.calls.sessions import ConsumeSession, ProduceSession
from tests.backends import Clock, living_tasks, wait_all_tasks_blocked
from tests.client.harness import running_node
from tests.client.test_cancelled_with_node import open_files
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame
from tests.client.test_producer import FakeNode

pytestmark = pytest.mark.backends("asyncio")

Client = Producer | Consumer


class LinkBug(Exception):
    """Raised by a link, which no link should do."""


class ChildFailed(Exception):
    """Raised by a task beside the client's block, or in it."""


@define
class World:
    """What clients are connected to, over links without I/O.

    Attributes:
        broken: set: the link fails in a way that no link should.
        slow_end: for how many seconds a stream goes on when it has been cancelled.
    """

    node: FakeNode = field(factory=FakeNode)
    broken: asyncio.Event = field(factory=asyncio.Event)
    slow_end: float = 0.0
    running: int = 0

    async def produce(self, session: ProduceSession) -> None:
        """Run a stream; see ProduceLink."""
        await self._run(self.node.link, session)

    async def consume(self, session: ConsumeSession) -> None:
        """Run a stream; see ConsumeLink."""

        async def stream(session: ConsumeSession) -> None:
            session.request()
            await anyio.lowlevel.checkpoint()
            session.opened()
            session.received(answer_of((0, make_frame(ORIGINS[0], 0, 3))))
            await anyio.sleep_forever()

        await self._run(stream, session)

    async def _run(self, stream: Callable[[Any], Awaitable[None]], session: Any) -> None:
        self.running += 1
        running = asyncio.ensure_future(stream(session))
        broken = asyncio.ensure_future(self.broken.wait())
        try:
            await asyncio.wait([running, broken], return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                raise LinkBug
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.slow_end)
                running.cancel()
                broken.cancel()
                await asyncio.wait([running, broken])
            self.running -= 1

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[Producer]:
        config = ProducerConfig(linger=0.0, delivery_timeout=30.0)
        async with run_producer(config, self.produce, random.Random(1), ("node:1",)) as producer:
            yield producer

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[Consumer]:
        async with run_consumer(ConsumerConfig(), self.consume, random.Random(1), ("node:1",)) as consumer:
            yield consumer


Opening = Callable[[World], AbstractAsyncContextManager[Any]]
OPENINGS: list[Opening] = [World.producer, World.consumer]


async def check_it_is_over(world: World, client: Client) -> None:
    """After the block nothing runs, and the client says so; the program's own task is not cancelled."""
    await check_not_cancelled()
    assert world.running == 0
    if isinstance(client, Producer):
        with pytest.raises(ProducerClosed):
            await client.send(b"value")
    else:
        with pytest.raises(ConsumerClosed):  # noqa: PT012 - what had arrived is given first
            while True:
                await client.next_batch()


async def check_not_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.01)


# -- time-outs and cancellation ----------------------------------------------------------------------------------------


async def by_timeout(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await work()


async def by_wait_for(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), seconds)


async def by_cancel(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


ENDS = [by_timeout, by_wait_for, by_cancel]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("opening", OPENINGS)
async def test_the_end_comes_when_it_should(opening: Opening, end: Any, autojump_clock: Clock) -> None:
    world = World()
    world.node.silent = True
    clients: list[Client] = []

    async def work() -> None:
        async with opening(world) as client:
            clients.append(client)
            if isinstance(client, Producer):
                await (await client.send(b"value")).wait()
            async for _ in client:
                pass

    await end(3.0, work)
    assert asyncio.get_running_loop().time() == 3.0
    await check_it_is_over(world, *clients)


@pytest.mark.parametrize("end", ENDS)
async def test_a_producer_works_on_in_a_finally(end: Any, autojump_clock: Clock) -> None:
    """Without a shield: asyncio tells a task once."""
    world = World()
    world.node.answer_delay = 1.0
    delivered = []

    async def work() -> None:
        async with world.producer() as producer:
            try:
                await asyncio.Event().wait()
            finally:
                delivery = await producer.send(b"farewell")
                await producer.flush()
                delivered.append(await delivery.wait())

    await end(3.0, work)
    assert asyncio.get_running_loop().time() == 4.0
    assert [each.offset for each in delivered] == [0]
    await check_not_cancelled()


@pytest.mark.parametrize("end", ENDS)
async def test_while_a_producer_is_left_in_order(end: Any, autojump_clock: Clock) -> None:
    world = World()
    world.node.silent = True
    deliveries = []

    async def work() -> None:
        async with world.producer() as producer:
            deliveries.append(await producer.send(b"value"))

    await end(3.0, work)
    assert asyncio.get_running_loop().time() == 3.0
    with pytest.raises(DeliveryAbandoned):
        await deliveries[0].wait()
    await check_not_cancelled()


@pytest.mark.parametrize("opening", OPENINGS)
async def test_cancelled_again_while_it_is_being_left(opening: Opening, autojump_clock: Clock) -> None:
    """What is behind the block is waited for all the same."""
    world = World(slow_end=1.0)
    clients: list[Client] = []

    async def work() -> None:
        async with opening(world) as client:
            clients.append(client)
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await wait_all_tasks_blocked()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.2)
    assert not task.done()
    assert world.running == 1
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() == 1.0
    await check_it_is_over(world, *clients)


@pytest.mark.parametrize("opening", OPENINGS)
async def test_cancelled_only_while_it_is_being_left(opening: Opening, autojump_clock: Clock) -> None:
    world = World(slow_end=1.0)
    world.node.silent = True

    async def work() -> None:
        async with opening(world) as client:
            if isinstance(client, Producer):
                # So that its end waits for the node.
                await client.send(b"value")

    task = asyncio.ensure_future(work())
    await wait_all_tasks_blocked()
    assert world.running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() == 1.0
    assert world.running == 0


@pytest.mark.parametrize("opening", OPENINGS)
async def test_cancelled_before_it_is_open(opening: Opening, autojump_clock: Clock) -> None:
    world = World()

    async def work() -> None:
        async with opening(world):
            pytest.fail("the block must not begin")

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.running == 0


# -- who leaves it, and when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("openings", [OPENINGS, [World.producer] * 2, [World.consumer] * 2])
async def test_two_clients_are_left_in_any_order(openings: list[Opening], first: int, autojump_clock: Clock) -> None:
    worlds = [World(), World()]
    blocks = [opening(world) for opening, world in zip(openings, worlds, strict=True)]
    clients = [await block.__aenter__() for block in blocks]
    for place in (first, 1 - first):
        await blocks[place].__aexit__(None, None, None)
        await check_it_is_over(worlds[place], clients[place])


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("opener_goes_on", [True, False])
async def test_left_in_another_task(opener_goes_on: bool, opening: Opening, autojump_clock: Clock) -> None:
    world, opened, enough = World(), asyncio.Event(), asyncio.Event()
    clients: list[Client] = []
    stack = AsyncExitStack()

    async def open_it() -> None:
        clients.append(await stack.enter_async_context(opening(world)))
        opened.set()
        if opener_goes_on:
            await enough.wait()

    opener = asyncio.ensure_future(open_it())
    await opened.wait()
    if isinstance(clients[0], Producer):
        await (await clients[0].send(b"value")).wait()
    else:
        await anext(clients[0])
    await asyncio.ensure_future(stack.aclose())
    await check_it_is_over(world, *clients)
    enough.set()
    await opener
    assert opener.cancelling() == 0


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("opener_goes_on", [True, False])
async def test_a_failure_comes_out_where_it_is_left(
    opener_goes_on: bool, opening: Opening, autojump_clock: Clock
) -> None:
    """And interrupts the task that opened it, unless that has ended."""
    world = World()
    clients: list[Client] = []
    stack = AsyncExitStack()

    async def open_it() -> None:
        clients.append(await stack.enter_async_context(opening(world)))
        if opener_goes_on:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.sleep(1.0)

    opener = asyncio.ensure_future(open_it())
    await wait_all_tasks_blocked()
    world.broken.set()
    await wait_all_tasks_blocked()
    with pytest.RaisesGroup(LinkBug, flatten_subgroups=True):
        await stack.aclose()
    assert opener.cancelling() == 0
    await opener
    await check_it_is_over(world, *clients)


# -- task groups -------------------------------------------------------------------------------------------------------


async def fail(after: float) -> None:
    await asyncio.sleep(after)
    raise ChildFailed


@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_child_fails_in_a_group_inside_the_block(opening: Opening, autojump_clock: Clock) -> None:
    world = World()
    with pytest.RaisesGroup(ChildFailed):
        async with opening(world) as client, asyncio.TaskGroup() as group:
            group.create_task(fail(1.0))
            await asyncio.Event().wait()
    await check_it_is_over(world, client)


@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_child_fails_in_a_group_around_the_block(opening: Opening, autojump_clock: Clock) -> None:
    world = World()
    with pytest.RaisesGroup(ChildFailed):
        async with asyncio.TaskGroup() as group, opening(world) as client:
            group.create_task(fail(1.0))
            await asyncio.Event().wait()
    await check_it_is_over(world, client)


@pytest.mark.parametrize("opening", OPENINGS)
async def test_clients_in_the_tasks_of_a_group(opening: Opening, autojump_clock: Clock) -> None:
    worlds = [World() for _ in range(5)]

    async def work(world: World) -> None:
        async with opening(world):
            await asyncio.Event().wait()

    with pytest.RaisesGroup(ChildFailed):
        async with asyncio.TaskGroup() as group:
            for world in worlds:
                group.create_task(work(world))
            group.create_task(fail(1.0))
    assert [world.running for world in worlds] == [0] * 5


# -- the task behind it fails ------------------------------------------------------------------------------------------


async def break_soon(world: World) -> None:
    await asyncio.sleep(1.0)
    world.broken.set()


@asynccontextmanager
async def nothing_around() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("around", [nothing_around, lambda: asyncio.timeout(50), anyio.create_task_group])
@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_failure_behind_it_interrupts_the_body(opening: Opening, around: Any, autojump_clock: Clock) -> None:
    world = World()
    breaking = asyncio.ensure_future(break_soon(world))
    with pytest.RaisesGroup(LinkBug, flatten_subgroups=True):
        async with around(), opening(world) as client:
            await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() == 1.0
    await breaking
    await check_it_is_over(world, client)


@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_failure_behind_it_comes_out_though_the_body_takes_no_notice(
    opening: Opening, autojump_clock: Clock
) -> None:
    world = World()
    breaking = asyncio.ensure_future(break_soon(world))
    with pytest.RaisesGroup(LinkBug, flatten_subgroups=True):
        async with opening(world) as client:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.sleep(1.0)
    await breaking
    await check_it_is_over(world, client)


@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_failure_behind_it_at_the_moment_when_the_body_ends(opening: Opening, autojump_clock: Clock) -> None:
    """Some ticks of the loop before or after: it comes out of the block or is too late, and cancels nobody after it."""
    came_out = []
    for ticks in range(12):
        world = World()
        failure: ExceptionGroup[Exception] | None = None
        try:
            async with opening(world) as client:
                world.broken.set()
                for _ in range(ticks):
                    await asyncio.sleep(0)
        except ExceptionGroup as group:
            failure = group
        assert failure is None or failure.split(LinkBug)[1] is None
        came_out.append(failure is not None)
        await check_it_is_over(world, client)
    assert came_out == sorted(came_out)
    assert came_out[-1]


@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_failure_comes_out_though_there_is_a_cancellation_from_elsewhere(
    opening: Opening, autojump_clock: Clock
) -> None:
    """An error is not lost to it; and what it counts to stays, for who asked for it."""
    world = World()
    cancelling = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with opening(world):
                await asyncio.Event().wait()
        finally:
            cancelling.append(task.cancelling())

    task = asyncio.ensure_future(work())
    await wait_all_tasks_blocked()
    world.broken.set()
    while world.running:  # noqa: ASYNC110 - so that it comes in the same tick
        await asyncio.sleep(0)
    task.cancel()
    with pytest.RaisesGroup(LinkBug, flatten_subgroups=True):
        await task
    assert cancelling == [1]


# -- with a real node --------------------------------------------------------------------------------------------------


@pytest.mark.backends("asyncio", "uvloop")
async def test_nothing_is_left_on_a_real_connection(tmp_path: Path) -> None:
    """However the block ends: no task, no descriptor."""
    async with running_node(tmp_path) as node:

        async def produce() -> None:
            async with open_producer(node.address) as producer:
                while True:
                    await producer.send_batch([b"x" * 100] * 100)

        async def consume() -> None:
            async with open_consumer(node.address) as consumer:
                async for _ in consumer:
                    pass

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                group.create_task(consume())

        files = open_files()
        for _ in range(4):
            for end in ENDS:
                for work in (produce, consume, both):
                    await end(0.02, work)
        assert living_tasks() == 1
        with anyio.fail_after(10):
            # The node's ends are this process's too, and it closes them when it has noticed. uvloop keeps /dev/null.
            while open_files() > files + 1:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
