"""What is held for a consumer: of a node's log, while nobody reads and while somebody does; and what it may be told."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.client import (
    ConnectionConfig,
    ConsumerConfig,
    ConsumerError,
    ProducerConfig,
    Record,
    TransportConfig,
    open_consumer,
    open_producer,
)
from proglog_trio.client.consumer_core import ConsumerCore
from proglog_trio.client.fetcher import Fetcher
from proglog_trio.client.prefetch import MIN_PREFETCH_BYTES, PrefetchShares
from proglog_trio.rpc.http2.connection import TunedConnection
from proglog_trio.rpc.http2.message_buffer import MessageBuffer
from proglog_trio.units import KIBIBYTE, MEBIBYTE
from tests.client.harness import running_node
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame
from tests.node_process import node_process

SMALL, DEFAULT = 64 * KIBIBYTE, 12 * MEBIBYTE
ANSWER_OVERHEAD_BYTES = 2 * KIBIBYTE
"""What an answer has beside its frames here: places, and how gRPC and protobuf write them."""


@define
class Held:
    """What was held for the one consumer there is: what waits, what is received and unread, what may still come.

    Attributes:
        most: the largest sum, in bytes.
        most_waiting: the largest part of it that waited.
        full: set when the node may send nothing more and nothing more is read.
    """

    most: int = 0
    most_waiting: int = 0
    full: anyio.Event = field(factory=anyio.Event)
    core: ConsumerCore | None = None
    # Of the client's streams on its present connection, with their numbers.
    streams: dict[int, MessageBuffer] = field(factory=dict)
    connection: TunedConnection | None = None

    def look(self) -> None:
        """Add up what is held now, for the stream that was begun last: the one of batches."""
        if self.core is None or self.connection is None:
            return
        number, buffer = max(self.streams.items())
        window = self.connection.h2_connection.remote_flow_control_window(number)
        self.most = max(self.most, self.core.waiting_bytes + buffer._size + window)
        self.most_waiting = max(self.most_waiting, self.core.waiting_bytes)
        if not window and not self.core.has_room():
            self.full.set()


@contextmanager
def holding() -> Iterator[Held]:
    """Look at what is held whenever it may have become more, for the consumer of this block."""
    held = Held()
    new_buffer, add, received = TunedConnection.message_buffer, MessageBuffer.add, Fetcher.received

    def message_buffer(connection: TunedConnection, stream_id: int) -> MessageBuffer:
        buffer = new_buffer(connection, stream_id)
        if connection.h2_connection.config.client_side:
            held.connection = connection
            held.streams[stream_id] = buffer
        return buffer

    def adding(buffer: MessageBuffer, data: bytes, ack_size: int) -> None:
        add(buffer, data, ack_size)
        if buffer in held.streams.values():
            held.look()

    def receiving(fetcher: Fetcher, answer: Any) -> None:
        held.core = fetcher.core
        received(fetcher, answer)
        held.look()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TunedConnection, "message_buffer", message_buffer)
        patch.setattr(MessageBuffer, "add", adding)
        patch.setattr(Fetcher, "received", receiving)
        yield held


async def fill(address: str, record_bytes: int, total_bytes: int, *, per_batch: int) -> None:
    config = ProducerConfig(batch_records=per_batch, batch_bytes=3 * MEBIBYTE)
    async with open_producer(address, config) as producer:
        await producer.send_batch([bytes(record_bytes)] * (total_bytes // record_bytes))


@pytest.mark.parametrize(
    ("prefetch", "record", "per_batch"),
    [
        (MIN_PREFETCH_BYTES, 100, 1),
        (SMALL, 100, 1),
        (MIN_PREFETCH_BYTES, 128, 20),
        (SMALL, 128, 100),
        (DEFAULT, 128, 4000),
        (SMALL, MEBIBYTE, 1),
        (DEFAULT, MEBIBYTE, 1),
    ],
)
async def test_what_is_held_has_a_bound(tmp_path: Path, prefetch: int, record: int, per_batch: int) -> None:
    shares = PrefetchShares.of(prefetch, ConsumerConfig().response_bytes)
    payload = (record + 5) * per_batch
    # The frames of an answer count for more while they wait than on their way.
    answer = shares.response * (payload + 1100) // (payload + 80)
    largest = max(answer, payload + 1100) + ANSWER_OVERHEAD_BYTES
    total = 24 * MEBIBYTE if prefetch == DEFAULT or record == MEBIBYTE else 4 * prefetch
    async with running_node(tmp_path) as node:
        await fill(node.address, record, total, per_batch=per_batch)
        with holding() as held, anyio.fail_after(60):
            config = ConsumerConfig(prefetch_bytes=prefetch, find_nodes=False, follow=False)
            async with open_consumer(node.address, config) as consumer:
                # Nobody reads, until nothing more comes.
                await held.full.wait()
                assert held.most <= prefetch + largest
                assert held.most_waiting <= shares.waiting + largest
                # It is not just little: what may be held is made use of.
                assert held.most >= prefetch // 2
                size = 0
                async for batch in consumer.batches():
                    size += len(batch) * record
    assert size == total // record * record
    assert held.most <= prefetch + largest


@pytest.mark.parametrize("prefetch", [SMALL, DEFAULT])
def test_memory(tmp_path: Path, prefetch: int) -> None:
    """The bytes that Python has allocated for a consumer that nobody reads: of large values, one is an answer."""

    async def measure() -> int:
        async with node_process(tmp_path) as node:
            await fill(node.address, MEBIBYTE, 24 * MEBIBYTE, per_batch=1)
            with holding() as held, trio.fail_after(60):
                config = ConsumerConfig(prefetch_bytes=prefetch, find_nodes=False)
                gc.collect()
                tracemalloc.start()
                try:
                    async with open_consumer(node.address, config):
                        await held.full.wait()
                        return tracemalloc.get_traced_memory()[0]
                finally:
                    tracemalloc.stop()

    assert trio.run(measure) <= prefetch + MEBIBYTE + 512 * KIBIBYTE


def test_frames_that_wait_count_for_their_origins() -> None:
    """A frame of one short record behind a long position holds a kilobyte, and the position."""
    core = ConsumerCore(ConsumerConfig())
    core.request()
    core.received_answer(answer_of(*((place, make_frame(origin, 0, 1)) for place, origin in enumerate(ORIGINS))))
    waiting = core.waiting_bytes
    assert waiting > 1000 * len(ORIGINS)
    core.received_answer(answer_of((9, make_frame(ORIGINS[0], 1, 1))))
    assert core.waiting_bytes - waiting >= 1000 + 40 * len(ORIGINS)
    while core.next_batch() is not None:
        pass
    assert core.waiting_bytes == 0


@given(st.integers(MIN_PREFETCH_BYTES, 2**40), st.integers(1, 2**32 - 1))
def test_shares(prefetch: int, response: int) -> None:
    shares = PrefetchShares.of(prefetch, response)
    assert shares.window + shares.waiting == prefetch
    assert shares.waiting >= shares.window >= min(MIN_PREFETCH_BYTES // 2, prefetch)
    assert 1 <= shares.response <= min(response, shares.window)
    assert shares.window <= 4 * MEBIBYTE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch_bytes": MIN_PREFETCH_BYTES - 1}, r"prefetch_bytes must be at least 16384 \(16 KiB\), it is 16383"),
        ({"prefetch_bytes": -1}, "prefetch_bytes must be more than 0"),
        ({"prefetch_bytes": 8e6}, "prefetch_bytes must be a whole number of bytes, not 8000000.0"),
        ({"prefetch_bytes": float("nan")}, "a whole number of bytes"),
        ({"response_bytes": True}, "a whole number of bytes"),
        ({"response_bytes": 0}, "response_bytes must be more than 0"),
    ],
)
def test_sizes_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ConsumerConfig(**options)


async def test_one_record_that_is_larger_than_all(tmp_path: Path) -> None:
    """A batch cannot be had in parts: it comes, however little is to be held."""
    async with running_node(tmp_path) as node:
        async with open_producer(node.address) as producer:
            await producer.send_many([Record(bytes(3 * MEBIBYTE)), Record(b"small")])
        open_small = partial(open_consumer, node.address, ConsumerConfig(prefetch_bytes=MIN_PREFETCH_BYTES))
        async with open_small(follow=False) as consumer:
            with anyio.fail_after(30):
                assert [len(record.value) async for record in consumer] == [3 * MEBIBYTE, 5]


async def test_answers_fit_the_longest_message(tmp_path: Path) -> None:
    """Also where that is shorter than what a consumer asks for by itself; what does not fit says what to change."""
    connection = ConnectionConfig(transport=TransportConfig(message_bytes=64 * KIBIBYTE))
    async with running_node(tmp_path) as node:
        await fill(node.address, 100, 400 * KIBIBYTE, per_batch=1)
        open_short = partial(open_consumer, node.address, connection=connection, follow=False)
        async with open_short() as consumer:
            assert len([record async for record in consumer]) == 4096
        await fill(node.address, 100, 100 * KIBIBYTE, per_batch=1024)
        with anyio.fail_after(30), pytest.raises(ConsumerError, match=r"raise message_bytes \(TransportConfig\)"):
            async with open_short() as consumer:
                assert [record async for record in consumer] == []
