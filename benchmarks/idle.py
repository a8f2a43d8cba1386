"""What a node costs while it does nothing, and while a long log is opened and read.

    python -m benchmarks.idle [--seconds 30] [--log-bytes 2147483648] [--directory DIR]

Prints each figure with its goal. The log is read from the page cache as far as memory goes: what is measured is the
node, not the disk.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import trio
from attrs import frozen

from proglog_trio.client import open_consumer, open_producer
from proglog_trio.log.batch import Batch
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.record import Record
from proglog_trio.log.opening import open_log
from proglog_trio.node.log_output import configure_log_output

MEBIBYTE = 1024 * 1024
READY_GOAL_SECONDS = 1.2
RESIDENT_GOAL_MEBIBYTES = 70
CPU_GOAL_PERCENT = 1
OPEN_GOAL_SECONDS = 1.0
READING_GOAL_MEBIBYTES = 150
STARTS = 5
VALUE = bytes(range(256)) * 4
BATCH = Batch.of([Record(VALUE)] * 500)


@frozen
class Node:
    """A running node, its address, and how long it took from its start until it was ready, in seconds."""

    process: psutil.Popen
    address: str
    ready_seconds: float


@contextmanager
def running_node(directory: Path) -> Iterator[Node]:
    """Run a node on a free port for the length of the block."""
    options = ["--data-dir", str(directory), "--bind-addr", "127.0.0.1:0", "--rpc-port", "0", "--json"]
    command = [sys.executable, "-m", "proglog_trio", "node", *options]
    begin = time.perf_counter()
    process = psutil.Popen([*command, "--log-level", "warning"], stdout=subprocess.PIPE)
    try:
        ready = json.loads(process.stdout.readline())
        yield Node(process, ready["rpc_addr"], time.perf_counter() - begin)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def say(what: str, figure: float, unit: str, goal: float) -> bool:
    """Print a figure beside its goal; return whether it is met."""
    met = figure <= goal
    print(f"{what:<48}{figure:>10.2f} {unit:<4} goal {goal:g} {unit}{'' if met else '  NOT MET'}")
    return met


def highest_resident_mebibytes(process: psutil.Process) -> float:
    """Return the most memory that a process has ever had resident (proc_pid_status(5), VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def measure_idle(directory: Path, seconds: float) -> bool:
    """Measure starting and doing nothing."""
    ready = []
    for _ in range(STARTS):
        with running_node(directory / "idle") as node:
            ready.append(node.ready_seconds)
    met = say(f"ready, median of {STARTS} starts", statistics.median(ready), "s", READY_GOAL_SECONDS)
    with running_node(directory / "idle") as node:
        before = node.process.cpu_times()
        time.sleep(seconds)
        after = node.process.cpu_times()
        resident = node.process.memory_info().rss / MEBIBYTE
    used = after.user + after.system - before.user - before.system
    met &= say("resident, idle", resident, "MiB", RESIDENT_GOAL_MEBIBYTES)
    return say(f"CPU over {seconds:g} s, idle", 100 * used / seconds, "%", CPU_GOAL_PERCENT) and met


async def fill(config: LogConfig, size: int) -> int:
    """Append about so many bytes; return how many records."""
    async with open_log(config) as log:
        for _ in range(max(1, size // len(BATCH.payload) // 16)):
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(log.append, BATCH)
        return log.next_offset


async def time_opening(config: LogConfig) -> float:
    """Return the seconds that opening a log takes."""
    begin = time.perf_counter()
    async with open_log(config):
        return time.perf_counter() - begin


async def read_through(address: str) -> int:
    """Read everything; return how many records there were."""
    count = 0
    async with open_consumer(address, follow=False) as consumer:
        async for batch in consumer.batches():
            count += len(batch)
    return count


async def append_one(address: str) -> None:
    """Write one record, so that the log is not as its last clean end left it."""
    async with open_producer(address) as producer:
        await (await producer.send(VALUE)).wait()


def measure_long_log(directory: Path, size: int) -> bool:
    """Measure opening a long log and reading it from its beginning to its end."""
    config = LogConfig(directory / "long")
    records = trio.run(fill, config, size)
    print(f"a log of {size / MEBIBYTE:.0f} MiB, {records} records of {len(VALUE)} bytes")
    opening = statistics.median(trio.run(time_opening, config) for _ in range(STARTS))
    met = say("opening it", opening, "s", OPEN_GOAL_SECONDS)
    with running_node(config.directory) as node:
        met &= say("ready with it", node.ready_seconds, "s", READY_GOAL_SECONDS)
        begin = time.perf_counter()
        read = trio.run(read_through, node.address)
        seconds = time.perf_counter() - begin
        if read != records:
            raise RuntimeError(f"{read} records were read, {records} had been written")
        met &= say(
            "resident at most, read through", highest_resident_mebibytes(node.process), "MiB", READING_GOAL_MEBIBYTES
        )
        trio.run(append_one, node.address)
        node.process.kill()
    met &= say("opening it after kill -9", trio.run(time_opening, config), "s", OPEN_GOAL_SECONDS)
    print(f"{'read through at':<48}{size / MEBIBYTE / seconds:>10.0f} MiB/s")
    return met


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch an idle node")
    parser.add_argument("--log-bytes", type=int, default=2 << 30, help="how long the long log is")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where logs are written; by default where temporary files are"
    )
    arguments = parser.parse_args()
    configure_log_output("auto", "warning")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        met = measure_idle(Path(name), arguments.seconds)
        met &= measure_long_log(Path(name), arguments.log_bytes)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
