"""This tree against another checkout of this repository, in turn on one machine: is a change slower?

Each pair runs the same work with either tree, its own nodes and its own client. Both trees' nodes run at once, and each
measurement is cut into slices that they do in turn, in an order that alternates: what slows the machine for some
seconds slows both. What is printed is the median of the pairs' ratios (this tree over the other: above 1 is faster),
and an interval that holds the true median with at least 95 % probability, whatever the ratios' distribution (from the
order statistics).

    git worktree add ../before COMMIT
    python -m benchmarks.against ../before
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from benchmarks.common import accepts, free_port, print_machine, running, scratch_directory
from proglog_trio.client import Acknowledgement, ConsumerConfig, ProducerConfig, open_consumer, open_producer

SIZES = (128, 1024)
BATCH_BYTES = 1 << 20
REPLICATED_BATCH_BYTES = 1 << 18
AWAITED_RECORDS = 200
NODES = 3
SLICES = 3
WARM_UP = "warm-up"
TREE = Path(__file__).parent.parent


def main() -> None:
    """Run the benchmark, or with `--measure` one tree's part of a pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout's directory")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.8, help="of each measurement, all slices together")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; default: the temporary directory")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        with scratch_directory(arguments.directory) as directory:
            slices = measure(directory, arguments.seconds / SLICES)
            for _turn in sys.stdin:
                print(json.dumps(next(slices, None)), flush=True)
        return
    if arguments.other is None or not (arguments.other / "proglog_trio").is_dir():
        parser.error("name the directory of another checkout")
    print_machine()
    compare(arguments.other.resolve(), arguments.pairs, arguments.seconds, arguments.directory)


def compare(other: Path, pairs: int, seconds: float, directory: Path | None) -> None:
    """Print each measure's ratio, this tree's figures over the other's."""
    ratios: dict[str, list[float]] = {}
    for number in range(pairs):
        figures = _pair((TREE, other), number, seconds, directory)
        for name, mine in figures[TREE].items():
            ratios.setdefault(name, []).append(mine / figures[other][name])
        print(f"pair {number + 1} of {pairs}: {', '.join(f'{each[-1]:.2f}' for each in ratios.values())}", flush=True)
    print(f"\nthis tree over {other}, {pairs} pairs: median, and its 95 % interval")
    for name, each in ratios.items():
        low, high = interval(each)
        print(f"  {name:<34}{statistics.median(each):6.3f}x  ({low:.3f} to {high:.3f})")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the narrowest pair of order statistics that holds the median with 95 % probability, if there is one."""
    ordered = sorted(values)
    count = len(ordered)
    cut = 0
    while sum(math.comb(count, k) for k in range(cut + 2)) * 2 <= 0.05 * 2**count:
        cut += 1
    return ordered[cut], ordered[-1 - cut]


def _pair(trees: Sequence[Path], number: int, seconds: float, directory: Path | None) -> dict[Path, dict[str, float]]:
    """Return both trees' records a second, by measure."""
    moved: dict[Path, dict[str, list[float]]] = {tree: {} for tree in trees}
    with ExitStack() as stack:
        processes = {tree: stack.enter_context(_measuring(tree, seconds, directory)) for tree in trees}
        over = False
        while not over:
            # A slice of the one, two of the other, two of the one, and so on.
            for tree in trees if number % 2 else reversed(trees):
                said = _turn(processes[tree])
                over = said is None
                if said is not None and said[0] != WARM_UP:
                    name, records, took = said
                    sums = moved[tree].setdefault(name, [0.0, 0.0])
                    sums[0] += records
                    sums[1] += took
            number += 1
    return {tree: {name: records / took for name, (records, took) in sums.items()} for tree, sums in moved.items()}


def _measuring(tree: Path, seconds: float, directory: Path | None) -> subprocess.Popen[bytes]:
    # This file with the other tree's packages: its own directory is not looked into (-P).
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-P", __file__, "--measure", "--seconds", str(seconds)]
    if directory is not None:
        command += ["--directory", str(directory)]
    return subprocess.Popen(command, env=environment, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _turn(process: subprocess.Popen[bytes]) -> tuple[str, int, float] | None:
    """Have a process measure one slice, and return what it was, records and seconds; None when there are no more."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit("a measuring process ended")
    said: tuple[str, int, float] | None = json.loads(line)
    return said


def measure(directory: Path, seconds: float) -> Iterator[tuple[str, int, float]]:
    """Measure one slice of this process's tree after the other; give its measure, its records, and how long it took."""
    for size in SIZES:
        value = os.urandom(size)
        with ExitStack() as stack:
            (port,) = _nodes(stack, directory / f"alone-{size}", 1)
            yield WARM_UP, *trio.run(_produce, [port], value, 0.5, BATCH_BYTES, None)
            for _ in range(SLICES):
                yield f"in, {size} bytes", *trio.run(_produce, [port], value, seconds, BATCH_BYTES, None)
            for _ in range(SLICES):
                yield f"out, {size} bytes", *trio.run(_consume, port, seconds)
            for _ in range(SLICES if size == SIZES[0] else 0):
                yield f"in, awaited one by one, {size} bytes", *trio.run(_produce_awaited, port, value)
        with ExitStack() as stack:
            ports = _nodes(stack, directory / f"three-{size}", NODES)
            of_three = (REPLICATED_BATCH_BYTES, Acknowledgement.nodes_of(NODES))
            yield WARM_UP, *trio.run(_produce, ports, value, 0.5, *of_three)
            for _ in range(SLICES):
                yield f"durable on three nodes, {size} bytes", *trio.run(_produce, ports, value, seconds, *of_three)


def _nodes(stack: ExitStack, directory: Path, count: int) -> list[int]:
    ports = []
    gossip = free_port()
    for number in range(count):
        port = free_port()
        options = ["--data-dir", str(directory / f"n{number}"), "--node-name", f"n{number}", "--rpc-port", str(port)]
        options += ["--bind-addr", f"127.0.0.1:{gossip if not number else 0}", "--no-leave-on-terminate"]
        if number:
            options += ["--start-join-addrs", f"127.0.0.1:{gossip}"]
        command = [sys.executable, "-m", "proglog_trio", "node", "--log-level", "warning", *options]
        stack.enter_context(running(command, partial(accepts, port)))
        ports.append(port)
    return ports


async def _produce(
    ports: Sequence[int], value: bytes, seconds: float, batch_bytes: int, acknowledgement: Acknowledgement | None
) -> tuple[int, float]:
    values = [value] * max(1, batch_bytes // (len(value) + 5))
    config = ProducerConfig() if acknowledgement is None else ProducerConfig(acknowledgement=acknowledgement)
    count = 0
    async with open_producer(f"127.0.0.1:{ports[0]}", config) as producer:
        await producer.send_batch([value])
        await producer.flush()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            await producer.send_batch(values)
            count += len(values)
        await producer.flush()
        return count, time.perf_counter() - began


async def _produce_awaited(port: int, value: bytes) -> tuple[int, float]:
    async with open_producer(f"127.0.0.1:{port}", ProducerConfig()) as producer:
        await (await producer.send(value)).wait()
        began = time.perf_counter()
        for _ in range(AWAITED_RECORDS):
            await (await producer.send(value)).wait()
        return AWAITED_RECORDS, time.perf_counter() - began


async def _consume(port: int, seconds: float) -> tuple[int, float]:
    """Read from the first record on, for so long or to the end."""
    count = 0
    began = time.perf_counter()
    async with open_consumer(f"127.0.0.1:{port}", ConsumerConfig(offset=0, follow=False)) as consumer:
        async for batch in consumer.batches():
            count += len(batch.values())
            if time.perf_counter() - began >= seconds:
                break
        took = time.perf_counter() - began
    return count, took


if __name__ == "__main__":
    main()
