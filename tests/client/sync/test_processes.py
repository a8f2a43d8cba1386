"""Clients for threads in a process that forks, that is interrupted, or that ends without leaving their blocks."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import Self

import pytest

from proglog_trio.client.sync import (
    Anchor,
    ClientForked,
    Delivery,
    DeliveryAbandoned,
    ProducerConfig,
    open_consumer,
    open_producer,
)
from tests.client.sync.held_node import HeldNode, producing

HANG_SECONDS = 30.0

FORKS = """
import os, sys, time
from proglog_trio.client.sync import Anchor, ClientForked, open_consumer, open_producer

def refused(call):
    begun = time.monotonic()
    try:
        call()
    except ClientForked as error:
        assert str(os.getppid()) in str(error) and "open another" in str(error), error
        assert time.monotonic() - begun < 5
    else:
        raise AssertionError(call)

address = sys.argv[1]
with open_consumer(address, anchor=Anchor.END) as consumer:
    block = open_producer(address)
    producer = block.__enter__()
    settled = producer.send(b"before")
    settled.wait()
    open_delivery = producer.send(b"before too")
    child = os.fork()
    if not child:
        try:
            for call in (
                lambda: producer.send(b"x"), lambda: producer.send_batch([b"x"]), lambda: producer.send_many([]),
                producer.flush, lambda: producer.observe(1), lambda: producer.nodes, open_delivery.wait,
                lambda: next(consumer), consumer.next_batch, lambda: consumer.position, lambda: consumer.nodes,
                lambda: block.__exit__(None, None, None),
            ):
                refused(call)
            settled.wait()
            with open_producer(address) as another:
                another.send(b"from the child").wait()
            os._exit(7)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    producer.send(b"after").wait()
    block.__exit__(None, None, None)
    assert [next(consumer).value for _ in range(4)] == [b"before", b"before too", b"from the child", b"after"]
    child = os.fork()
    if not child:
        # An error that leaves the blocks comes out as it is, and atexit waits for nothing.
        raise SystemExit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
print("done")
"""
NOT_LEFT = """
import sys
from proglog_trio.client.sync import ProducerConfig, open_consumer, open_producer

producing, consuming = open_producer(sys.argv[1], ProducerConfig(linger=60)), open_consumer(sys.argv[1])
producer, consumer = producing.__enter__(), consuming.__enter__()
producer.send(b"it lingers")
print("done")
"""
INTERRUPTED = """
import os, signal, sys, threading
from proglog_trio.client.sync import open_consumer

with open_consumer(sys.argv[1]) as consumer:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    for record in consumer:
        pass
"""
LOADED = """
import sys
from proglog_trio.client.sync import open_consumer, open_producer

with open_producer(sys.argv[1]) as producer:
    producer.send(b"x").wait()
with open_consumer(sys.argv[1]) as consumer:
    next(consumer)
assert "trio_asyncio" not in sys.modules
print("done")
"""
BESIDE_TRIO_ASYNCIO = """
import asyncio, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import trio_asyncio
from proglog_trio.client.sync import open_producer
from proglog_trio.client.sync.client_thread import ClientThread

loops = []
run = ClientThread._serve

async def noting(self):
    loops.append(type(asyncio.get_running_loop()))
    await run(self)

ClientThread._serve = noting
with open_producer(sys.argv[1]) as producer:
    producer.send(b"x").wait()
assert loops == [asyncio.SelectorEventLoop], loops
print("done")
"""


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-W", "default::ResourceWarning", "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", [FORKS, LOADED, BESIDE_TRIO_ASYNCIO], ids=["fork", "modules", "trio-asyncio"])
def test_scripts(script: str, node: str) -> None:
    done = run_script(script, node)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert not done.stderr


def test_a_program_that_leaves_no_block_ends(node: str) -> None:
    done = run_script(NOT_LEFT, node)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert "the block of a producer was not left" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_program_that_waits(node: str) -> None:
    done = run_script(INTERRUPTED, node)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    assert done.stderr.count("Traceback") == 1


class Interrupter:
    """Raises KeyboardInterrupt in the main thread, again and again, at moments that differ.

    Nothing is collected meanwhile: what is raised in a callback of the garbage collector, and test libraries have such,
    is raised to nobody.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        gc.disable()
        self._before = signal.signal(signal.SIGALRM, self._interrupt)
        return self

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        raise KeyboardInterrupt

    def soon(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        gc.enable()


def test_ctrl_c_in_the_middle_of_sending_loses_nothing_that_was_returned(node: str) -> None:
    returned: list[tuple[bytes, Delivery]] = []
    number = 0
    with open_consumer(node, anchor=Anchor.END) as consumer:
        with (
            open_producer(node, ProducerConfig(batch_records=40, buffer_bytes=6000, linger=0.001)) as producer,
            Interrupter() as interrupter,
        ):
            # By itself, so that all of it, jumps included, is inside what catches the interrupt.
            def send_until_interrupted(turn: int) -> None:
                nonlocal number
                interrupter.soon(0.0002 + turn % 50 * 0.00007)
                while interrupter.count == turn:
                    number += 1
                    value = b"%d" % number
                    if number % 50 == 0:
                        producer.send_batch([value])
                    elif number % 1000 == 1:
                        producer.flush()
                    else:
                        returned.append((value, producer.send(value)))

            for turn in range(300):
                with contextlib.suppress(KeyboardInterrupt):
                    send_until_interrupted(turn)
            interrupter.soon(0)
            producer.flush(timeout=HANG_SECONDS)
            assert interrupter.count == 300
            assert producer.buffered_bytes == 0
            last = producer.send(b"the last").wait().offset
        values = {}
        for record in consumer:
            if record.offset == last:
                break
            values[record.offset] = record.value
    assert {values[delivery.wait().offset] for _, delivery in returned} == {value for value, _ in returned}
    assert all(values[delivery.wait().offset] == value for value, delivery in returned)
    assert max(Counter(values.values()).values()) == 1


def test_ctrl_c_in_the_middle_of_reading_repeats_nothing(node: str) -> None:
    with open_producer(node) as producer:
        begin = producer.send(b"begin").wait().offset + 1
        for first in range(0, 40_000, 20):
            producer.send_batch([b"%d" % number for number in range(first, first + 20)])
    read: list[int] = []
    interrupted = 0
    with open_consumer(node, offset=begin, follow=False) as consumer, Interrupter() as interrupter:

        def read_until_interrupted() -> bool:
            interrupter.soon(0.0003 + interrupted % 50 * 0.00005)
            for record in consumer:
                read.append(record.offset)  # noqa: PERF401 - extend would lose them all
            interrupter.soon(0)
            return False

        goes_on = True
        while goes_on:
            try:
                goes_on = read_until_interrupted()
            except KeyboardInterrupt:
                interrupted += 1
    assert interrupted > 10
    # At most the one record that each interrupt came upon is missing.
    assert read == sorted(set(read))
    assert len(read) >= 40_000 - interrupted
    assert read[-1] == begin + 39_999


def test_ctrl_c_while_a_block_is_left_in_order_abandons() -> None:
    held = HeldNode(held=True)
    threads = threading.active_count()
    begun = time.monotonic()
    deliveries: list[Delivery] = []

    def send_and_leave() -> None:
        with Interrupter() as interrupter, producing(held, linger=0) as producer:
            deliveries.append(producer.send(b"x"))
            interrupter.soon(0.05)

    with pytest.raises(KeyboardInterrupt):
        send_and_leave()
    assert time.monotonic() - begun < HANG_SECONDS
    with pytest.raises(DeliveryAbandoned):
        deliveries[0].wait(timeout=HANG_SECONDS)
    while threading.active_count() > threads:
        time.sleep(0.001)


def test_the_error_names_both_processes() -> None:
    node = HeldNode()
    with producing(node) as producer:
        producer._pid = 1
        with pytest.raises(ClientForked, match=str(os.getpid())):
            producer.send(b"x")
