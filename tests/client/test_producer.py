"""The producer's Trio side: over a link of the test's own under a virtual clock, and against a real node."""

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from proglog_trio._proto.log.v1 import ProduceBatchRequest, ProduceBatchResponse
from proglog_trio.client import (
    Acknowledgement,
    BackoffConfig,
    DeliveredBatch,
    Delivery,
    DeliveryAbandoned,
    DeliveryError,
    DeliveryTimeout,
    NodeUnreachable,
    Origin,
    Producer,
    ProducerClosed,
    ProducerConfig,
    RecordsNotDelivered,
    RecordTooLarge,
)
from proglog_trio.client.producer import run_producer
from proglog_trio.rpc.calls.sessions import ProduceLink, ProduceSession, StreamBroken
from proglog_trio.waiters import Waiters
from tests.backends import Clock, wait_all_tasks_blocked


class FakeNode:
    """Answers on a link without I/O, as late as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[float, ProduceBatchRequest]] = []
        self.streams = 0
        self.answer_delay = 0.0
        self.silent = False
        self.fail: Callable[[], StreamBroken | None] = lambda: None
        self.next_offset = 0
        self.ended_in_order = False

    async def link(self, session: ProduceSession) -> None:
        self.streams += 1
        await anyio.lowlevel.checkpoint()
        failure = self.fail()
        if failure is not None:
            raise failure
        ready = Waiters()
        session.opened(ready.wake_all)
        async with anyio.create_task_group() as nursery:
            while not session.finishing:
                while (data := session.next_request()) is not None:
                    request = ProduceBatchRequest.FromString(data)
                    self.requests.append((anyio.current_time(), request))
                    nursery.start_soon(self._answer, session, request)
                if not session.finishing:
                    await ready.wait()
        self.ended_in_order = True

    async def _answer(self, session: ProduceSession, request: ProduceBatchRequest) -> None:
        await anyio.sleep(self.answer_delay)
        if self.silent:
            await anyio.sleep_forever()
        offset, self.next_offset = self.next_offset, self.next_offset + request.count
        session.answered(
            ProduceBatchResponse(
                producer_sequence=request.producer_sequence,
                base_offset=offset,
                count=request.count,
                origin=bytes(16),
                base_sequence=offset,
            )
        )


def start(node: FakeNode | ProduceLink, **options: Any) -> AbstractAsyncContextManager[Producer]:
    link = node.link if isinstance(node, FakeNode) else node
    return run_producer(ProducerConfig(**options), link, random.Random(1), ("node:1",))


# -- virtual time ------------------------------------------------------------------------------------------------------


async def test_records_linger_and_go_out_together(autojump_clock: Clock) -> None:
    node = FakeNode()
    async with start(node, linger=2.0) as producer:
        begun = anyio.current_time()
        first = await producer.send(b"one")
        await anyio.sleep(1.0)
        second = await producer.send(b"two")
        assert not first.settled
        assert (await first.wait()).offset == 0
        assert (await second.wait()).offset == 1
        assert [(when - begun, request.count) for when, request in node.requests] == [(2.0, 2)]
    assert node.ended_in_order


async def test_flush_does_not_linger(autojump_clock: Clock) -> None:
    node = FakeNode()
    async with start(node, linger=50.0) as producer:
        begun = anyio.current_time()
        delivery = await producer.send(b"value")
        await producer.flush()
        assert delivery.settled
        assert anyio.current_time() == begun
        await producer.flush()


async def test_leaving_the_block_flushes(autojump_clock: Clock) -> None:
    node = FakeNode()
    async with start(node, linger=50.0) as producer:
        delivery = await producer.send(b"value")
    assert (await delivery.wait()).offset == 0
    with pytest.raises(ProducerClosed):
        await producer.send(b"later")


async def test_a_full_buffer_makes_send_wait_in_turn(autojump_clock: Clock) -> None:
    node = FakeNode()
    node.answer_delay = 10.0
    order: list[bytes] = []
    async with start(node, linger=0.0, buffer_bytes=100, batch_bytes=100, in_flight=1) as producer:

        async def send(value: bytes) -> None:
            await producer.send(value)
            order.append(value)

        begun = anyio.current_time()
        await producer.send(b"x" * 90)
        async with anyio.create_task_group() as nursery:
            for number in range(4):
                nursery.start_soon(send, b"%d" % number * 60)
                await wait_all_tasks_blocked()
            assert order == []
            assert producer.buffered_bytes <= 100
        assert [value[:1] for value in order] == [b"0", b"1", b"2", b"3"]
        assert anyio.current_time() - begun == 40.0


async def test_a_cancelled_send_leaves_nothing_behind(autojump_clock: Clock) -> None:
    node = FakeNode()
    node.answer_delay = 5.0
    async with start(node, linger=0.0, buffer_bytes=100, batch_bytes=100) as producer:
        await producer.send(b"x" * 90)
        with anyio.move_on_after(1.0) as scope:
            await producer.send(b"y" * 90)
        assert scope.cancelled_caught
        await producer.send(b"z" * 90)
    assert [request.count for _, request in node.requests] == [1, 1]


async def test_connecting_is_tried_again_with_backoff(autojump_clock: Clock) -> None:
    node = FakeNode()
    times: list[float] = []

    def fail() -> StreamBroken | None:
        times.append(anyio.current_time())
        return StreamBroken("connection refused") if len(times) <= 6 else None

    node.fail = fail
    async with start(node, backoff=BackoffConfig(first=0.1, longest=1.0)) as producer:
        await producer.send(b"value")
    waits = [after - before for before, after in pairwise(times)]
    for wait, ceiling in zip(waits, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0], strict=True):
        assert ceiling / 2 <= wait <= ceiling + 1e-9


async def test_no_connection_at_all_is_said_at_once(autojump_clock: Clock) -> None:
    node = FakeNode()
    node.fail = lambda: StreamBroken("connection refused")
    with pytest.raises(NodeUnreachable, match="no connection within 3 s: connection refused"):
        async with start(node, connect_timeout=3.0):
            pytest.fail("the block must not begin")


async def test_without_waiting_for_the_connection_deliveries_fail(autojump_clock: Clock) -> None:
    node = FakeNode()
    node.fail = lambda: StreamBroken("connection refused")
    async with start(node, connect_timeout=None, delivery_timeout=5.0) as producer:
        delivery = await producer.send(b"value")
        with pytest.raises(DeliveryTimeout, match=r"not sent within 5 s \(connection refused\)") as caught:
            await delivery.wait()
        assert not caught.value.maybe_stored


async def test_a_silent_node(autojump_clock: Clock) -> None:
    node = FakeNode()
    async with start(node, linger=0.0, answer_timeout=4.0, delivery_timeout=10.0) as producer:
        node.silent = True
        delivery = await producer.send(b"lost")
        with pytest.raises(DeliveryTimeout) as caught:
            await delivery.wait()
        assert caught.value.maybe_stored
        sequences = [request.producer_sequence for _, request in node.requests]
        assert sequences == [0] * len(sequences)
        assert len(sequences) >= 2, "tried again on a new stream"
        node.silent = False
        assert (await (await producer.send(b"found")).wait()).offset == 0
        assert node.requests[-1][1].producer_sequence == 1, "what was given up is not sent again"


@pytest.mark.parametrize("seconds", [15.0, 1e6])
async def test_answers_that_arrived_during_a_pause_are_read_before_anything_is_given_up(
    mock_clock: Clock, seconds: float
) -> None:
    node = FakeNode()
    answers = anyio.Event()

    async def link(session: ProduceSession) -> None:
        session.opened()
        data = None
        while data is None:
            await anyio.lowlevel.checkpoint()
            data = session.next_request()
        await answers.wait()
        await node._answer(session, ProduceBatchRequest.FromString(data))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as nursery, start(link, delivery_timeout=10.0, answer_timeout=5.0) as producer:
        delivery = await producer.send(b"value")
        nursery.start_soon(producer.flush)
        await wait_all_tasks_blocked()
        mock_clock.jump(seconds)
        await wait_all_tasks_blocked()
        assert not delivery.settled
        answers.set()
        await wait_all_tasks_blocked()
        assert (await delivery.wait()).offset == 0
        mock_clock.autojump_threshold = 0


@pytest.mark.parametrize("seconds", [15.0, 1e6])
async def test_a_delivery_that_a_pause_outlasted_says_so(mock_clock: Clock, seconds: float) -> None:
    node = FakeNode()
    node.silent = True
    async with start(node, delivery_timeout=10.0, answer_timeout=5.0, linger=0.0) as producer:
        delivery = await producer.send(b"value")
        await wait_all_tasks_blocked()
        mock_clock.jump(seconds)
        mock_clock.autojump_threshold = 0
        with pytest.raises(DeliveryTimeout) as caught:
            await delivery.wait()
        assert caught.value.maybe_stored


async def test_failures_nobody_waited_for_come_out_of_the_block(autojump_clock: Clock) -> None:
    node = FakeNode()
    with pytest.raises(RecordsNotDelivered, match="2 records") as caught:  # noqa: PT012 - the whole block is meant
        async with start(node, delivery_timeout=5.0) as producer:
            node.silent = True
            await producer.send(b"one")
            await producer.send(b"two")
    assert isinstance(caught.value.first, DeliveryTimeout)


async def test_a_failure_that_somebody_waits_for_is_not_reported_again(
    autojump_clock: Clock,
) -> None:
    node = FakeNode()
    told: list[DeliveryError] = []

    async def wait_for(delivery: Delivery) -> None:
        with pytest.raises(DeliveryTimeout) as caught:
            await delivery.wait()
        told.append(caught.value)

    async with start(node, delivery_timeout=5.0) as producer, anyio.create_task_group() as nursery:
        node.silent = True
        for _ in range(3):
            nursery.start_soon(wait_for, await producer.send(b"value"))
        await producer.flush()
    assert len(told) == 3


async def test_an_error_in_the_block_comes_out_as_it_is(autojump_clock: Clock) -> None:
    node = FakeNode()
    deliveries = []
    with pytest.raises(KeyError):  # noqa: PT012 - the whole block is meant
        async with start(node, linger=0.0, in_flight=1) as producer:
            node.silent = True
            deliveries.append(await producer.send(b"sent"))
            await anyio.sleep(1.0)
            deliveries.append(await producer.send(b"not sent"))
            raise KeyError
    for delivery, maybe in zip(deliveries, [True, False], strict=True):
        with pytest.raises(DeliveryAbandoned) as caught:
            await delivery.wait()
        assert caught.value.maybe_stored is maybe


async def test_cancelling_the_block(autojump_clock: Clock) -> None:
    node = FakeNode()
    node.silent = True
    with anyio.move_on_after(1.0) as scope:
        async with start(node) as producer:
            delivery = await producer.send(b"value")
    assert scope.cancelled_caught
    assert anyio.current_time() <= 1.1
    with pytest.raises(DeliveryAbandoned):
        await delivery.wait()


async def test_a_bug_of_a_link_is_not_swallowed(autojump_clock: Clock) -> None:
    async def link(session: ProduceSession) -> None:
        await anyio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with start(link, connect_timeout=5.0):
            pass
    assert caught.group_contains(ZeroDivisionError)


async def test_an_idle_producer_opens_no_stream(autojump_clock: Clock) -> None:
    node = FakeNode()
    fail = anyio.Event()

    async def link(session: ProduceSession) -> None:
        if not fail.is_set():
            fail.set()
            session.opened()
            raise StreamBroken("lost")
        await node.link(session)

    async with start(link) as producer:
        await anyio.sleep(100.0)
        assert node.streams == 0
        await producer.send(b"value")
        await producer.flush()
        assert node.streams == 1


# -- what is refused at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"value": "text"}, TypeError, "value must be bytes, not str, encode it"),
        ({"value": b"v", "key": 5}, TypeError, "key must be bytes, not int"),
        ({"value": b"v", "headers": {b"k": b"v"}}, TypeError, "name must be str, not bytes"),
        ({"value": b"v", "headers": {"k": "v"}}, TypeError, "header 'k' must be bytes"),
        ({"value": b"v", "timestamp": 1.5}, TypeError, "timestamp must be an int"),
        ({"value": b"v", "timestamp": 2**63}, ValueError, "must fit 64 bits"),
        ({"value": b""}, ValueError, "empty"),
        ({"value": b"", "headers": {}}, ValueError, "empty"),
        ({"value": b"x" * 2000}, RecordTooLarge, "2004 bytes .packed. is larger than the limit of 995 bytes"),
    ],
)
async def test_records_that_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, autojump_clock: Clock
) -> None:
    node = FakeNode()
    async with start(node, max_batch_bytes=1000, batch_bytes=1000) as producer:
        with pytest.raises(error, match=message):
            await producer.send(**arguments)
        assert producer.buffered_bytes == 0


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([b"a", "b"], TypeError, "value 1: a record's value must be bytes, not str"),
        ([b"a", b"", b"c"], ValueError, "value 1 is empty"),
        ([b"a", b"x" * 2000], RecordTooLarge, "2006 bytes"),
    ],
)
async def test_batches_that_are_refused(
    values: list[bytes], error: type[Exception], message: str, autojump_clock: Clock
) -> None:
    node = FakeNode()
    async with start(node, max_batch_bytes=1000, batch_bytes=1000) as producer:
        with pytest.raises(error, match=message):
            await producer.send_batch(values)
        assert (await (await producer.send_batch([])).wait()) == ()
    assert node.requests == []


async def test_outcomes_are_errors_of_their_own(autojump_clock: Clock) -> None:
    """Two waiters must not get one exception object, whose traceback would grow."""
    node = FakeNode()
    async with start(node, delivery_timeout=1.0) as producer:
        node.silent = True
        delivery = await producer.send_batch([b"value"])
        errors = [(await delivery.outcomes())[0] for _ in range(2)]
    first, second = errors
    assert isinstance(first, DeliveryError)
    assert isinstance(second, DeliveryError)
    assert first is not second
    assert str(first) == str(second)
    assert first.maybe_stored == second.maybe_stored


def test_parts_of_a_delivered_batch() -> None:
    whole = DeliveredBatch(10, 5, Origin(bytes(16)), 20, 1, 1, True)
    assert whole.part(0, 5) is whole
    part = whole.part(2, 3)
    assert (part.base_offset, part.count, part.base_sequence) == (12, 3, 22)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_flight": 6}, "in_flight must be 1 to 5"),
        ({"batch_bytes": 5_000_000}, "more than max_batch_bytes"),
        ({"delivery_timeout": 301}, "at most 300 s"),
        ({"delivery_timeout": 0}, "delivery_timeout must be more than 0"),
        ({"linger": -1}, "linger must not be negative"),
        ({"linger": 120}, "leaves nothing"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"acknowledgement": Acknowledgement.majority(30)}, "must be less than answer_timeout"),
    ],
)
def test_configurations_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProducerConfig(**options)


def test_acknowledgements_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least 1 node"):
        Acknowledgement.nodes_of(0)
    with pytest.raises(ValueError, match="seconds"):
        Acknowledgement.majority(timeout=0)
    with pytest.raises(ValueError, match="backoff"):
        BackoffConfig(first=2, longest=1)
