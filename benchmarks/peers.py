"""The peers of the log benchmark: Redis Streams through redis-py, NATS JetStream through nats-py."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import nats.js.api
import redis

from benchmarks.common import Rate, accepts, free_port, running

PIPELINE_LENGTH = 1000
READ_COUNT = 5000


def program(name: str) -> str:
    """Return where a program is, or end with what to install."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        sys.exit(f"{name} is not installed; on Debian: apt-get install {name}")
    return found


@contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """Run a Redis that syncs its append-only file before it answers; yields its port."""
    port = free_port()
    directory.mkdir()
    options = ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    command = [program("redis-server"), "--bind", "127.0.0.1", "--port", str(port), *options]
    with running(command, lambda: accepts(port)):
        yield port


def redis_in(port: int, value: bytes, seconds: float) -> Rate:
    """Append for a while through pipelines of XADD, each answered before the next is sent."""
    client = redis.Redis(port=port)
    client.delete("log")
    count = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        pipeline = client.pipeline(transaction=False)
        for _ in range(PIPELINE_LENGTH):
            pipeline.xadd("log", {b"v": value})
        count += len(pipeline.execute())
    rate = Rate(count, time.perf_counter() - began, len(value))
    client.close()
    return rate


def redis_out(port: int, value: bytes) -> Rate:
    """Read the whole stream by XREAD."""
    client = redis.Redis(port=port)
    count = 0
    last: bytes = b"0"
    began = time.perf_counter()
    while True:
        answer: Any = client.xread({"log": last}, count=READ_COUNT)
        if not answer:
            break
        rows: Any = answer[0][1] if isinstance(answer, list) else answer[b"log"][0]
        count += len(rows)
        last = rows[-1][0]
    rate = Rate(count, time.perf_counter() - began, len(value))
    client.close()
    return rate


def write_synchronously(directory: Path) -> bool:
    """Have the file system sync every write below a directory (ext4 and others, by chattr); tell whether it can."""
    return subprocess.run(["chattr", "+S", str(directory)], capture_output=True, check=False).returncode == 0


@contextmanager
def nats_server(directory: Path) -> Iterator[int]:
    """Run a NATS server with JetStream on files; yields its port.

    Debian's version has no setting to sync before it answers, so the file system does it.
    """
    port = free_port()
    directory.mkdir()
    if not write_synchronously(directory):
        print("  (this file system cannot sync NATS's writes: NATS answers before its records are durable)")
    command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]
    with running(command, lambda: accepts(port)):
        yield port


async def _nats_in(port: int, value: bytes, seconds: float) -> Rate:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream()
    await stream.add_stream(name="log", subjects=["log"], storage=nats.js.api.StorageType.FILE)
    count = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(100):
            await stream.publish_async("log", value)
        count += 100
    await stream.publish_async_completed()
    rate = Rate(count, time.perf_counter() - began, len(value))
    await stream.delete_stream("log")
    await client.close()
    return rate


def nats_in(port: int, value: bytes, seconds: float) -> Rate:
    """Publish for a while, with nats-py's own bound of publishes that wait for their acknowledgement."""
    return asyncio.run(_nats_in(port, value, seconds))
