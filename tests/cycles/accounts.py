"""What this process holds: tasks, descriptors, and objects of clients. Nothing of it may stay when they have gone."""

import asyncio
import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import trio
from attrs import frozen
from grpclib.client import Stream

from proglog_trio.client import Consumer, Producer
from proglog_trio.client.fetcher import Fetcher
from proglog_trio.client.sender import Sender
from proglog_trio.rpc.calls.connection import TunedChannel
from proglog_trio.rpc.http2.asyncio_loop import runs_trio
from proglog_trio.rpc.http2.transport import TunedProtocol

OBJECTS = (Producer, Consumer, Sender, Fetcher, TunedChannel, TunedProtocol, Stream)


@frozen
class Holdings:
    """What can be counted at any moment."""

    tasks: int
    descriptors: int

    @classmethod
    def now(cls) -> "Holdings":
        """Count."""
        tasks = trio.lowlevel.current_statistics().tasks_living if runs_trio() else len(asyncio.all_tasks())
        return cls(tasks, sum(1 for _ in Path("/proc/self/fd").iterdir()))


async def settle(before: Holdings, seconds: float) -> Holdings | None:
    """Wait until there is no more than before; return what there is if that does not come about.

    A transport is closed in the tick after the one that closes it, so some ticks go by.
    """
    now: Holdings | None = None
    with anyio.move_on_after(seconds):
        while True:
            now = Holdings.now()
            if now.tasks <= before.tasks and now.descriptors <= before.descriptors:
                return None
            await anyio.lowlevel.checkpoint()
    return now


def objects() -> dict[str, int]:
    """Return how many objects of clients are left once the garbage collector has run, by their class."""
    gc.collect()
    kinds = Counter(type(each) for each in gc.get_objects())
    return {kind.__name__: kinds[kind] for kind in OBJECTS if kinds[kind]}


def resident_mebibytes() -> float:
    """Return how much memory this process has resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class _Listener(logging.Handler):
    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.append(self.format(record))


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect what is said of a task whose error nobody saw, of a coroutine that nobody awaited and their like."""
    said: list[str] = []
    listener = _Listener(said)
    hook = sys.unraisablehook

    def unraisable(error: Any) -> None:
        said.append(f"{error.err_msg}: {error.exc_value!r} in {error.object!r}")

    logging.getLogger().addHandler(listener)
    sys.unraisablehook = unraisable
    try:
        yield said
    finally:
        sys.unraisablehook = hook
        logging.getLogger().removeHandler(listener)
