"""Clients of a real node while their program ends: over gRPC, with the node there, stopped, or gone."""

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from proglog_trio.client import (
    Consumer,
    ConsumerClosed,
    Delivery,
    DeliveryAbandoned,
    Producer,
    ProducerConfig,
    open_consumer,
    open_producer,
)
from proglog_trio.client.fetcher import Fetcher
from proglog_trio.client.sender import Sender
from proglog_trio.rpc.http2.bridge import TrioEventLoop
from tests.backends import call_soon_from_threads, living_tasks
from tests.client.harness import running_node
from tests.node_process import node_process
from tests.trio_thread import in_trio_thread

HANG_SECONDS = 20.0


def open_files() -> int:
    """How many files and sockets this process has open."""
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.backends(system=["uvloop"])
async def test_a_shielded_flush_sends_what_lingers(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        before = living_tasks()
        deliveries = []
        with anyio.CancelScope() as program:
            async with open_producer(node.address, ProducerConfig(linger=1.0, buffer_bytes=2000)) as producer:
                try:
                    deliveries.append(await producer.send(b"before"))
                    program.cancel()
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True), anyio.fail_after(HANG_SECONDS):
                        # More than there is room for.
                        deliveries += [await producer.send(b"farewell %d" % number) for number in range(500)]
                        await producer.flush()
                        assert all(delivery.settled for delivery in deliveries)
                        await (await producer.send(b"the last")).wait()
        assert program.cancelled_caught
        assert node.log.next_offset == 502
        assert living_tasks() == before


async def test_a_shielded_read_gives_what_has_arrived(tmp_path: Path, backend: str) -> None:
    """And then says that it is over; but under asyncio nothing tells the consumer so, and it waits for more."""
    async with running_node(tmp_path) as node:
        async with open_producer(node.address) as producer:
            await producer.send_batch([b"%d" % number for number in range(100)])
        before = living_tasks()
        values: list[bytes] = []
        with anyio.CancelScope() as program:
            async with open_consumer(node.address) as consumer:
                try:
                    values.append((await anext(consumer)).value)
                    program.cancel()
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True), anyio.fail_after(HANG_SECONDS):
                        values += [(await anext(consumer)).value for _ in range(99)]
                        if backend == "trio":
                            with pytest.raises(ConsumerClosed):
                                await anext(consumer)
                        else:
                            with anyio.move_on_after(0.05) as waiting:
                                await anext(consumer)
                            assert waiting.cancelled_caught
        assert program.cancelled_caught
        assert values == [b"%d" % number for number in range(100)]
        assert living_tasks() == before


async def _wait_for_delivery(producer: Producer, consumer: Consumer, deliveries: list[Delivery]) -> None:
    deliveries.append(await producer.send(b"value"))
    await deliveries[0].wait()


async def _wait_for_room(producer: Producer, consumer: Consumer, deliveries: list[Delivery]) -> None:
    while True:
        deliveries.append(await producer.send(b"x" * 100_000))


async def _flush(producer: Producer, consumer: Consumer, deliveries: list[Delivery]) -> None:
    deliveries.append(await producer.send(b"value"))
    await producer.flush()


async def _read(producer: Producer, consumer: Consumer, deliveries: list[Delivery]) -> None:
    async for _ in consumer:
        pass


@pytest.mark.backends(system=["uvloop"])
async def test_leaving_takes_no_time_when_the_node_does_not_answer(tmp_path: Path) -> None:
    """Whatever the body was waiting for; and nothing of it is left: no task, no connection."""
    async with in_trio_thread(partial(node_process, tmp_path / "data")) as (_, node):
        config = ProducerConfig(buffer_bytes=12_000_000)
        files = 0
        for work in (_read, _wait_for_delivery, _wait_for_room, _flush):
            before, began = living_tasks(), 0.0
            deliveries: list[Delivery] = []
            with anyio.fail_after(HANG_SECONDS), anyio.CancelScope() as program:
                async with open_producer(node.address, config) as producer, open_consumer(node.address) as consumer:
                    await (await producer.send(b"value")).wait()
                    node.process.send_signal(signal.SIGSTOP)
                    async with anyio.create_task_group() as nursery:
                        nursery.start_soon(work, producer, consumer, deliveries)
                        # So that it waits, and the connection's buffers are as full as they get.
                        await anyio.sleep(0.5)
                        program.cancel()
                        began = anyio.current_time()
            assert program.cancelled_caught
            assert anyio.current_time() - began < HANG_SECONDS / 4, work
            node.process.send_signal(signal.SIGCONT)
            assert living_tasks() == before
            # The first connection leaves something that is made once.
            files = files or open_files()
            assert open_files() == files
            for delivery in deliveries:
                with pytest.raises(DeliveryAbandoned):
                    await delivery.wait()


@pytest.mark.backends("trio", "asyncio")  # uvloop asks by itself, and cannot be told what is answered
@pytest.mark.parametrize("opening", [open_producer, open_consumer])
async def test_a_name_server_that_does_not_answer_keeps_nobody(opening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = anyio.Event(), threading.Event()
    call_soon = call_soon_from_threads()

    def look_up(host: str, port: int, family: int, kind: int, protocol: int, flags: int) -> object:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        call_soon(asked.set)
        answer.wait(HANG_SECONDS)
        raise OSError("no name server answers")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    try:
        with anyio.fail_after(HANG_SECONDS / 2), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as nursery:

                async def cancel() -> None:
                    await asked.wait()
                    scope.cancel()

                nursery.start_soon(cancel)
                async with opening("node.example:8400"):
                    pass
        assert scope.cancelled_caught
    finally:
        answer.set()


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def interrupting(function: Callable[..., Any], now: Callable[[], bool]) -> Callable[..., Any]:
    """Return the function, with Ctrl-C at the beginning of its first call at a time that is the right one."""
    done = False

    def interrupted(*arguments: object, **options: object) -> Any:
        nonlocal done
        if not done and now():
            done = True
            signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    return interrupted


def always() -> bool:
    return True


def is_main_thread() -> bool:
    """Whether this is not the thread of the node."""
    return threading.current_thread() is threading.main_thread()


def run_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("place", ["answered", "next_request", "opened", "received", "waking", "body"])
@pytest.mark.parametrize("run", [trio.run, run_asyncio])
def test_ctrl_c_ends_the_program_wherever_it_comes(
    run: Callable[[Any], None], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of an asyncio callback, or of what wakes one up."""
    waking = False
    loop_class = TrioEventLoop if run is trio.run else asyncio.SelectorEventLoop
    if place in ("answered", "next_request", "opened"):
        monkeypatch.setattr(Sender, place, interrupting(getattr(Sender, place), always))
    if place == "received":
        monkeypatch.setattr(Fetcher, place, interrupting(Fetcher.received, always))
    if place == "waking":
        # Between an asyncio future's becoming done and its waiter's being scheduled.
        call_soon = interrupting(loop_class.call_soon, lambda: waking and is_main_thread())
        monkeypatch.setattr(loop_class, "call_soon", call_soon)

    def noticed(wake: Callable[[], object]) -> Callable[[], None]:
        def wake_noticed() -> None:
            nonlocal waking
            waking = True
            wake()
            waking = False

        return wake_noticed

    opened = Sender.opened

    def opened_noticed(sender: Sender, wake: Callable[[], object]) -> None:
        # Called by the body, since each record is a batch that is sent at once.
        opened(sender, noticed(wake))

    monkeypatch.setattr(Sender, "opened", opened_noticed)

    async def main() -> None:
        with anyio.fail_after(HANG_SECONDS):
            async with (
                running_node(tmp_path) as node,
                open_producer(node.address, ProducerConfig(batch_records=1)) as producer,
                open_consumer(node.address) as consumer,
            ):
                while True:
                    await (await producer.send(b"value")).wait()
                    await consumer.next_batch()
                    if place == "body":
                        signal.raise_signal(signal.SIGINT)

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - nurseries make groups of it
        run(main)
    error = caught.value
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    assert isinstance(error, KeyboardInterrupt)
