"""One side of what `benchmarks.clients` compares with other libraries: single records under asyncio, each awaited.

A client in a process of its own, against a server that is there: ours, redis-py's or nats-py's, with the same records.
Prints p50 and p99 in seconds, and records a second, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.common import percentile

WARM_UP_RECORDS = 100
Append = Callable[[bytes], Awaitable[Any]]


@asynccontextmanager
async def ours(port: int) -> AsyncIterator[Append]:
    """Append by `Producer.send`, without lingering, and wait for the delivery."""
    from proglog_trio.client import ProducerConfig, open_producer

    async with open_producer(f"127.0.0.1:{port}", ProducerConfig(linger=0)) as producer:

        async def append(value: bytes) -> None:
            await (await producer.send(value)).wait()

        yield append


@asynccontextmanager
async def redis_stream(port: int) -> AsyncIterator[Append]:
    """Append by XADD, on as many connections as tasks, which is redis-py's own way."""
    import redis.asyncio

    async with redis.asyncio.Redis(port=port) as client:

        async def append(value: bytes) -> None:
            await client.xadd("log", {b"v": value})

        yield append


@asynccontextmanager
async def jetstream(port: int) -> AsyncIterator[Append]:
    """Append by `publish`, which waits for JetStream's acknowledgement."""
    import nats
    import nats.js.api

    client = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        stream = client.jetstream()
        await stream.add_stream(name="log", subjects=["log"], storage=nats.js.api.StorageType.FILE)

        async def append(value: bytes) -> None:
            await stream.publish("log", value, timeout=60)

        yield append
    finally:
        await client.close()


CLIENTS = {"proglog-trio": ours, "redis-py": redis_stream, "nats-py": jetstream}


async def measure(kind: str, port: int, size: int, tasks: int, seconds: float) -> dict[str, float]:
    """Append for a while from so many tasks at once, each waiting for its record before it sends the next."""
    value = bytes(index % 256 for index in range(size))
    taken: list[float] = []

    async def append_in_turn(append: Append, until: float) -> None:
        while (began := time.perf_counter()) < until:
            await append(value)
            taken.append(time.perf_counter() - began)

    async with CLIENTS[kind](port) as append:
        for _ in range(max(1, WARM_UP_RECORDS // tasks)):
            # Connections are made, and code is warm.
            await asyncio.gather(*(append(value) for _ in range(tasks)))
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(append_in_turn(append, began + seconds))
        rate = len(taken) / (time.perf_counter() - began)
    return {"p50": percentile(taken, 0.5), "p99": percentile(taken, 0.99), "rate": rate}


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description="One side of what benchmarks.clients compares with other libraries.")
    parser.add_argument("kind", choices=list(CLIENTS))
    parser.add_argument("port", type=int)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.kind, arguments.port, arguments.size, arguments.tasks, arguments.seconds))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
