"""The producer for threads: over a link of the test's own, and against a real node."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import anyio.to_thread
import pytest

import proglog_trio.client
import proglog_trio.client.sync
from proglog_trio.client.sync import (
    Delivered,
    Delivery,
    DeliveryAbandoned,
    DeliveryRefused,
    NodeUnreachable,
    Producer,
    ProducerClosed,
    ProducerConfig,
    Record,
    RecordsNotDelivered,
    RecordTooLarge,
    StatusCode,
    open_consumer,
    open_producer,
)
from proglog_trio.rpc.calls.sessions import StreamBroken
from tests.client.sync.held_node import HeldNode, producing
from tests.client.sync.threads import threads_since

HANG_SECONDS = 30.0


def test_it_has_every_name_that_the_client_for_tasks_has() -> None:
    assert set(proglog_trio.client.__all__) < set(proglog_trio.client.sync.__all__)


def test_everything_about_a_record_arrives(node: str) -> None:
    with open_producer(node) as producer:
        delivery = producer.send(b"value", key=b"key", headers={"name": b"content"}, timestamp=-5)
        bare = producer.send(bytearray(b"bare"))
        delivered = delivery.wait()
        assert isinstance(delivered, Delivered)
        assert (delivered.achieved, delivered.reached, delivered.node) == (1, True, node)
        assert bare.wait(timeout=HANG_SECONDS).offset == delivered.offset + 1
        assert (producer.node, producer.nodes, producer.cluster_name) == (node, (node,), "proglog")
        assert producer.statistics.delivered == 2
        assert (producer.obstacle, producer.search_failure) == (None, None)
    with open_consumer(node, offset=delivered.offset, follow=False) as consumer:
        record = next(consumer)
    assert record[:4] == (b"value", b"key", {"name": b"content"}, -5)
    assert (record.origin, record.sequence, record.log_time) == (
        delivered.origin,
        delivered.sequence,
        delivered.log_time,
    )


def test_many_records_in_one_delivery(node: str) -> None:
    values = [b"%d" % number for number in range(1000)]
    with open_producer(node, ProducerConfig(batch_records=300, batch_bytes=2000)) as producer:
        base = producer.send(b"before").wait().offset + 1
        many = producer.send_many([Record(value) for value in values])
        batch = producer.send_batch(values)
        assert many.count == batch.count == 1000
        for delivery, first in ((many, base), (batch, base + 1000)):
            parts = delivery.wait()
            assert delivery.settled
            assert len(parts) > 3
            assert parts[0].base_offset == first
            for before, after in pairwise(parts):
                assert before.base_offset + before.count == after.base_offset
            assert sum(part.count for part in parts) == 1000
    with open_consumer(node, offset=base, follow=False) as consumer:
        assert [record.value for record in consumer] == [*values, *values]


def test_many_threads_write_at_once(node: str) -> None:
    def write(producer: Producer, number: int) -> list[int]:
        deliveries = [producer.send(b"%d %d" % (number, index)) for index in range(200)]
        if number % 3 == 0:
            producer.flush()
        return [delivery.wait(timeout=HANG_SECONDS).offset for delivery in deliveries]

    config = ProducerConfig(buffer_bytes=4000, batch_bytes=500)
    with open_producer(node, config) as producer, ThreadPoolExecutor(16) as threads:
        begin = producer.send(b"begin").wait().offset + 1
        offsets = list(threads.map(lambda number: write(producer, number), range(16)))
    with open_consumer(node, offset=begin, follow=False) as consumer:
        values = {record.offset: record.value for record in consumer}
    assert len(values) == 16 * 200
    for number, own in enumerate(offsets):
        assert own == sorted(own)
        assert [values[offset] for offset in own] == [b"%d %d" % (number, index) for index in range(200)]


def test_what_is_observed_comes_first(node: str) -> None:
    with open_producer(node) as producer:
        ahead = producer.send(b"cause").wait().log_time + (30_000 << 16)
        producer.observe(ahead)
        assert producer.send(b"effect").wait().log_time > ahead
        with pytest.raises(ValueError, match="no log time"):
            producer.observe(-1)


def test_records_that_are_none_are_refused_at_once() -> None:
    node = HeldNode()
    with producing(node, max_batch_bytes=100, batch_bytes=100) as producer:
        with pytest.raises(TypeError, match="encode it"):
            producer.send("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="empty"):
            producer.send(b"")
        with pytest.raises(RecordTooLarge):
            producer.send(bytes(200))
        with pytest.raises(TypeError, match="value 1"):
            producer.send_batch([b"fine", 3])  # type: ignore[list-item]
        assert producer.buffered_bytes == 0
    assert not node.requests


def test_records_linger_and_go_out_together() -> None:
    node = HeldNode()
    with producing(node, linger=0.2) as producer:
        begun = time.monotonic()
        deliveries = [producer.send(b"%d" % number) for number in range(500)]
        assert [delivery.wait().offset for delivery in deliveries] == list(range(500))
        assert time.monotonic() - begun >= 0.2
    assert [request.count for request in node.requests] == [500]


def test_while_the_node_is_busy_records_gather() -> None:
    node = HeldNode(held=True)
    with producing(node, linger=0, in_flight=1) as producer:
        first = producer.send(b"x")
        while not node.requests:
            time.sleep(0.001)
        others = [producer.send(b"x") for _ in range(100)]
        time.sleep(0.02)
        node.release()
        assert [delivery.wait().offset for delivery in (first, *others)] == list(range(101))
    # Those that came while it was busy are one batch, although none had to linger.
    assert len(node.requests) <= 3


def test_a_full_buffer_makes_send_wait() -> None:
    node = HeldNode(held=True)
    with producing(node, buffer_bytes=1000, batch_bytes=300, linger=60) as producer:
        deliveries = [producer.send(bytes(90)) for _ in range(10)]
        with pytest.raises(TimeoutError, match="of 1000 that buffer_bytes allows; it was not handed in"):
            producer.send(bytes(90), timeout=0.01)
        with pytest.raises(TimeoutError, match="0 of 3 values were handed in"):
            producer.send_batch([bytes(90)] * 3, timeout=0)
        sent: list[Delivery] = []
        threads = [threading.Thread(target=lambda: sent.append(producer.send(bytes(90)))) for _ in range(30)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        assert not sent
        node.release()
        for thread in threads:
            thread.join(HANG_SECONDS)
        producer.flush(timeout=HANG_SECONDS)
        assert all(delivery.settled for delivery in (*deliveries, *sent))
        assert len(sent) == 30
        assert producer.buffered_bytes == 0
    assert node.next_offset == 40


def test_the_number_of_batches_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proglog_trio.client.sync.collector.MAX_BATCHES", 8)
    node = HeldNode(held=True)
    with producing(node) as producer:
        deliveries = [producer.send_batch([b"x"]) for _ in range(8)]
        with pytest.raises(TimeoutError):
            producer.send_batch([b"x"], timeout=0.01)
        node.release()
        deliveries += [producer.send_batch([b"x"]) for _ in range(50)]
        assert [delivery.wait()[0].base_offset for delivery in deliveries] == list(range(58))


def test_waits_with_a_timeout() -> None:
    node = HeldNode(held=True)
    with producing(node, linger=0) as producer:
        delivery = producer.send(b"x")
        batch = producer.send_batch([b"x"])
        for wait in (delivery.wait, batch.wait, batch.outcomes, producer.flush):
            with pytest.raises(TimeoutError):
                wait(timeout=0.005)
        assert not delivery.settled
        assert not batch.settled
        node.release()
        producer.flush(timeout=HANG_SECONDS)
        assert delivery.wait(timeout=0).offset == 0
        assert batch.wait(timeout=0)[0].base_offset == 1


def test_what_fails_is_told_once() -> None:
    node = HeldNode(refuses=StreamBroken("too large", StatusCode.INVALID_ARGUMENT))
    with producing(node, linger=0) as producer:
        with pytest.raises(DeliveryRefused):
            producer.send(b"waited for").wait()
        producer.flush()
        unheard = producer.send(b"not waited for")
        with pytest.raises(RecordsNotDelivered) as told:
            producer.flush()
        assert told.value.count == 1
        producer.flush()
        with pytest.raises(DeliveryRefused):
            unheard.wait()
        assert isinstance(producer.send_batch([b"x"]).outcomes()[0], DeliveryRefused)
        producer.flush()
    with pytest.raises(RecordsNotDelivered), producing(node, linger=0) as producer:
        producer.send(b"not waited for")


def test_leaving_in_order_flushes() -> None:
    node = HeldNode()
    with producing(node, linger=60) as producer:
        delivery = producer.send(b"x")
    assert delivery.settled
    assert delivery.wait().offset == 0
    with pytest.raises(ProducerClosed, match="its block has been left"):
        producer.send(b"x")
    with pytest.raises(ProducerClosed):
        producer.flush()
    assert producer.nodes == ("node:1",)


def test_leaving_by_an_error_abandons() -> None:
    node = HeldNode(held=True)
    deliveries: list[Delivery] = []
    failures: list[Exception] = []

    def send_more(producer: Producer) -> None:
        try:
            producer.send(bytes(90))
        except ProducerClosed as error:
            failures.append(error)

    begun = time.monotonic()
    threads: list[threading.Thread] = []

    def fail() -> None:
        with producing(node, buffer_bytes=100, linger=0, delivery_timeout=60) as producer:
            deliveries.append(producer.send(bytes(90)))
            threads.append(threading.Thread(target=send_more, args=[producer]))
            threads[0].start()
            raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        fail()
    threads[0].join(HANG_SECONDS)
    assert len(failures) == 1
    with pytest.raises(DeliveryAbandoned):
        deliveries[0].wait()
    assert time.monotonic() - begun < HANG_SECONDS


def test_leaving_from_another_thread() -> None:
    node = HeldNode()
    block = producing(node, linger=60)
    producer = block.__enter__()
    delivery = producer.send(b"x")
    thread = threading.Thread(target=block.__exit__, args=(None, None, None))
    thread.start()
    thread.join(HANG_SECONDS)
    assert delivery.wait(timeout=0).offset == 0


def test_what_cannot_be_opened(unused_port: int) -> None:
    before = threading.enumerate()
    config = ProducerConfig(connect_timeout=0.1)
    with (
        pytest.raises(NodeUnreachable, match=r"no connection within 0\.1 s"),
        open_producer(f"127.0.0.1:{unused_port}", config),
    ):
        raise AssertionError
    with pytest.raises(ValueError, match="has no port"), open_producer("nonsense"):
        raise AssertionError
    assert threads_since(before) == []


def test_a_failure_behind_it_comes_out_at_the_end() -> None:
    handed_in = threading.Event()

    class BrokenNode(HeldNode):
        async def link(self, session: object) -> None:
            await anyio.to_thread.run_sync(handed_in.wait, HANG_SECONDS)
            raise ZeroDivisionError

    with (
        pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True),
        producing(BrokenNode(), connect_timeout=None) as producer,
    ):
        delivery = producer.send(b"x")
        handed_in.set()
        with pytest.raises(DeliveryAbandoned):
            delivery.wait(timeout=HANG_SECONDS)
        while True:
            try:
                producer.send(b"x")
            except ProducerClosed as error:
                assert "failed" in str(error)  # noqa: PT017 - it may take some tries
                break
