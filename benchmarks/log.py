"""The log against what a Python user would pick instead: Redis Streams and NATS JetStream, in one run on one disk.

All sync to disk before they answer. Each peer is used as its own client library does it fastest; ours by
`Producer.send_batch` and `Consumer.batches`. Rounds alternate; the medians are compared. Further: the same batches
packed, checksummed and synced in a plain loop without any network, and the unary Produce against a bare grpclib echo.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio
from grpclib.client import Channel, UnaryUnaryMethod

from benchmarks import peers
from benchmarks.common import (
    Rate,
    accepts,
    fdatasync_seconds,
    free_port,
    goal,
    median,
    median_rate,
    percentile,
    print_machine,
    running,
    scratch_directory,
    spread,
)
from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.client import ConsumerConfig, ProducerConfig, open_consumer, open_producer
from proglog_trio.log.format.record import pack_values, payload_crc
from proglog_trio.rpc.http2.bridge import aio_as_trio, open_loop

BATCH_BYTES = 1 << 20
UNARY_CALLS = 1000


@contextmanager
def node(directory: Path) -> Iterator[int]:
    """Run a node; yields its port."""
    port = free_port()
    options = ["--data-dir", str(directory), "--bind-addr", "127.0.0.1:0", "--rpc-port", str(port)]
    command = [sys.executable, "-m", "proglog_trio", "node", *options]
    with running(command, lambda: accepts(port)):
        yield port


async def _ours_in(port: int, value: bytes, seconds: float) -> Rate:
    values = [value] * max(1, BATCH_BYTES // (len(value) + 5))
    count = 0
    async with open_producer(f"127.0.0.1:{port}", ProducerConfig()) as producer:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            await producer.send_batch(values)
            count += len(values)
        await producer.flush()
        return Rate(count, time.perf_counter() - began, len(value))


async def _ours_out(port: int, value: bytes, from_offset: int) -> Rate:
    count = 0
    began = time.perf_counter()
    config = ConsumerConfig(offset=from_offset, follow=False)
    async with open_consumer(f"127.0.0.1:{port}", config) as consumer:
        async for batch in consumer.batches():
            values = batch.values()
            assert len(values[0]) == len(value)
            count += len(values)
    return Rate(count, time.perf_counter() - began, len(value))


async def _end_offset(port: int) -> int:
    async with open_consumer(f"127.0.0.1:{port}", ConsumerConfig(follow=False)) as consumer:
        return consumer.end_offset or 0


def plain_loop(directory: Path, value: bytes, seconds: float) -> Rate:
    """Pack, checksum, write and fdatasync the same batches, one after the other, with no network."""
    values = [value] * max(1, BATCH_BYTES // (len(value) + 5))
    path = directory / "plain"
    count = 0
    with path.open("wb", buffering=0) as file:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            payload = pack_values(values)
            checksum = payload_crc(payload)
            file.write(checksum.to_bytes(4, "big") + payload)
            os.fdatasync(file.fileno())
            count += len(values)
        taken = time.perf_counter() - began
    path.unlink()
    return Rate(count, taken, len(value))


async def _unary(port: int, value: bytes, calls: int) -> list[float]:
    async def measure() -> list[float]:
        taken = []
        channel = Channel("127.0.0.1", port)
        produce = UnaryUnaryMethod(channel, "/log.v1.Log/Produce", log_v1.ProduceRequest, log_v1.ProduceResponse)
        request = log_v1.ProduceRequest(record=log_v1.Record(value=value))
        try:
            for _ in range(calls):
                began = time.perf_counter()
                await produce(request)
                taken.append(time.perf_counter() - began)
        finally:
            channel.close()
        return taken

    async with open_loop():
        measured: list[float] = await aio_as_trio(measure)()
        return measured


def compare(directory: Path, size: int, rounds: int, seconds: float) -> None:
    """Print the table for records of one size."""
    value = os.urandom(size)
    ours_in, ours_out, redis_in, redis_out, nats_in, plain = [], [], [], [], [], []
    for number in range(rounds):
        with node(directory / f"node-{size}-{number}") as port:
            trio.run(_ours_in, port, value, min(seconds, 1.0))  # warms up, as the peers' servers need not
            before = trio.run(_end_offset, port)
            ours_in.append(trio.run(_ours_in, port, value, seconds))
            ours_out.append(trio.run(_ours_out, port, value, before))
        with peers.redis_server(directory / f"redis-{size}-{number}") as port:
            redis_in.append(peers.redis_in(port, value, seconds))
            redis_out.append(peers.redis_out(port, value))
        with peers.nats_server(directory / f"nats-{size}-{number}") as port:
            nats_in.append(peers.nats_in(port, value, seconds))
        plain.append(plain_loop(directory, value, seconds))
    print(f"\nrecords of {size} bytes, {rounds} rounds of {seconds:g} s, records a second (lowest to highest)")
    rows = {
        "proglog-trio in": ours_in,
        "redis-py in": redis_in,
        "nats-py in": nats_in,
        "plain loop": plain,
        "proglog-trio out": ours_out,
        "redis-py out": redis_out,
    }
    for name, rates in rows.items():
        middle = median_rate(rates)
        figures = f"{middle.per_second:>12,.0f}  {middle.megabytes_per_second:>8,.1f} MB/s"
        print(f"  {name:<18}{figures}  ({spread(rates)})")
    for name, mine, other, wanted in (
        ("in, against redis-py", ours_in, redis_in, 20.0),
        ("in, against nats-py", ours_in, nats_in, 150.0),
        ("in, against the plain loop", ours_in, plain, 0.4),
        ("out, against redis-py", ours_out, redis_out, 15.0),
    ):
        ratio = median_rate(mine).per_second / median_rate(other).per_second
        print(f"  {name:<28}{ratio:8.2f}x  goal {wanted:g}x: {goal(ratio >= wanted)}")


def compare_unary(directory: Path, rounds: int) -> None:
    """Print the unary Produce against a bare echo."""
    value = os.urandom(128)
    ours, echo, syncs = [], [], []
    for number in range(rounds):
        with node(directory / f"unary-{number}") as port:
            ours.append(median(trio.run(_unary, port, value, UNARY_CALLS)))
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.echo_server", str(port)]
        with running(command, partial(accepts, port)):
            echo.append(median(trio.run(_unary, port, value, UNARY_CALLS)))
        syncs.append(percentile(fdatasync_seconds(directory, 300, 300), 0.5))
    mine, bare, sync = median(ours), median(echo), median(syncs)
    allowed = 1.3 * bare + sync
    print(f"\nunary Produce, p50: {mine * 1e3:.2f} ms")
    print(f"  a bare grpclib echo {bare * 1e3:.2f} ms, fdatasync {sync * 1e3:.2f} ms")
    print(f"  {(mine - sync) / bare:.2f}x the echo, plus one fdatasync; goal 1.3x: {goal(mine <= allowed)}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; default: the temporary directory")
    parser.add_argument("--size", type=int, action="append", help="of the records; default: 128 and 1024")
    parser.add_argument("--only", choices=["batches", "unary"])
    arguments = parser.parse_args()
    print_machine()
    for name in ("redis-server", "nats-server"):
        version = subprocess.run([peers.program(name), "--version"], capture_output=True, text=True, check=True)
        print(version.stdout.strip())
    with scratch_directory(arguments.directory) as directory:
        if arguments.only != "unary":
            for size in arguments.size or [128, 1024]:
                compare(directory, size, arguments.rounds, arguments.seconds)
        if arguments.only != "batches":
            compare_unary(directory, arguments.rounds)


if __name__ == "__main__":
    main()
