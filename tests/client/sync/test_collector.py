"""What threads have sent becomes batches, and the loop is told once a batch."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.delivery import DeliveredBatch
from proglog_trio.client.errors import ClientForked, DeliveryAbandoned, ProducerClosed
from proglog_trio.client.sync.collector import MAX_TAKEN, CollectedBatch, Collector, _Turn
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import unpack_rows


class Loop:
    """A collector's clock, and the loop that it tells."""

    def __init__(self, **options: float) -> None:
        self.now = 100.0
        self.told = 0
        config = ProducerConfig(**options)  # type: ignore[arg-type]
        self.collector = Collector(config, lambda: self.now, self.tell, os.getpid(), ClientForked)

    def tell(self) -> None:
        self.told += 1

    def settle(self, batch: CollectedBatch) -> None:
        batch.outcome.succeed(DeliveredBatch(0, batch.count, Origin(bytes(16)), 0, 1, 1, True))


def record(number: int) -> bytes:
    return b"\x91\xce" + number.to_bytes(4, "big")


def numbers(batch: CollectedBatch) -> list[int]:
    return [cast("int", row[0]) for row in unpack_rows(batch.payload)]


def test_the_loop_is_told_once_a_batch() -> None:
    loop = Loop(batch_records=100, linger=1.0)
    for number in range(99):
        loop.collector.add_record(record(number), None)
    assert loop.told == 1
    assert loop.collector.next_due() == 101.0
    assert not loop.collector.take()
    loop.collector.add_record(record(99), None)
    assert loop.told == 2
    assert loop.collector.next_due() == -math.inf
    (batch,) = loop.collector.take()
    assert numbers(batch) == list(range(100))
    assert loop.collector.next_due() is None
    assert loop.collector.held_bytes == 600
    loop.settle(batch)
    assert loop.collector.held_bytes == 0


def test_what_lingers_goes_when_it_is_time_or_asked_for() -> None:
    loop = Loop(linger=1.0)
    outcome, _ = loop.collector.add_record(record(1), None)
    loop.now = 100.9
    assert not loop.collector.take()
    loop.now = 101.0
    assert [numbers(batch) for batch in loop.collector.take()] == [[1]]
    other, _ = loop.collector.add_record(record(2), None)
    assert other is not outcome
    assert loop.collector.close_batch() is other
    assert [numbers(batch) for batch in loop.collector.take()] == [[2]]


def test_a_batch_grows_while_as_many_as_may_be_are_under_way() -> None:
    loop = Loop(linger=0.0, in_flight=1)
    loop.collector.add_record(record(1), None)
    (first,) = loop.collector.take()
    loop.collector.add_record(record(2), None)
    assert loop.collector.next_due() is None
    assert not loop.collector.take()
    told = loop.told
    loop.settle(first)
    assert loop.told == told + 1
    assert [numbers(batch) for batch in loop.collector.take()] == [[2]]


def test_a_turn_that_ctrl_c_left_behind_keeps_nobody_waiting() -> None:
    loop = Loop()
    loop.collector._turns.extend([_Turn(over=True), _Turn(over=True)])
    loop.collector.add_record(record(1), timeout=0.0)
    assert not loop.collector._turns


def test_a_batch_that_ctrl_c_left_empty_is_no_batch() -> None:
    loop = Loop(linger=0.0)
    loop.collector._batches.append(loop.collector._new_batch())
    assert loop.collector.close_batch() is None
    assert not loop.collector.take()
    loop.collector.add_record(record(1), None)
    assert [numbers(batch) for batch in loop.collector.take()] == [[1]]


def test_nothing_is_added_to_one_that_is_closed() -> None:
    loop = Loop()
    loop.collector.add_record(record(1), None)
    loop.collector.close("so")
    loop.collector.close("otherwise")
    with pytest.raises(ProducerClosed, match="so"):
        loop.collector.add_record(record(2), None)
    assert [numbers(batch) for batch in loop.collector.take(everything=True)] == [[1]]


STEPS = st.lists(st.sampled_from(["record", "payload", "large", "take", "settle", "flush", "wait"]), max_size=60)


@given(STEPS, st.integers(1, 5), st.integers(20, 60))
def test_all_comes_out_in_order_and_is_counted(steps: list[str], in_flight: int, batch_bytes: int) -> None:
    loop = Loop(in_flight=in_flight, batch_bytes=batch_bytes, batch_records=4, linger=1.0, buffer_bytes=300)
    collector = loop.collector
    given_in: list[int] = []
    taken: list[int] = []
    under_way: list[CollectedBatch] = []

    def take(*, everything: bool = False) -> int:
        batches = collector.take(everything=everything)
        assert len(batches) <= MAX_TAKEN
        for batch in batches:
            assert batch.count == len(numbers(batch))
            taken.extend(numbers(batch))
        under_way.extend(batches)
        return len(batches)

    for step in steps:
        number = len(given_in)
        try:
            if step == "record":
                collector.add_record(record(number), timeout=0)
                given_in.append(number)
            elif step == "payload":
                collector.add_payload(b"\x91" + record(number), 1, timeout=0)
                given_in.append(number)
            elif step == "large":
                collector.add_record(b"\x92" + record(number)[1:] + b"\xc4\x64" + bytes(100), timeout=0)
                given_in.append(number)
            elif step == "take":
                take()
            elif step == "flush":
                collector.close_batch()
            elif step == "wait":
                loop.now += 0.6
            elif under_way:
                loop.settle(under_way.pop(0))
        except TimeoutError:
            assert collector.held_bytes > 150
        assert collector.held_bytes <= 300
        assert taken == given_in[: len(taken)]
    while take(everything=True):
        pass
    for batch in under_way:
        loop.settle(batch)
    assert taken == given_in
    assert collector.held_bytes == 0
    assert collector.close_batch() is None


class InterruptedLock:
    """A lock at whose nth use Ctrl-C comes."""

    def __init__(self, lock: threading.Lock, use: int) -> None:
        self.lock = lock
        self.left = use

    def __enter__(self) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("use", [1, 2, 3])
def test_ctrl_c_while_waiting_for_room_keeps_nobody_waiting(use: int) -> None:
    loop = Loop(buffer_bytes=10)
    collector = loop.collector
    collector.add_record(record(1), timeout=0)
    lock = collector.lock
    collector.lock = InterruptedLock(lock, use)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        collector.add_record(record(2), timeout=0)
    collector.lock = lock
    (batch,) = collector.take(everything=True)
    loop.settle(batch)
    collector.add_record(record(3), timeout=0)
    assert [numbers(batch) for batch in collector.take(everything=True)] == [[3]]


def test_what_a_thread_waits_for_needs_no_other_report() -> None:
    loop = Loop()
    outcome, _ = loop.collector.add_record(record(1), None)
    told: list[DeliveryAbandoned] = []

    def wait() -> None:
        try:
            outcome.result_within(None)
        except DeliveryAbandoned as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not outcome._watchers:
        time.sleep(0.001)
    outcome.fail(DeliveryAbandoned("so", maybe_stored=False), 1)
    assert loop.collector.ledger.count == 0
    thread.join()
    assert len(told) == 1
