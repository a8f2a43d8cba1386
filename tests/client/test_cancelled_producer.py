"""What a producer's calls do when the program around them is ending: every call, in every state, however the end came.

In a shielded ``finally`` in the block each works, within the delivery timeout as always; after the block, or when the
task behind it has failed, each says at once that it is over. Nothing that was sent stays unsettled, no task is left.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from attrs import define, field

from proglog_trio.client import (
    BackoffConfig,
    BatchDelivery,
    Delivery,
    DeliveryAbandoned,
    DeliveryError,
    DeliveryTimeout,
    Producer,
    ProducerClosed,
    ProducerConfig,
    Record,
    RecordsNotDelivered,
)
from proglog_trio.client.producer import run_producer
from proglog_trio.rpc.calls.sessions import ProduceSession, StreamBroken
from tests.backends import Clock, wait_all_tasks_blocked
from tests.client.test_producer import FakeNode

DELIVERY_SECONDS = 5.0
HANG_SECONDS = 1000.0
VALUE = b"x" * 60


class BodyFailed(Exception):
    """Raised by a block's body."""


class SiblingFailed(Exception):
    """Raised by a task beside the block."""


class LinkBug(Exception):
    """Raised by a link, which no link should do."""


@define
class World:
    """A node that can be made to fail, and what was sent to it."""

    node: FakeNode = field(factory=FakeNode)
    gone: bool = False
    moves: bool = False
    broken: anyio.Event = field(factory=anyio.Event)
    running: int = 0
    sent: list[Delivery | BatchDelivery] = field(factory=list)

    async def link(self, session: ProduceSession) -> None:
        """Run a stream; see ProduceLink."""
        self.running += 1
        try:
            await anyio.lowlevel.checkpoint()
            if self.gone or (self.moves and session.node == "node:1"):
                raise StreamBroken("connection refused")
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(self._break, nursery)
                await self.node.link(session)
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            # Not with except*: before Python 3.11.4 what is raised there comes out in a group again.
            if group.split(LinkBug)[1] is None:
                raise LinkBug from None
            if group.split(StreamBroken)[1] is None:
                raise StreamBroken(str(group.exceptions[0])) from None
            raise
        finally:
            self.running -= 1

    async def _break(self, nursery: TaskGroup) -> None:
        await self.broken.wait()
        self.broken = anyio.Event()
        if self.gone or self.moves:
            raise StreamBroken("the connection was lost")
        raise LinkBug

    async def send(self, producer: Producer) -> None:
        self.sent.append(await producer.send(VALUE))


# -- the states --------------------------------------------------------------------------------------------------------


async def idle(world: World, producer: Producer) -> None:
    """Everything is acknowledged."""
    await world.send(producer)
    await producer.flush()


async def sending(world: World, producer: Producer) -> None:
    """A batch is under way, one lingers."""
    world.node.answer_delay = 1.0
    for _ in range(3):
        await world.send(producer)
    await anyio.sleep(0.5)
    await world.send(producer)


async def full(world: World, producer: Producer) -> None:
    """There is room when the node answers."""
    world.node.answer_delay = 0.3
    while producer.buffered_bytes < 5 * len(VALUE):
        await world.send(producer)


async def silent(world: World, producer: Producer) -> None:
    """The node has stopped answering, and what was sent waits for it."""
    world.node.silent = True
    await world.send(producer)
    await anyio.sleep(0.5)


async def silent_and_full(world: World, producer: Producer) -> None:
    """As before, and there is no room."""
    world.node.silent = True
    await full(world, producer)


async def gone(world: World, producer: Producer) -> None:
    """The node is gone, and nobody else is there."""
    world.gone = True
    world.broken.set()
    await world.send(producer)
    await anyio.sleep(0.5)


async def moving(world: World, producer: Producer) -> None:
    """The first node is gone; another one is being connected to."""
    world.moves = True
    world.broken.set()
    await world.send(producer)
    await wait_all_tasks_blocked()


STATES = [idle, sending, full, silent, silent_and_full, gone, moving]
ANSWERED = [idle, sending, full, moving]


# -- the calls ---------------------------------------------------------------------------------------------------------


async def flush(world: World, producer: Producer) -> None:
    await producer.flush()


async def wait(world: World, producer: Producer) -> None:
    await world.sent[-1].wait()


async def send(world: World, producer: Producer) -> None:
    for _ in range(20):
        await world.send(producer)


async def send_many(world: World, producer: Producer) -> None:
    world.sent.append(await producer.send_many(Record(VALUE) for _ in range(20)))


async def send_batch(world: World, producer: Producer) -> None:
    world.sent.append(await producer.send_batch([VALUE] * 20))


async def send_and_wait(world: World, producer: Producer) -> None:
    await (await producer.send(VALUE)).wait()


CALLS = [flush, wait, send, send_many, send_batch, send_and_wait]


# -- the ends ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def outer_scope_cancelled(after: float) -> AsyncIterator[None]:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as nursery:

            async def cancel() -> None:
                await anyio.sleep(after)
                scope.cancel()

            nursery.start_soon(cancel)
            yield
    assert scope.cancelled_caught


@asynccontextmanager
async def deadline_over(after: float) -> AsyncIterator[None]:
    with anyio.move_on_after(after) as scope:
        yield
    assert scope.cancelled_caught


@asynccontextmanager
async def body_failed(after: float) -> AsyncIterator[None]:
    with pytest.raises(BodyFailed):
        yield


@asynccontextmanager
async def sibling_failed(after: float) -> AsyncIterator[None]:
    async def fail() -> None:
        await anyio.sleep(after)
        raise SiblingFailed

    with pytest.RaisesGroup(SiblingFailed):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(fail)
            yield


ENDS = [outer_scope_cancelled, deadline_over, body_failed, sibling_failed]
End = Callable[[float], Any]
State = Callable[[World, Producer], Awaitable[None]]
Call = Callable[[World, Producer], Awaitable[None]]


def start(world: World) -> Any:
    config = ProducerConfig(
        linger=0.2,
        batch_bytes=2 * len(VALUE),
        buffer_bytes=6 * len(VALUE),
        in_flight=1,
        delivery_timeout=DELIVERY_SECONDS,
        answer_timeout=2.0,
        backoff=BackoffConfig(first=0.1, longest=0.5),
    )
    return run_producer(config, world.link, random.Random(1), ("node:1", "node:2"))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
async def test_in_a_shielded_finally(call: Call, state: State, end: End, autojump_clock: Clock) -> None:
    world = World()
    error: BaseException | None = None
    took = left = 0.0
    async with end(0.6), start(world) as producer:
        try:
            await state(world, producer)
            if end is body_failed:
                raise BodyFailed
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True) as shield:
                began = anyio.current_time()
                shield.deadline = began + HANG_SECONDS
                try:
                    await call(world, producer)
                except (DeliveryError, RecordsNotDelivered) as caught:
                    error = caught
                took = anyio.current_time() - began
            assert not shield.cancelled_caught, "it hangs"
            left = anyio.current_time()
    # Sending a lot to a node that does not answer takes a delivery timeout for each bufferful, as always.
    assert took <= (DELIVERY_SECONDS + 1) * (1 if call in (flush, wait) else 5)
    if state in ANSWERED:
        assert error is None
    elif call in (flush, wait, send_and_wait):
        assert isinstance(error.first if isinstance(error, RecordsNotDelivered) else error, DeliveryTimeout)
    assert anyio.current_time() == left, "what is not acknowledged delays nobody"
    assert world.running == 0
    await check_it_is_over(world, producer)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
async def test_in_a_shielded_finally_when_the_task_behind_has_failed(
    call: Call, state: State, autojump_clock: Clock
) -> None:
    world = World()
    began = -1.0
    with pytest.RaisesGroup(LinkBug, flatten_subgroups=True):
        async with start(world) as producer:
            await state(world, producer)
            if world.gone or world.moves:
                # There must be a stream to fail on.
                world.gone = world.moves = False
                await anyio.sleep(0.6)
            world.broken.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True) as shield:
                    began = anyio.current_time()
                    shield.deadline = began + HANG_SECONDS
                    try:
                        await call(world, producer)
                    except (DeliveryAbandoned, DeliveryTimeout, RecordsNotDelivered, ProducerClosed):
                        pass
                    else:
                        assert call is wait, "what was sent before may have been acknowledged"
                assert not shield.cancelled_caught, "it hangs"
    assert anyio.current_time() == began
    await check_it_is_over(world, producer)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("state", STATES)
async def test_who_waits_in_another_task_is_told(state: State, end: End, autojump_clock: Clock) -> None:
    """Tasks outside the block, which nobody cancels."""
    world = World()
    told: list[BaseException | None] = []

    async def run(call: Call, producer: Producer) -> None:
        try:
            await call(world, producer)
        except (DeliveryAbandoned, RecordsNotDelivered, ProducerClosed) as error:
            told.append(error)
        else:
            told.append(None)

    async with anyio.create_task_group() as nursery:
        async with end(0.6), start(world) as producer:
            await state(world, producer)
            for call in (flush, wait, send, send_and_wait):
                nursery.start_soon(run, call, producer)
            await wait_all_tasks_blocked()
            if end is body_failed:
                raise BodyFailed
            await anyio.sleep_forever()
        left = anyio.current_time()
    assert len(told) == 4
    assert anyio.current_time() == left
    await check_it_is_over(world, producer)


@pytest.mark.parametrize("end", [outer_scope_cancelled, deadline_over, sibling_failed])
@pytest.mark.parametrize("state", [silent, silent_and_full, gone])
async def test_while_the_block_is_being_left_in_order(state: State, end: End, autojump_clock: Clock) -> None:
    world = World()
    left = 0.0
    async with end(3.0), start(world) as producer:
        await state(world, producer)
        left = anyio.current_time()
    assert anyio.current_time() <= max(left, 3.0) + 0.1
    await check_it_is_over(world, producer)


async def test_sending_in_a_cancelled_scope_without_a_shield(autojump_clock: Clock) -> None:
    """Every call is a checkpoint for cancellation, whether it would have to wait or not."""
    world = World()
    async with start(world) as producer:
        await idle(world, producer)
        for call in CALLS:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call(world, producer)
            assert scope.cancelled_caught, call
        assert producer.buffered_bytes == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_comes_out_as_it_is(error: type[BaseException], autojump_clock: Clock) -> None:
    world = World()
    began = 0.0
    with pytest.raises(error):  # noqa: PT012 - the whole block is meant
        async with start(world) as producer:
            await silent(world, producer)
            began = anyio.current_time()
            raise error
    assert anyio.current_time() == began
    await check_it_is_over(world, producer)


async def check_it_is_over(world: World, producer: Producer) -> None:
    """After the block everything is settled, and every call says at once that it is over."""
    began = anyio.current_time()
    assert world.running == 0
    assert all(delivery.settled for delivery in world.sent)
    assert producer.buffered_bytes == 0
    for delivery in world.sent:
        with suppress(DeliveryError):
            await delivery.wait()
    with pytest.raises((ProducerClosed, RecordsNotDelivered)):
        await producer.flush()
    with pytest.raises(ProducerClosed):
        await producer.flush()
    for call in (send, send_many, send_batch, send_and_wait):
        with pytest.raises(ProducerClosed):
            await call(world, producer)
    assert anyio.current_time() == began
