"""The consumer's Trio side: over a link of the test's own under a virtual clock, and against a real node."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgpack
import pytest

from proglog_trio._proto.log.v1 import ConsumeBatchesResponse
from proglog_trio.client import (
    Anchor,
    BackoffConfig,
    Consumer,
    ConsumerClosed,
    ConsumerConfig,
    ConsumerError,
    MalformedRecord,
    NodeUnreachable,
    PositionError,
    ProducerConfig,
    RecordsLost,
    StartOutOfRange,
    open_consumer,
    open_producer,
)
from proglog_trio.client.consumer import run_consumer
from proglog_trio.log.batch import Batch
from proglog_trio.log.format.record import payload_crc
from proglog_trio.rpc.calls.sessions import ConsumeLink, ConsumeSession, StreamBroken
from proglog_trio.waiters import Waiters
from tests.backends import Clock, wait_all_tasks_blocked
from tests.client.harness import cutting_proxy, running_node
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame

FAST = BackoffConfig(first=0.001, longest=0.01)


async def values_of(consumer: Consumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    async for record in consumer:
        values.append(record.value)
        if len(values) == count:
            break
    return values


async def fill(address: str, first: int, count: int, *, per_batch: int = 10) -> None:
    config = ProducerConfig(batch_records=per_batch)
    async with open_producer(address, config) as producer:
        await producer.send_batch([b"%06d" % number for number in range(first, first + count)])


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%06d" % number for number in range(first, first + count)]


# -- virtual time ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def start(link: ConsumeLink, **options: Any) -> AsyncIterator[Consumer]:
    config = ConsumerConfig(**options)
    async with run_consumer(config, link, random.Random(1), ("node:1",)) as consumer:
        yield consumer


async def test_reconnecting_goes_on_with_backoff(autojump_clock: Clock) -> None:
    times: list[float] = []

    async def link(session: ConsumeSession) -> None:
        times.append(anyio.current_time())
        request = session.request()
        await anyio.lowlevel.checkpoint()
        session.opened()
        if len(times) == 1:
            session.received(answer_of((0, make_frame(ORIGINS[0], 0, 2))))
            raise StreamBroken("lost")
        if len(times) < 5:
            raise StreamBroken("refused")
        assert request.position is not None
        session.received(answer_of((0, make_frame(ORIGINS[0], 0, 2)), (2, make_frame(ORIGINS[0], 2, 1))))
        await anyio.sleep_forever()

    backoff = BackoffConfig(first=1.0, longest=3.0)
    async with start(link, backoff=backoff) as consumer:
        assert await values_of(consumer, 3) == [b"0.0", b"0.1", b"0.2"]
    waits = [after - before for before, after in pairwise(times)]
    for wait, ceiling in zip(waits, [1.0, 2.0, 3.0, 3.0], strict=True):
        assert ceiling / 2 <= wait <= ceiling


async def test_a_node_that_stays_away(autojump_clock: Clock) -> None:
    streams = 0

    async def link(session: ConsumeSession) -> None:
        nonlocal streams
        streams += 1
        await anyio.lowlevel.checkpoint()
        if streams > 1:
            raise StreamBroken("connection refused")
        session.opened()
        session.received(answer_of((0, make_frame(ORIGINS[0], 0, 1))))
        raise StreamBroken("lost")

    async with start(link, reconnect_timeout=20.0) as consumer:
        begun = anyio.current_time()
        assert await values_of(consumer, 1) == [b"0.0"]
        for _ in range(2):
            with pytest.raises(NodeUnreachable, match="no answer for 20 s: connection refused"):
                await values_of(consumer, 1)
        assert 20.0 <= anyio.current_time() - begun <= 22.0


async def test_no_node_at_all(autojump_clock: Clock) -> None:
    async def link(session: ConsumeSession) -> None:
        await anyio.lowlevel.checkpoint()
        raise StreamBroken("connection refused")

    with pytest.raises(NodeUnreachable, match="no connection within 4 s: connection refused"):
        async with start(link, connect_timeout=4.0):
            pytest.fail("the block must not begin")


async def test_reading_stops_while_nobody_iterates(autojump_clock: Clock) -> None:
    given = 0

    async def link(session: ConsumeSession) -> None:
        nonlocal given
        room = Waiters()
        session.opened(room.wake_all)
        while True:
            while not session.has_room:
                await room.wait()
            await anyio.lowlevel.checkpoint()
            session.received(answer_of((given, make_frame(ORIGINS[0], given, 1, values=[b"value"]))))
            given += 1

    async with start(link, prefetch_bytes=32 * 1024) as consumer:
        await wait_all_tasks_blocked()
        before = given
        # Half of it is for what the node may send unasked; each frame counts for over 1 KiB.
        assert before == 16
        await values_of(consumer, 5)
        await wait_all_tasks_blocked()
        assert given == before + 5


async def test_an_error_in_the_block_comes_out_as_it_is(autojump_clock: Clock) -> None:
    async def link(session: ConsumeSession) -> None:
        session.opened()
        session.received(answer_of())
        await anyio.sleep_forever()

    with pytest.raises(KeyError):
        async with start(link) as consumer:
            raise KeyError
    with pytest.raises(ConsumerClosed):
        await values_of(consumer, 1)


async def test_damage_is_read_again_and_then_said(autojump_clock: Clock) -> None:
    damaged = bytearray(make_frame(ORIGINS[0], 1, 1).encode())
    damaged[-1] ^= 1
    streams = 0

    async def link(session: ConsumeSession) -> None:
        nonlocal streams
        streams += 1
        session.request()
        session.opened()
        await anyio.lowlevel.checkpoint()
        first = make_frame(ORIGINS[0], 0, 1)
        answer = answer_of((0, first))
        session.received(
            ConsumeBatchesResponse(
                frames=answer.frames + bytes(damaged), base_offsets=[0, 1], position=answer.position, end_offset=2
            )
        )

    async with start(link) as consumer:
        assert await values_of(consumer, 1) == [b"0.0"]
        with pytest.raises(RecordsLost, match="offset 1"):
            await values_of(consumer, 1)
        assert streams == 3
        assert consumer.next_offset == 1


# -- a real node -------------------------------------------------------------------------------------------------------


async def test_places_to_begin(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await fill(node.address, 0, 100)
        for start_at, first in ((0, 0), (1, 1), (37, 37), (99, 99)):
            async with open_consumer(node.address, offset=start_at, follow=False) as consumer:
                records = [record async for record in consumer]
            assert [record.value for record in records] == numbers(first, 100 - first)
            assert [record.offset for record in records] == list(range(first, 100))
            assert [record.sequence for record in records] == list(range(first, 100))
        async with open_consumer(node.address, offset=100, follow=False) as consumer:
            assert [record async for record in consumer] == []
            assert consumer.end_offset == 100
            assert consumer.next_offset is None
            assert consumer.position is not None
        async with open_consumer(node.address, offset=101) as consumer:
            with pytest.raises(StartOutOfRange, match="offset 101"):
                await values_of(consumer, 1)
        with pytest.raises(ValueError, match="position"):
            async with open_consumer(node.address, position=b"nonsense"):
                pass
        with pytest.raises(ValueError, match="no port"):
            async with open_consumer("127.0.0.1"):
                pass


async def test_from_the_end_everything_new_is_seen(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await fill(node.address, 0, 10)
        async with open_consumer(node.address, anchor=Anchor.END) as consumer:
            await fill(node.address, 10, 5)
            assert await values_of(consumer, 5) == numbers(10, 5)
            with anyio.move_on_after(0.05) as scope:
                await values_of(consumer, 1)
            assert scope.cancelled_caught, "it waits at the end"
            await fill(node.address, 15, 1)
            assert await values_of(consumer, 1) == numbers(15, 1)


async def test_records_and_batches_go_on_from_one_another(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await fill(node.address, 0, 40)
        async with open_consumer(node.address, follow=False) as consumer:
            assert await values_of(consumer, 13) == numbers(0, 13)
            assert consumer.next_offset == 13
            async for batch in consumer.batches():
                assert (batch.base_offset, len(batch)) == (13, 7)
                assert batch.values() == numbers(13, 7)
                break
            assert consumer.next_offset == 20
            position = consumer.position
            assert await values_of(consumer, 25) == numbers(20, 20)
            assert await values_of(consumer, 1) == []
        async with open_consumer(node.address, position=position, follow=False) as consumer:
            assert consumer.position == position
            assert await values_of(consumer, 100) == numbers(20, 20)


async def test_every_position_resumes_exactly(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await fill(node.address, 0, 12, per_batch=5)
        positions = []
        async with open_consumer(node.address, follow=False) as consumer:
            positions.append(consumer.position)
            async for _ in consumer:
                positions.append(consumer.position)  # noqa: PERF401 - one after each record
        for count, position in enumerate(positions):
            async with open_consumer(node.address, position=position, follow=False) as consumer:
                assert [record.value async for record in consumer] == numbers(count, 12 - count)


async def test_connections_that_break(tmp_path: Path) -> None:
    rng = random.Random(3)
    count = 6000
    async with running_node(tmp_path) as node, cutting_proxy(node.port) as proxy:
        await fill(node.address, 0, count, per_batch=100)
        seen: list[bytes] = []
        offsets: list[int] = []
        config = ConsumerConfig(backoff=FAST, prefetch_bytes=16 * 1024, response_bytes=2000)

        async def cut_again_and_again() -> None:
            while proxy.connections < 30:
                await proxy.was_cut.wait()
                proxy.cut_answers_after(rng.randrange(1, 5000))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as cutting:
                # Not when something has been read: everything may have arrived by then.
                proxy.cut_answers_after(rng.randrange(1, 5000))
                cutting.start_soon(cut_again_and_again)
                async with open_consumer(proxy.address, config) as consumer:
                    async for record in consumer:
                        seen.append(record.value)
                        offsets.append(record.offset)
                        if len(seen) == count:
                            break
                cutting.cancel_scope.cancel()
        assert proxy.connections >= 10
        assert seen == numbers(0, count)
        assert offsets == list(range(count))


async def test_a_node_that_restarts_while_it_is_followed(tmp_path: Path) -> None:
    send, receive = anyio.create_memory_object_stream[bytes](100)
    with anyio.fail_after(30), send, receive:
        async with anyio.create_task_group() as nursery:

            async def follow(address: str) -> None:
                async with open_consumer(address, ConsumerConfig(backoff=FAST)) as consumer:
                    async for record in consumer:
                        await send.send(record.value)

            async with running_node(tmp_path) as node:
                port, address = node.port, node.address
                await fill(address, 0, 10)
                nursery.start_soon(follow, address)
                assert [await receive.receive() for _ in range(10)] == numbers(0, 10)
            async with running_node(tmp_path, port):
                await fill(address, 10, 10)
                assert [await receive.receive() for _ in range(10)] == numbers(10, 10)
                nursery.cancel_scope.cancel()


@pytest.mark.backends(system=["uvloop"])
async def test_a_slow_consumer_does_not_make_the_client_read_ahead(tmp_path: Path) -> None:
    value = b"x" * 10_000
    async with running_node(tmp_path) as node, cutting_proxy(node.port) as proxy:
        async with open_producer(node.address) as producer:
            for _ in range(40):
                await producer.send_batch([value] * 50)
        config = ConsumerConfig(prefetch_bytes=1_000_000, response_bytes=500_000, follow=False)
        async with open_consumer(proxy.address, config) as consumer:
            await anyio.sleep(0.3)
            assert consumer._core.waiting_bytes <= 1_500_000
            assert sum([len(batch) async for batch in consumer.batches()]) == 2000


async def test_leaving_with_a_stalled_connection_takes_no_time(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, cutting_proxy(node.port) as proxy:
        await fill(node.address, 0, 10)
        with anyio.fail_after(5):
            async with open_consumer(proxy.address) as consumer:
                assert await values_of(consumer, 10) == numbers(0, 10)
                proxy.stall()
        proxy.cut()


async def test_nobody_listens(unused_port: int) -> None:
    with pytest.raises(NodeUnreachable, match="cannot connect"):
        async with open_consumer(f"127.0.0.1:{unused_port}", ConsumerConfig(connect_timeout=2.0)):
            pass


def raw_batch(*records: object) -> Batch:
    payload = msgpack.packb(list(records))
    return Batch(payload, len(records), payload_crc(payload))


async def test_malformed_records_are_named_and_passed(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.append(
            raw_batch([b"good 0"], "no array", [b"good 2"], ["text"], [b"good 4"], []),
            raw_batch([b"good 6", "key"], [b"good 7"]),
        )
        good: list[bytes] = []
        malformed: list[tuple[int, int, str]] = []
        following: list[int | None] = []
        async with open_consumer(node.address, follow=False) as consumer:
            while True:
                try:
                    async for record in consumer:
                        good.append(record.value)  # noqa: PERF401 - what came before the error counts
                except MalformedRecord as error:
                    malformed.append((error.offset, error.sequence, str(error)))
                    following.append(consumer.next_offset)
                else:
                    break
    assert good == [b"good 0", b"good 2", b"good 4", b"good 7"]
    assert following == [offset + 1 for offset, _, _ in malformed]
    assert [(offset, sequence) for offset, sequence, _ in malformed] == [(1, 1), (3, 3), (5, 5), (6, 6)]
    assert "no array" in malformed[0][2]
    assert "key of type str" in malformed[3][2]


def damage(directory: Path, needle: bytes) -> None:
    (store,) = [path for path in directory.rglob("*") if path.is_file() and needle in path.read_bytes()]
    data = bytearray(store.read_bytes())
    data[data.index(needle)] ^= 0xFF
    store.write_bytes(data)


async def test_damaged_records_are_an_error_or_skipped(tmp_path: Path) -> None:
    async with running_node(tmp_path, segment_bytes=4096) as node:
        await node.append(*(raw_batch([b"value %02d" % number + b"." * 200]) for number in range(60)))
    damage(tmp_path, b"value 10")
    async with running_node(tmp_path) as node:
        async with open_consumer(node.address, follow=False) as consumer:
            assert len(await values_of(consumer, 10)) == 10
            with pytest.raises(RecordsLost, match="offset"):
                await values_of(consumer, 1)
            assert consumer.next_offset == 10
        async with open_consumer(node.address, ConsumerConfig(on_missing="skip", follow=False)) as consumer:
            values = await values_of(consumer, 100)
            assert consumer.skipped_offsets == 60 - len(values)
            assert consumer.skipped[0].from_offset == 10
            assert 1 <= consumer.skipped[0].count <= 10
            assert values[9].startswith(b"value 09")
            assert values[-1].startswith(b"value 59")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": 1, "anchor": Anchor.END}, "not at several"),
        ({"offset": -1}, "an offset is 0 to"),
        ({"prefetch_bytes": 0}, "prefetch_bytes must be more than 0"),
        ({"response_bytes": 2**32}, "less than 4 GiB"),
        ({"connect_timeout": float("inf")}, "finite"),
    ],
)
def test_configurations_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConsumerConfig(**options)


def test_errors_have_a_common_base() -> None:
    assert issubclass(StartOutOfRange, ConsumerError)
    assert issubclass(RecordsLost, ConsumerError)


async def test_an_error_of_the_program_comes_out_of_the_block_as_it_is(tmp_path: Path) -> None:
    failure = PositionError("of the program's own")
    async with running_node(tmp_path) as node:
        with pytest.raises(PositionError) as raised:
            async with open_consumer(node.address):
                raise failure
        with pytest.raises(ValueError, match="the position to begin at is none"):
            async with open_consumer(node.address, position=b"none"):
                pass
    assert raised.value is failure
