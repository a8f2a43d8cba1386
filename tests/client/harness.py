"""A node in the test's own process, and a TCP proxy in front of it whose connections can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import anyio
import trio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from attrs import define

from proglog_trio.errors import ProglogError
from proglog_trio.log.batch import Batch
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import decode_frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.server.handlers import ServerCounters
from proglog_trio.rpc.server.log_service import open_log_service
from proglog_trio.rpc.server.log_service_state import ServerInfo
from proglog_trio.rpc.server.server import serve
from tests.trio_thread import TrioThread, in_trio_thread

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


@define(eq=False)
class RunningNode:
    """A node that is listening, in a thread of its own: it runs under Trio, whatever the test runs on.

    Attributes:
        log: belongs to that thread; a test may look at it, and changes it by `run`.
        servers: what it tells of the cluster.
    """

    log: Log
    port: int
    counters: ServerCounters
    servers: list[ServerInfo]
    _thread: TrioThread
    _serving: _Serving

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Serve no more; the port is free then."""
        await self._thread.run(self._serving.stop)

    async def run(self, function: Callable[[*Arguments], Awaitable[Result]], *arguments: *Arguments) -> Result:
        """Run an async function of Trio's beside the node."""
        return await self._thread.run(function, *arguments)

    async def call(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call a function in the node's thread."""
        return await self._thread.call(function, *arguments)

    async def append(self, *batches: Batch) -> None:
        """Store batches; returns when they are durable."""
        for batch in batches:
            await self._thread.run(self.log.append, batch)

    async def append_gap(self, marker: GapMarker) -> None:
        """Store a gap marker; returns when it is durable."""
        await self._thread.run(_append_gap, self.log, marker)

    async def pull_all(self, *others: RunningNode, reverse: bool = False) -> None:
        """Have all frames of others, as pulling does, an origin after the other, in this order or reverse."""
        await self._thread.run(_pull_all, self.log, [other.log for other in others], reverse)

    async def until_asked(self) -> None:
        """Return once somebody has wanted to know of the cluster."""
        await self._thread.run(self._serving.asked.wait)

    async def until_durable(self, end: int) -> None:
        """Return once the log is durable up to an offset."""
        await self._thread.run(_until_durable, self.log, end)


@asynccontextmanager
async def running_node(
    directory: Path, port: int = 0, *, cluster: str | None = None, **options: Any
) -> AsyncIterator[RunningNode]:
    """Run a node for the length of a block; stops it as SIGTERM would.

    Args:
        directory: of its log.
        port: 0: any that is free.
        cluster: None: as a node of a version that neither says its cluster nor looks for one.
        options: those of LogConfig.
    """
    config = LogConfig(directory=directory, cluster_name=cluster or "", **options)
    async with in_trio_thread(partial(_serving, config, port, cluster)) as (thread, serving):
        yield RunningNode(serving.log, serving.port, serving.counters, serving.servers, thread, serving)


@define(eq=False)
class _Serving:
    """What is in the node's own thread."""

    log: Log
    port: int
    counters: ServerCounters
    servers: list[ServerInfo]
    asked: trio.Event
    scope: trio.CancelScope
    stopped: trio.Event

    async def stop(self) -> None:
        self.scope.cancel()
        await self.stopped.wait()


@asynccontextmanager
async def _serving(config: LogConfig, port: int, cluster: str | None) -> AsyncIterator[_Serving]:
    servers: list[ServerInfo] = []
    counters = ServerCounters()
    asked, scope, stopped = trio.Event(), trio.CancelScope(), trio.Event()

    def tell_servers() -> Sequence[ServerInfo]:
        asked.set()
        return servers

    async with (
        asyncio_loop(),
        open_log(config) as log,
        open_log_service(log, tell_servers) as service,
        trio.open_nursery() as nursery,
    ):

        async def run(*, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            with scope:
                await serve(
                    [service], "127.0.0.1", port, counters=counters, cluster_name=cluster, task_status=task_status
                )
            stopped.set()

        _, bound = await nursery.start(run)
        yield _Serving(log, bound, counters, servers, asked, scope, stopped)
        nursery.cancel_scope.cancel()


async def _until_durable(log: Log, end: int) -> None:
    while log.next_offset < end:
        changed = trio.Event()
        forget = log.notify_durable(changed.set)
        await changed.wait()
        forget()


async def _append_gap(log: Log, marker: GapMarker) -> None:
    durable = trio.Event()
    log.append_gap(marker, lambda _: durable.set())
    await durable.wait()


async def _pull_all(log: Log, others: Sequence[Log], reverse: bool) -> None:
    held = log.position
    for other in others:
        reader = await trio.to_thread.run_sync(other.reader_at_position, held)
        chunk = await trio.to_thread.run_sync(reader.read, 1 << 30, other.next_offset)
        reader.close()
        frames = sorted(chunk.frames, key=lambda stored: stored.header.origin, reverse=reverse)
        durable = trio.Event()
        errors: list[ProglogError] = []
        left = len(frames)

        def done(
            error: ProglogError | None, durable: trio.Event = durable, errors: list[ProglogError] = errors
        ) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                errors.append(error)
            if not left:
                durable.set()

        for stored in frames:
            log.append_foreign(decode_frame(stored.data), stored.data, done)
        if frames:
            await durable.wait()
        assert not errors
        held = log.position


class CuttingProxy:
    """Passes bytes on between clients and a node, and cuts connections when it is told to."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.connections = 0
        self.cut_after_bytes: int | None = None
        self.was_cut = anyio.Event()
        self._answer_bytes: int | None = None
        self.stalled = False
        self._scopes: set[anyio.CancelScope] = set()
        self._flow = anyio.Event()
        self._flow.set()
        self._answers = anyio.Event()
        self._answers.set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut every connection at once, with whatever is on its way."""
        for scope in self._scopes:
            scope.cancel()

    def cut_answers_after(self, count: int) -> None:
        """Cut the connection on which the next so many bytes of answers are complete, without the last of them."""
        self.was_cut = anyio.Event()
        self._answer_bytes = count

    def stall(self) -> None:
        """Pass nothing on until ``resume``."""
        self._flow = anyio.Event()

    def hold_answers(self) -> None:
        """Pass on what clients send, and nothing of what the node says, until ``resume``."""
        self._answers = anyio.Event()

    def resume(self) -> None:
        self._flow.set()
        self._answers.set()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
            self.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
            task_status.started()
            await listener.serve(self._serve)

    async def _serve(self, client: SocketStream) -> None:
        self.connections += 1
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with (
                    client,
                    await anyio.connect_tcp("127.0.0.1", self.target_port) as node,
                    anyio.create_task_group() as nursery,
                ):
                    nursery.start_soon(self._pass_on, client, node, scope, False)
                    nursery.start_soon(self._pass_on, node, client, scope, True)
            except* (OSError, anyio.BrokenResourceError):
                pass
            finally:
                self._scopes.discard(scope)

    async def _pass_on(self, source: SocketStream, sink: SocketStream, scope: anyio.CancelScope, answers: bool) -> None:
        async for data in source:
            await self._flow.wait()
            if answers:
                await self._answers.wait()
                if self._answer_bytes is not None:
                    self._answer_bytes -= len(data)
                    if self._answer_bytes <= 0:
                        self._answer_bytes = None
                        self.was_cut.set()
                        scope.cancel()
            if self.cut_after_bytes is not None:
                self.cut_after_bytes -= len(data)
                if self.cut_after_bytes <= 0:
                    self.cut_after_bytes = None
                    scope.cancel()
            await sink.send(data)
        scope.cancel()


@asynccontextmanager
async def cutting_proxy(target_port: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy for the length of a block."""
    proxy = CuttingProxy(target_port)
    async with anyio.create_task_group() as nursery:
        await nursery.start(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
