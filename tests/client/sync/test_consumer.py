"""The consumer for threads, against a real node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proglog_trio.client.sync import (
    Anchor,
    ConsumedRecord,
    Consumer,
    ConsumerClosed,
    ConsumerConfig,
    NodeUnreachable,
    Producer,
    StartOutOfRange,
    open_consumer,
    open_producer,
)

HANG_SECONDS = 30.0
VALUES = [b"%d" % number for number in range(10_000)]


@pytest.fixture(scope="module")
def producer(node: str) -> Iterator[Producer]:
    with open_producer(node) as producer:
        # The first records of the log, which the tests read from there.
        for begin in range(0, len(VALUES), 500):
            producer.send_batch(VALUES[begin : begin + 500])
        producer.send(b"with all", key=b"key", headers={"name": b"content"}, timestamp=7)
        producer.flush()
        yield producer


def test_records_and_batches_go_on_from_one_another(node: str, producer: Producer) -> None:
    read: list[bytes] = []
    with open_consumer(node, follow=False) as consumer:
        assert consumer.position is not None
        assert consumer.next_offset is None
        assert consumer.node is None
        for record in consumer:
            assert record.node == consumer.node
            read.append(record.value)
            if len(read) == 1234:
                break
        assert consumer.next_offset == 1234
        rest = consumer.next_batch()
        assert rest is not None
        assert (rest.base_offset, rest.count) == (1234, 266)
        read += rest.values()
        for batch in consumer.batches():
            read += batch.values()
            if len(read) > 3000:
                break
        read += [record.value for record in consumer]
        assert read[: len(VALUES) + 1] == [*VALUES, b"with all"]
        assert consumer.next_batch() is None
        assert (consumer.reading_from, consumer.nodes) == (node, (node,))
        assert consumer.end_offset == consumer.next_offset
        assert (consumer.skipped_offsets, consumer.duplicate_records) == (0, 0)
        assert (consumer.cluster_name, consumer.search_failure) == ("proglog", None)


def test_every_field_of_a_record(node: str, producer: Producer) -> None:
    with open_consumer(node, offset=len(VALUES) - 1, follow=False) as consumer:
        plain, whole = next(consumer), next(consumer)
    assert isinstance(plain, ConsumedRecord)
    assert plain[:4] == (VALUES[-1], None, None, None)
    assert whole[:5] == (b"with all", b"key", {"name": b"content"}, 7, len(VALUES))


def test_going_on_from_a_position(node: str, producer: Producer) -> None:
    with open_consumer(node) as consumer:
        for record in consumer:
            if record.offset == 777:
                break
        position = consumer.position
    with open_consumer(node, position=position) as consumer:
        assert next(consumer).offset == 778
    with pytest.raises(ValueError, match="the position to begin at is none"), open_consumer(node, position=b"x"):
        raise AssertionError


def test_little_is_read_ahead_and_all_of_it_comes(node: str, producer: Producer) -> None:
    for prefetch_bytes in (1, 3000, 20_000):
        config = ConsumerConfig(follow=False, prefetch_bytes=prefetch_bytes, response_bytes=1000)
        with open_consumer(node, config) as consumer:
            assert consumer.config is config
            values = [value for batch in consumer.batches() for value in batch.values()]
        assert values[: len(VALUES)] == VALUES


def test_waiting_for_what_is_not_there_yet(node: str, producer: Producer) -> None:
    with open_consumer(node, anchor=Anchor.END) as consumer:
        with pytest.raises(TimeoutError):
            consumer.next_batch(timeout=0.01)
        with ThreadPoolExecutor(1) as threads:
            batch = threads.submit(consumer.next_batch, HANG_SECONDS)
            producer.send_batch([b"news"]).wait()
            found = batch.result()
    assert found is not None
    assert found.values() == [b"news"]


def test_several_threads_share_the_records(node: str, producer: Producer) -> None:
    with (
        open_consumer(node, ConsumerConfig(follow=False, prefetch_bytes=3000)) as consumer,
        ThreadPoolExecutor(8) as pool,
    ):

        def records(_: int) -> list[ConsumedRecord]:
            return list(consumer)

        def batches(_: int) -> list[ConsumedRecord]:
            return [record for batch in consumer.batches() for record in batch]

        shares = [pool.submit(read, number) for number in range(4) for read in (records, batches)]
        taken = [record for share in shares for record in share.result(HANG_SECONDS)]
        end = consumer.end_offset
    assert sorted(record.offset for record in taken) == list(range(end or 0))


def test_leaving_ends_the_wait_of_another_thread(node: str, producer: Producer) -> None:
    failures: list[Exception] = []

    def read(consumer: Consumer) -> None:
        try:
            next(consumer)
        except ConsumerClosed as error:
            failures.append(error)

    with open_consumer(node, anchor=Anchor.END) as consumer:
        thread = threading.Thread(target=read, args=[consumer])
        thread.start()
        with pytest.raises(TimeoutError):
            consumer.next_batch(timeout=0.02)
    thread.join(HANG_SECONDS)
    assert len(failures) == 1
    for call in (consumer.next_batch, consumer.__next__):
        with pytest.raises(ConsumerClosed):
            call()
    assert consumer.position is not None


def test_errors_of_the_node_and_of_opening(node: str, unused_port: int) -> None:
    with open_consumer(node, offset=1 << 40) as consumer:
        for _ in range(2):
            with pytest.raises(StartOutOfRange):
                next(consumer)
    before = threading.active_count()
    with (
        pytest.raises(NodeUnreachable),
        open_consumer(f"127.0.0.1:{unused_port}", ConsumerConfig(connect_timeout=0.1)),
    ):
        raise AssertionError
    with pytest.raises(ValueError, match="not at several of them"), open_consumer(node, offset=1, position=b"x"):
        raise AssertionError
    assert threading.active_count() == before
