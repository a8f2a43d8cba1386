"""What `into` says of a call that did not return: which records were handed in, and what became of them."""

import math
import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import msgpack
import pytest
import trio.testing

from proglog_trio._proto.log.v1 import ProduceBatchRequest, ProduceBatchResponse
from proglog_trio.client import (
    BatchDelivery,
    DeliveryAbandoned,
    Producer,
    ProducerClosed,
    ProducerConfig,
    Record,
    RecordTooLarge,
)
from proglog_trio.client.producer import run_producer
from proglog_trio.rpc.calls.sessions import ProduceSession

VALUES = [b"%03d" % number * 10 for number in range(40)]


class SlowNode:
    """Takes a second, or as long as it is told, for each batch, one after the other; nothing is lost on its link."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.values: list[bytes] = []
        self._woken = anyio.Event()

    async def link(self, session: ProduceSession) -> None:
        """Run a stream; see ProduceLink."""
        session.opened(lambda: self._woken.set())
        while not session.finishing:
            self._woken = anyio.Event()
            while (data := session.next_request()) is not None:
                request = ProduceBatchRequest.FromString(data)
                await (anyio.sleep(self.seconds) if math.isfinite(self.seconds) else anyio.sleep_forever())
                answer = ProduceBatchResponse(
                    producer_sequence=request.producer_sequence, base_offset=len(self.values), count=request.count
                )
                answer.origin, answer.base_sequence = bytes(16), len(self.values)
                self.values += [row[0] for row in msgpack.unpackb(request.payload)]
                session.answered(answer)
            if not session.finishing:
                await self._woken.wait()

    def start(self, **options: Any) -> AbstractAsyncContextManager[Producer]:
        """Run a producer that writes to it, with room for a few values."""
        config = ProducerConfig(
            batch_records=3, buffer_bytes=100, batch_bytes=200, max_batch_bytes=200, answer_timeout=1e3, **options
        )
        return run_producer(config, self.link, random.Random(1), ("node:1",))


async def send(producer: Producer, way: str, values: list[bytes], into: BatchDelivery) -> BatchDelivery:
    if way == "send_batch":
        return await producer.send_batch(values, into=into)
    return await producer.send_many([Record(value) for value in values], into=into)


@pytest.mark.parametrize("way", ["send_batch", "send_many"])
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5, 3.5])
async def test_cancelled_and_sent_on(autojump_clock: trio.testing.MockClock, way: str, seconds: float) -> None:
    node = SlowNode()
    async with node.start() as producer:
        handed_in = BatchDelivery()
        with anyio.move_on_after(seconds) as scope:
            await send(producer, way, VALUES, handed_in)
        assert scope.cancelled_caught
        first = handed_in.count
        assert 0 < first < len(VALUES) or not seconds
        # All of these, and nothing besides, is sent and stored.
        parts = await handed_in.wait()
        assert sum(part.count for part in parts) == handed_in.count == first
        assert node.values == VALUES[:first]
        assert await send(producer, way, VALUES[first:], handed_in) is handed_in
        assert handed_in.count == len(VALUES)
        assert not handed_in.settled
        parts = await handed_in.wait()
    assert node.values == VALUES
    assert [part.base_offset for part in parts] == [sum(part.count for part in parts[:n]) for n in range(len(parts))]
    assert sum(part.count for part in parts) == len(VALUES)


async def test_cancelled_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    node = SlowNode(0.7)
    handed_in = BatchDelivery()
    async with node.start() as producer:
        cancelled = 0
        while handed_in.count < len(VALUES):
            with anyio.move_on_after(0.3) as scope:
                await producer.send_batch(VALUES[handed_in.count :], into=handed_in)
            cancelled += scope.cancelled_caught
        await handed_in.wait()
    assert cancelled > 3
    assert node.values == VALUES


async def test_left_while_it_waits_for_room(autojump_clock: trio.testing.MockClock) -> None:
    node = SlowNode(math.inf)
    handed_in = {way: BatchDelivery() for way in ("send_batch", "send_many")}
    raised: list[ProducerClosed] = []

    async def send_all(producer: Producer, way: str) -> None:
        with pytest.raises(ProducerClosed) as error:
            await send(producer, way, VALUES, handed_in[way])
        raised.append(error.value)

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what it is about
            async with node.start() as producer:
                for way in handed_in:
                    tasks.start_soon(send_all, producer, way)
                    await anyio.sleep(1)
                raise ZeroDivisionError
    assert len(raised) == 2
    first = handed_in["send_batch"]
    assert 0 < first.count < len(VALUES)
    assert all(isinstance(outcome, DeliveryAbandoned) for outcome in await first.outcomes())
    # What was waited for is known; the second never had a turn.
    assert (handed_in["send_many"].count, await handed_in["send_many"].outcomes()) == (0, ())


async def test_another_tasks_records_between(autojump_clock: trio.testing.MockClock) -> None:
    node = SlowNode()
    async with node.start(linger=0.1) as producer, anyio.create_task_group() as tasks:
        handed_in = BatchDelivery()
        tasks.start_soon(producer.send_many, [Record(b"other")] * 20)
        with anyio.move_on_after(2.5):
            await producer.send_many(map(Record, VALUES), into=handed_in)
        parts = await handed_in.wait()
    sent = node.values
    assert [value for value in sent if value != b"other"] == VALUES[: handed_in.count]
    found = [sent[offset] for part in parts for offset in range(part.base_offset, part.base_offset + part.count)]
    assert found == VALUES[: handed_in.count]


async def test_a_refused_record_comes_behind_what_was_handed_in(autojump_clock: trio.testing.MockClock) -> None:
    def failing() -> Iterator[Record]:
        yield Record(b"a")
        yield Record(b"b")
        raise LookupError

    node = SlowNode()
    async with node.start() as producer:
        handed_in = BatchDelivery()
        with pytest.raises(RecordTooLarge):
            await producer.send_many([Record(b"c"), Record(bytes(1000)), Record(b"d")], into=handed_in)
        assert handed_in.count == 1
        with pytest.raises(LookupError):
            await producer.send_many(failing(), into=handed_in)
        assert handed_in.count == 3
        with pytest.raises(ValueError, match="value 1 is empty"):
            await producer.send_batch([b"e", b""], into=handed_in)
        assert handed_in.count == 3
        assert sum(part.count for part in await handed_in.wait()) == 3
    assert node.values == [b"c", b"a", b"b"]


async def test_nothing_handed_in() -> None:
    delivery = BatchDelivery()
    assert (delivery.count, delivery.settled, await delivery.wait(), await delivery.outcomes()) == (0, True, (), ())
