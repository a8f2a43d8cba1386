"""The consumer for threads: against a real node, and over links of the test's own."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest

from proglog_trio.client.sync import (
    Anchor,
    ConsumedRecord,
    Consumer,
    ConsumerClosed,
    ConsumerConfig,
    MalformedRecord,
    NodeUnreachable,
    Producer,
    ProducerConfig,
    StartOutOfRange,
    open_consumer,
    open_producer,
)
from proglog_trio.client.sync.client_thread import running
from proglog_trio.client.sync.consumer import ConsumerRun
from proglog_trio.log.format.frame import Frame, FrameHeader
from proglog_trio.log.format.record import payload_crc
from proglog_trio.rpc.calls.sessions import ConsumeLink, ConsumeSession
from tests.client.sync.threads import threads_since
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame

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
        assert (consumer.cluster_name, consumer.search_failure, consumer.obstacle) == ("proglog", None, None)


def test_every_field_of_a_record(node: str, producer: Producer) -> None:
    with open_consumer(node, offset=len(VALUES) - 1, follow=False) as consumer:
        plain, whole = next(consumer), next(consumer)
    assert isinstance(plain, ConsumedRecord)
    assert plain[:4] == (VALUES[-1], None, {}, None)
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
    for prefetch_bytes in (16_384, 20_000, 100_000):
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
        open_consumer(node, ConsumerConfig(follow=False, prefetch_bytes=16_384)) as consumer,
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
    before = threading.enumerate()
    with (
        pytest.raises(NodeUnreachable),
        open_consumer(f"127.0.0.1:{unused_port}", ConsumerConfig(connect_timeout=0.1)),
    ):
        raise AssertionError
    with pytest.raises(ValueError, match="not at several of them"), open_consumer(node, offset=1, position=b"x"):
        raise AssertionError
    assert threads_since(before) == []


# -- over a link of the test's own -------------------------------------------------------------------------------------


@contextmanager
def consuming(link: ConsumeLink, **options: Any) -> Iterator[Consumer]:
    run = ConsumerRun(ConsumerConfig(**options), link, random.Random(1), ("node:1",))
    with running(run.thread):
        assert run.consumer is not None
        yield run.consumer


def frame_of(payload: bytes, sequence: int, count: int) -> Frame:
    header = FrameHeader(ORIGINS[0], sequence, count, sequence + 1, len(payload), payload_crc(payload))
    return Frame(header.sealed(), payload)


def test_malformed_records_are_named_and_passed() -> None:
    frames = [
        (0, frame_of(msgpack.packb([[b"good 0"], "no array", [b"good 2"]]), 0, 3)),
        (3, frame_of(b"\xc1", 3, 4)),
        (7, frame_of(msgpack.packb([["text"], [b"good 8", None, {"a": b"b"}]]), 7, 2)),
    ]

    async def link(session: ConsumeSession) -> None:
        session.opened()
        session.received(answer_of(*frames))
        await anyio.sleep_forever()

    good: list[ConsumedRecord] = []
    malformed: list[tuple[int, int, int | None]] = []
    with consuming(link) as consumer:
        while len(good) < 3:
            try:
                for record in consumer:
                    good.append(record)
                    if len(good) == 3:
                        break
            except MalformedRecord as error:
                malformed.append((error.offset, error.count, consumer.next_offset))
    assert [(record.offset, record.value) for record in good] == [(0, b"good 0"), (2, b"good 2"), (8, b"good 8")]
    assert good[2].headers == {"a": b"b"}
    assert malformed == [(1, 1, 2), (3, 4, 7), (7, 1, 8)]


def test_what_is_read_ahead_is_bounded() -> None:
    sent: list[int] = []

    async def link(session: ConsumeSession) -> None:
        woken = anyio.Event()

        def wake() -> None:
            woken.set()

        session.opened(wake)
        while len(sent) < 200:
            while session.has_room and len(sent) < 200:
                number = len(sent)
                session.received(answer_of((number, make_frame(ORIGINS[0], number, 1, values=[bytes(1000)]))))
                sent.append(number)
            await woken.wait()
            woken = anyio.Event()
        await anyio.sleep_forever()

    with consuming(link, prefetch_bytes=20_000) as consumer:
        for expected in range(200):
            assert next(consumer).offset == expected
            # Two halves, and what exceeds each by less than a batch.
            assert len(sent) <= expected + 25
    assert len(sent) == 200


def test_what_was_skipped_is_told_with_what_comes_after_it(node: str) -> None:
    async def link(session: ConsumeSession) -> None:
        session.opened()
        session.received(answer_of((0, make_frame(ORIGINS[0], 0, 2)), (5, make_frame(ORIGINS[0], 5, 1))))
        await anyio.sleep_forever()

    with consuming(link, on_missing="skip") as consumer:
        assert next(consumer).sequence == 0
        assert next(consumer).sequence == 1
        assert not consumer.skipped
        assert next(consumer).sequence == 5
        assert ["sequences 2 to 4" in skipped.reason for skipped in consumer.skipped] == [True]


def test_a_failure_behind_it_ends_the_reading_and_comes_out_at_the_end() -> None:
    async def link(session: ConsumeSession) -> None:
        session.opened()
        session.received(answer_of((0, make_frame(ORIGINS[0], 0, 1))))
        raise ZeroDivisionError

    def read() -> None:
        with consuming(link) as consumer:
            assert next(consumer).value == b"0.0"
            with pytest.raises(ConsumerClosed):
                next(consumer)

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        read()


def test_nothing_is_left_of_clients_that_were_left(node: str, producer: Producer) -> None:
    def files() -> int:
        gc.collect()
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def cycle(number: int) -> None:
        with (
            contextlib.suppress(LookupError),
            open_consumer(node) as consumer,
            open_producer(node, ProducerConfig(linger=60)) as another,
        ):
            next(consumer)
            another.send(b"x")
            if number % 2:
                raise LookupError

    cycle(0)
    before, opened = threading.enumerate(), files()
    for number in range(20):
        cycle(number)
    assert threads_since(before) == []
    assert files() == opened
