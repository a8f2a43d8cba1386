"""One side of a pair of `benchmarks.clients`: one client in a process of its own, against a node that is there.

Run by file name with the packages of some checkout (PYTHONPATH), so it takes nothing of them but what clients export,
and nothing of `benchmarks`. Prints records, seconds, and this process's CPU seconds of each measure as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from proglog_trio.client import ConsumerConfig, ProducerConfig, open_consumer, open_producer

BATCH_BYTES = 1 << 20
Figures = tuple[int, float, float]


class Stopwatch:
    """Counts records over a time, on the clock and on the processor."""

    def __init__(self, seconds: float) -> None:
        self.records = 0
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        self._ends = self._began + seconds

    @property
    def running(self) -> bool:
        """Whether the time is not over."""
        return time.perf_counter() < self._ends

    def figures(self) -> Figures:
        """Return records, seconds, and seconds of this process on the processor, all since the beginning."""
        return self.records, time.perf_counter() - self._began, time.process_time() - self._cpu_began


def values_of(size: int) -> list[bytes]:
    """Return the values of one batch, the same in each process."""
    return [bytes(index % 256 for index in range(size))] * max(1, BATCH_BYTES // (size + 5))


async def batches(address: str, size: int, seconds: float) -> dict[str, Figures]:
    """Write batches for a while, then read them."""
    values = values_of(size)
    async with open_producer(address, ProducerConfig()) as producer:
        await producer.send_batch(values[:1])
        await producer.flush()
        watch = Stopwatch(seconds)
        while watch.running:
            await producer.send_batch(values)
            watch.records += len(values)
        await producer.flush()
        into = watch.figures()
    async with open_consumer(address, ConsumerConfig(offset=0, follow=False)) as consumer:
        watch = Stopwatch(seconds)
        async for batch in consumer.batches():
            watch.records += len(batch.values())
            if not watch.running:
                break
        return {"send_batch": into, "batches out": watch.figures()}


async def records(address: str, size: int, seconds: float) -> dict[str, Figures]:
    """Hand in records one by one for a while, and have them all settled, then read them one by one."""
    value = values_of(size)[0]
    async with open_producer(address, ProducerConfig()) as producer:
        await (await producer.send(value)).wait()
        watch = Stopwatch(seconds)
        while watch.running:
            for _ in range(100):
                await producer.send(value)
            watch.records += 100
        await producer.flush()
        into = watch.figures()
    async with open_consumer(address, ConsumerConfig(offset=0, follow=False)) as consumer:
        watch = Stopwatch(seconds)
        async for _record in consumer:
            watch.records += 1
            if not watch.records % 100 and not watch.running:
                break
        return {"send one by one": into, "records out": watch.figures()}


def batches_in_a_thread(address: str, size: int, seconds: float) -> dict[str, Figures]:
    """Do as `batches`, by the client for threads."""
    from proglog_trio.client import sync

    values = values_of(size)
    with sync.open_producer(address, ProducerConfig()) as producer:
        producer.send_batch(values[:1])
        producer.flush()
        watch = Stopwatch(seconds)
        while watch.running:
            producer.send_batch(values)
            watch.records += len(values)
        producer.flush()
        into = watch.figures()
    with sync.open_consumer(address, ConsumerConfig(offset=0, follow=False)) as consumer:
        watch = Stopwatch(seconds)
        for batch in consumer.batches():
            watch.records += len(batch.values())
            if not watch.running:
                break
        return {"send_batch": into, "batches out": watch.figures()}


def records_in_a_thread(address: str, size: int, seconds: float) -> dict[str, Figures]:
    """Do as `records`, by the client for threads."""
    from proglog_trio.client import sync

    value = values_of(size)[0]
    with sync.open_producer(address, ProducerConfig()) as producer:
        producer.send(value).wait()
        watch = Stopwatch(seconds)
        while watch.running:
            for _ in range(100):
                producer.send(value)
            watch.records += 100
        producer.flush()
        into = watch.figures()
    with sync.open_consumer(address, ConsumerConfig(offset=0, follow=False)) as consumer:
        watch = Stopwatch(seconds)
        for _record in consumer:
            watch.records += 1
            if not watch.records % 100 and not watch.running:
                break
        return {"send one by one": into, "records out": watch.figures()}


async def _on_the_loop(work: Callable[..., Coroutine[Any, Any, dict[str, Figures]]], *arguments: Any) -> Any:  # noqa: ANN401
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    if loop not in ("asyncio", "uvloop") or "trio_asyncio" in sys.modules:
        raise RuntimeError(f"this is to measure asyncio or uvloop, not {loop}, and without trio_asyncio")
    return await work(*arguments)


def run(kind: str, work: str, address: str, size: int, seconds: float) -> dict[str, Figures]:
    """Do one work by one kind of client."""
    in_thread = {"batches": batches_in_a_thread, "records": records_in_a_thread}[work]
    in_task = {"batches": batches, "records": records}[work]
    if kind == "sync":
        return in_thread(address, size, seconds)
    if kind == "trio":
        import trio

        return trio.run(in_task, address, size, seconds)
    main = _on_the_loop(in_task, address, size, seconds)
    if kind == "uvloop":
        import uvloop

        figures: dict[str, Figures] = uvloop.run(main)
        return figures
    return asyncio.run(main)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description="One side of a pair of benchmarks.clients.")
    parser.add_argument("kind", choices=["trio", "asyncio", "uvloop", "sync"])
    parser.add_argument("work", choices=["batches", "records"])
    parser.add_argument("address")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    figures = run(arguments.kind, arguments.work, arguments.address, arguments.size, arguments.seconds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
