"""The producer against a real node: over connections that break, restarts and refusals."""

import random
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from proglog_trio.client import (
    Acknowledgement,
    BackoffConfig,
    ConsumerConfig,
    DeliveryAbandoned,
    DeliveryRefused,
    NodeUnreachable,
    Producer,
    ProducerConfig,
    Record,
    StatusCode,
    open_consumer,
    open_producer,
)
from tests.client.harness import cutting_proxy, running_node


async def read_all(address: str) -> list[bytes]:
    values: list[bytes] = []
    async with open_consumer(address, ConsumerConfig(follow=False)) as consumer:
        async for batch in consumer.batches():
            values += batch.values()
    return values


async def test_everything_about_a_record_arrives(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        async with open_producer(node.address) as producer:
            delivery = await producer.send(b"value", key=b"key", headers={"name": b"content"}, timestamp=-5)
            bare = await producer.send(bytearray(b"bare"))
            stamped = await producer.send(memoryview(b"stamped"), timestamp=7)
            delivered = await delivery.wait()
            assert (delivered.offset, delivered.sequence, delivered.achieved, delivered.reached) == (0, 0, 1, True)
            assert (await bare.wait()).offset == 1
            assert (await stamped.wait()).log_time > 0
        async with open_consumer(node.address, follow=False) as consumer:
            records = [record async for record in consumer]
    assert [record[:4] for record in records] == [
        (b"value", b"key", {"name": b"content"}, -5),
        (b"bare", None, {}, None),
        (b"stamped", None, {}, 7),
    ]
    assert records[0].origin == delivered.origin
    assert records[0].log_time == delivered.log_time


async def test_many_records_in_one_delivery(tmp_path: Path) -> None:
    values = [b"%d" % number for number in range(1000)]
    async with running_node(tmp_path) as node:
        config = ProducerConfig(batch_records=300, batch_bytes=2000)
        async with open_producer(node.address, config) as producer:
            await producer.send(b"before")
            many = await producer.send_many([Record(value) for value in values])
            batch = await producer.send_batch(values)
            assert many.count == batch.count == 1000
            for delivery, base in ((many, 1), (batch, 1001)):
                parts = await delivery.wait()
                assert delivery.settled
                assert len(parts) > 3
                assert parts[0].base_offset == base
                for before, after in pairwise(parts):
                    assert before.base_offset + before.count == after.base_offset
                assert sum(part.count for part in parts) == 1000
        assert await read_all(node.address) == [b"before", *values, *values]


async def test_a_batch_that_the_node_refuses(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, open_producer(node.address) as producer:
        node.log.config = evolve(node.log.config, max_batch_bytes=5)
        refused = await producer.send(b"refused")
        batch = await producer.send_batch([b"refused too"])
        with pytest.raises(DeliveryRefused, match="INVALID_ARGUMENT") as caught:
            await refused.wait()
        assert caught.value.status is StatusCode.INVALID_ARGUMENT
        assert not caught.value.maybe_stored
        (outcome,) = await batch.outcomes()
        assert isinstance(outcome, DeliveryRefused)
        with pytest.raises(DeliveryRefused):
            await batch.wait()


async def test_a_cause_of_a_far_future_is_no_reason_to_refuse(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, open_producer(node.address) as producer:
        producer.observe(2**63)
        first = await (await producer.send(b"taken")).wait()
        assert first.log_time < 2**63
        # Another time, from a clock that is right, is not hidden by it.
        cause = first.log_time + (5_000 << 16)
        producer.observe(cause)
        assert (await (await producer.send(b"taken too")).wait()).log_time > cause


async def test_acknowledgement_of_more_nodes_than_there_are(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        config = ProducerConfig(acknowledgement=Acknowledgement.nodes_of(3, timeout=0.2))
        async with open_producer(node.address, config) as producer:
            delivered = await (await producer.send(b"value")).wait()
            assert (delivered.achieved, delivered.reached) == (1, False)
        config = ProducerConfig(acknowledgement=Acknowledgement.majority())
        async with open_producer(node.address, config) as producer:
            with pytest.raises(DeliveryRefused) as caught:
                await (await producer.send(b"value")).wait()
            assert caught.value.status is StatusCode.FAILED_PRECONDITION


async def test_a_message_above_the_nodes_limit_fails_alone(tmp_path: Path) -> None:
    """The node ends the stream at the length prefix, without saying which batch it was."""
    async with running_node(tmp_path) as node:
        config = ProducerConfig(max_batch_bytes=8 * 1024 * 1024)
        async with open_producer(node.address, config) as producer:
            before = [await producer.send_batch([b"before"]) for _ in range(2)]
            large = await producer.send(b"x" * 5_000_000)
            after = [await producer.send_batch([b"after"]) for _ in range(2)]
            for delivery in before + after:
                await delivery.wait()
            with pytest.raises(DeliveryRefused) as caught:
                await large.wait()
            assert caught.value.status is StatusCode.RESOURCE_EXHAUSTED
        assert await read_all(node.address) == [b"before"] * 2 + [b"after"] * 2


@pytest.mark.backends(system=["uvloop"])
async def test_connections_that_break_under_load(tmp_path: Path) -> None:
    """Each connection is cut after some bytes, in either direction: every record is there once, in order."""
    rng = random.Random(5)
    sent = 0
    fast = BackoffConfig(first=0.001, longest=0.005)
    async with running_node(tmp_path) as node, cutting_proxy(node.port) as proxy:

        async def load(producer: Producer) -> None:
            nonlocal sent
            while proxy.connections < 25:
                await producer.send_batch([b"%08d" % number for number in range(sent, sent + 200)])
                sent += 200
                if proxy.cut_after_bytes is None:
                    proxy.cut_after_bytes = rng.randrange(1, 40_000)

        with anyio.fail_after(30):
            async with open_producer(proxy.address, ProducerConfig(backoff=fast, buffer_bytes=50_000)) as producer:
                await load(producer)
                proxy.cut_after_bytes = None
            assert producer.statistics.resent > 0
            assert producer.statistics.delivered == sent
            assert producer.statistics.failed == 0
        assert await read_all(node.address) == [b"%08d" % number for number in range(sent)]


@pytest.mark.backends(system=["uvloop"])
async def test_a_node_that_restarts(tmp_path: Path) -> None:
    offsets: list[int] = []
    reached = {100: anyio.Event(), 300: anyio.Event()}
    config = ProducerConfig(linger=0.0, backoff=BackoffConfig(first=0.01, longest=0.05))
    send, receive = anyio.create_memory_object_stream[Producer](0)
    async with send, receive, anyio.create_task_group() as nursery:

        async def produce(address: str) -> None:
            async with open_producer(address, config) as producer:
                await send.send(producer)
                for number in range(300):
                    delivery = await producer.send(b"%04d" % number)
                    offsets.append((await delivery.wait()).offset)
                    if len(offsets) in reached:
                        reached[len(offsets)].set()

        with anyio.fail_after(30):
            async with running_node(tmp_path) as node:
                port = node.port
                nursery.start_soon(produce, node.address)
                producer = await receive.receive()
                await reached[100].wait()
            async with running_node(tmp_path, port) as node:
                await reached[300].wait()
                assert producer.statistics.streams >= 2
                assert await read_all(node.address) == [b"%04d" % number for number in range(300)]
    assert offsets == list(range(300))


async def test_leaving_with_a_stalled_connection_takes_no_time(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, cutting_proxy(node.port) as proxy:
        with anyio.fail_after(5), pytest.raises(KeyError):  # noqa: PT012 - the whole block is meant
            async with open_producer(proxy.address) as producer:
                proxy.stall()
                for _ in range(20):
                    delivery = await producer.send_batch([b"x" * 500_000])
                raise KeyError
        with pytest.raises(DeliveryAbandoned):
            await delivery.wait()
        proxy.cut()


async def test_nobody_listens(unused_port: int) -> None:
    with pytest.raises(NodeUnreachable, match="cannot connect"):
        async with open_producer(f"127.0.0.1:{unused_port}", ProducerConfig(connect_timeout=2.0)):
            pass
    with pytest.raises(ValueError, match="has no port"):
        async with open_producer("127.0.0.1"):
            pass
