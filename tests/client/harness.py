"""A node in the test's own process, and a TCP proxy in front of it whose connections can be cut."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from proglog_trio.errors import ProglogError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import decode_frame
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.server.log_service import open_log_service
from proglog_trio.rpc.server.log_service_state import ServerInfo
from proglog_trio.rpc.server.server import serve


class RunningNode:
    """A node that is listening; servers is what it tells of the cluster, asked is set when somebody wants to know."""

    def __init__(self, log: Log, port: int, servers: list[ServerInfo], asked: trio.Event) -> None:
        self.log = log
        self.servers = servers
        self.asked = asked
        self.port = port
        self.address = f"127.0.0.1:{port}"


@asynccontextmanager
async def running_node(directory: Path, port: int = 0) -> AsyncIterator[RunningNode]:
    """Run a node for the length of a block; stops it as SIGTERM would."""
    servers: list[ServerInfo] = []
    asked = trio.Event()

    def tell_servers() -> Sequence[ServerInfo]:
        asked.set()
        return servers

    async with (
        asyncio_loop(),
        open_log(LogConfig(directory=directory)) as log,
        open_log_service(log, tell_servers) as service,
        trio.open_nursery() as nursery,
    ):
        _, bound = await nursery.start(partial(serve, [service], "127.0.0.1", port))
        yield RunningNode(log, bound, servers, asked)
        nursery.cancel_scope.cancel()


async def pull_all(log: Log, *others: Log, reverse: bool = False) -> None:
    """Let a log have all frames of others, as pulling does, an origin after the other, in this order or reverse."""
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
        self.was_cut = trio.Event()
        self._answer_bytes: int | None = None
        self.stalled = False
        self._scopes: set[trio.CancelScope] = set()
        self._flow = trio.Event()
        self._flow.set()
        self._answers = trio.Event()
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
        self.was_cut = trio.Event()
        self._answer_bytes = count

    def stall(self) -> None:
        """Pass nothing on until ``resume``."""
        self._flow = trio.Event()

    def hold_answers(self) -> None:
        """Pass on what clients send, and nothing of what the node says, until ``resume``."""
        self._answers = trio.Event()

    def resume(self) -> None:
        self._flow.set()
        self._answers.set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def _serve(self, client: trio.SocketStream) -> None:
        self.connections += 1
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with (
                    client,
                    await trio.open_tcp_stream("127.0.0.1", self.target_port) as node,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._pass_on, client, node, scope, False)
                    nursery.start_soon(self._pass_on, node, client, scope, True)
            except* (OSError, trio.BrokenResourceError):
                pass
            finally:
                self._scopes.discard(scope)

    async def _pass_on(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope, answers: bool
    ) -> None:
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
            await sink.send_all(data)
        scope.cancel()


@asynccontextmanager
async def cutting_proxy(target_port: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy for the length of a block."""
    proxy = CuttingProxy(target_port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
