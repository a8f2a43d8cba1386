"""What replication costs: three nodes on one machine against one node alone, in one run.

Throughput until all three logs are durable, the lag at half that load, how fast an empty node catches up, and the bytes
that cross for each byte of records. Batches of 64 KiB and more, with an fsync for every acknowledgement.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psutil
import trio

from benchmarks.common import (
    Rate,
    accepts,
    free_port,
    goal,
    median_rate,
    percentile,
    print_machine,
    running,
    scratch_directory,
    spread,
)
from proglog_trio.client import BatchDelivery, ConsumerConfig, ProducerConfig, open_consumer, open_producer
from proglog_trio.rpc.calls.cluster import get_status

NODES = 3
BATCH_BYTES = 1 << 18
LAG_BATCH_BYTES = 1 << 16
CATCH_UP_BYTES = 1 << 30
POLL_SECONDS = 0.002
WAIT_SECONDS = 120.0


@contextmanager
def nodes(directory: Path, count: int) -> Iterator[list[int]]:
    """Run nodes that form one cluster; yields their ports for RPC."""
    with ExitStack() as stack:
        ports: list[int] = []
        first_gossip = free_port()
        for number in range(count):
            port = free_port()
            stack.enter_context(_node(directory / f"n{number}", f"n{number}", port, first_gossip, is_first=not number))
            ports.append(port)
        yield ports


def _node(directory: Path, name: str, port: int, gossip: int, *, is_first: bool) -> AbstractContextManager[object]:
    options = ["--data-dir", str(directory), "--node-name", name, "--rpc-port", str(port), "--log-level", "warning"]
    options += ["--bind-addr", f"127.0.0.1:{gossip if is_first else 0}", "--no-leave-on-terminate"]
    if not is_first:
        options += ["--start-join-addrs", f"127.0.0.1:{gossip}"]
    return running([sys.executable, "-m", "proglog_trio", "node", *options], lambda: accepts(port))


async def _next_offset(port: int) -> int:
    return (await get_status(f"127.0.0.1:{port}", 30.0)).next_offset


async def wait_connected(ports: Sequence[int]) -> None:
    """Return when every node pulls from every other."""
    with trio.fail_after(WAIT_SECONDS):
        for port in ports:
            while True:
                status = await get_status(f"127.0.0.1:{port}", 30.0)
                if sum(peer.connected for peer in status.peers) == len(ports) - 1:
                    break
                await trio.sleep(0.05)


async def wait_for(ports: Sequence[int], offset: int) -> None:
    """Return when every node's log has grown to an offset."""
    with trio.fail_after(WAIT_SECONDS):
        for port in ports:
            while await _next_offset(port) < offset:  # noqa: ASYNC110 - another process tells only when asked
                await trio.sleep(POLL_SECONDS)


async def produce(ports: Sequence[int], value: bytes, seconds: float, batch_bytes: int) -> Rate:
    """Produce to the first node as fast as it takes it, until every node has all of it on disk."""
    values = [value] * max(1, batch_bytes // (len(value) + 5))
    before = await _next_offset(ports[0])
    count = 0
    began = time.perf_counter()
    async with open_producer(f"127.0.0.1:{ports[0]}", ProducerConfig()) as producer:
        while time.perf_counter() - began < seconds:
            await producer.send_batch(values)
            count += len(values)
        await producer.flush()
    await wait_for(ports, before + count)
    return Rate(count, time.perf_counter() - began, len(value))


async def lag(ports: Sequence[int], value: bytes, seconds: float, records_per_second: float) -> list[float]:
    """Return, for batches at a steady rate, how long after their acknowledgement every other node serves them."""
    values = [value] * max(1, LAG_BATCH_BYTES // (len(value) + 5))
    interval = len(values) / records_per_second
    acknowledged: list[tuple[int, float]] = []
    seen: list[list[tuple[int, float]]] = [[] for _ in ports[1:]]
    start = await _next_offset(ports[0])
    await wait_for(ports, start)

    async def watch(port: int, found: list[tuple[int, float]]) -> None:
        config = ConsumerConfig(offset=await _next_offset(port))
        async with open_consumer(f"127.0.0.1:{port}", config) as consumer:
            async for batch in consumer.batches():
                found.append((batch.base_offset + batch.count, time.perf_counter()))  # noqa: PERF401 - it never ends

    async with trio.open_nursery() as nursery:
        for port, found in zip(ports[1:], seen, strict=True):
            nursery.start_soon(watch, port, found)
        await trio.sleep(0.5)
        async with open_producer(f"127.0.0.1:{ports[0]}", ProducerConfig()) as producer:
            began = trio.current_time()
            number = 0
            pending = []

            async def note(delivery: BatchDelivery) -> None:
                stored = await delivery.wait()
                acknowledged.append((stored[-1].base_offset + stored[-1].count, time.perf_counter()))

            async with trio.open_nursery() as notes:
                while trio.current_time() - began < seconds:
                    await trio.sleep_until(began + number * interval)
                    number += 1
                    delivery = await producer.send_batch(values)
                    pending.append(delivery)
                    notes.start_soon(note, delivery)
            await producer.flush()
        await wait_for(ports, start + number * len(values))
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    lags = []
    for found in seen:
        reached = iter(found)
        offset, at = next(reached)
        for end, when in sorted(acknowledged):
            while offset < end:
                offset, at = next(reached)
            lags.append(max(at - when, 0.0))
    return lags


async def consume_all(port: int) -> tuple[int, float]:
    """Read a whole log as one plain consumer; return the bytes of its records and the seconds."""
    size = 0
    began = time.perf_counter()
    async with open_consumer(f"127.0.0.1:{port}", ConsumerConfig(follow=False)) as consumer:
        async for batch in consumer.batches():
            size += sum(map(len, batch.values()))
    return size, time.perf_counter() - began


def loopback_bytes() -> int:
    """Return how many bytes were sent over loopback."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


async def counters(port: int) -> dict[str, int]:
    """Return a node's counters."""
    return dict((await get_status(f"127.0.0.1:{port}", 30.0)).counters)


def compare(directory: Path, size: int, rounds: int, seconds: float) -> None:
    """Print the figures for records of one size."""
    value = os.urandom(size)
    alone, together, lags, ratios = [], [], [], []
    for number in range(rounds):
        with nodes(directory / f"alone-{size}-{number}", 1) as ports:
            trio.run(produce, ports, value, 1.0, BATCH_BYTES)
            alone.append(trio.run(produce, ports, value, seconds, BATCH_BYTES))
        with nodes(directory / f"three-{size}-{number}", NODES) as ports:
            trio.run(wait_connected, ports)
            trio.run(produce, ports, value, 1.0, BATCH_BYTES)
            before = loopback_bytes()
            rate = trio.run(produce, ports, value, seconds, BATCH_BYTES)
            crossed = loopback_bytes() - before
            together.append(rate)
            produced = rate.records * size
            # The producer's own stream crosses loopback once as well.
            ratios.append((crossed / produced - 1) / (NODES - 1))
            lags += trio.run(lag, ports, value, seconds, rate.per_second / 2)
    one, three = median_rate(alone), median_rate(together)
    print(f"\nrecords of {size} bytes, {rounds} rounds of {seconds:g} s")
    for name, rate, rates in (("one node", one, alone), ("durable on three", three, together)):
        figures = f"{rate.per_second:>12,.0f}/s  {rate.megabytes_per_second:>8,.1f} MB/s"
        print(f"  {name:<18}{figures}  ({spread(rates)})")
    ratio = three.per_second / one.per_second
    print(f"  three against one: {ratio:.2f}x  goal 0.35x: {goal(ratio >= 0.35)}")
    middle = percentile(lags, 0.5) * 1e3
    print(
        f"  lag at half that load: p50 {middle:.1f} ms, p99 {percentile(lags, 0.99) * 1e3:.1f} ms  "
        f"goal p50 20 ms: {goal(middle <= 20)}"
    )
    crossed_ratio = percentile(ratios, 0.5)
    print(
        f"  bytes over loopback for each record byte and replica: {crossed_ratio:.3f}  goal 1.05: "
        f"{goal(crossed_ratio <= 1.05)}"
    )


def compare_catch_up(directory: Path, size: int) -> None:
    """Print how fast an empty node catches up, against a plain consumer."""
    value = os.urandom(size)
    gossip, port, second = free_port(), free_port(), free_port()
    with _node(directory / "full", "full", port, gossip, is_first=True):
        trio.run(_fill, port, value)
        read, taken = trio.run(consume_all, port)
        end = trio.run(_next_offset, port)
        with _node(directory / "empty", "empty", second, gossip, is_first=False):
            began = time.perf_counter()
            trio.run(wait_connected, [port, second])
            trio.run(wait_for, [second], end)
            caught_up = time.perf_counter() - began
    plain, ours = read / taken / 1e6, read / caught_up / 1e6
    print(f"\ncatching up with {read / 2**30:.2f} GiB in records of {size} bytes")
    print(f"  an empty node {ours:,.1f} MB/s, a plain consumer {plain:,.1f} MB/s")
    print(f"  {ours / plain:.2f}x  goal 0.7x: {goal(ours / plain >= 0.7)}")


async def _fill(port: int, value: bytes) -> None:
    values = [value] * max(1, BATCH_BYTES // (len(value) + 5))
    async with open_producer(f"127.0.0.1:{port}", ProducerConfig()) as producer:
        for _ in range(CATCH_UP_BYTES // (len(values) * len(value))):
            await producer.send_batch(values)
        await producer.flush()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; default: the temporary directory")
    parser.add_argument("--size", type=int, action="append", help="of the records; default: 128 and 1024")
    parser.add_argument("--only", choices=["throughput", "catch-up"])
    arguments = parser.parse_args()
    print_machine()
    with scratch_directory(arguments.directory) as directory:
        for size in arguments.size or [128, 1024]:
            if arguments.only != "catch-up":
                compare(directory, size, arguments.rounds, arguments.seconds)
            if arguments.only != "throughput":
                compare_catch_up(directory / f"catch-up-{size}", size)


if __name__ == "__main__":
    main()
