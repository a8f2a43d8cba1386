"""A node's server in this process, and clients that are not ours."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import trio
from attrs import define, field, frozen
from grpclib.const import Cardinality

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.record import pack_values, payload_crc
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.rpc.calls.connection import Connection, TunedChannel, open_connection
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.server.handlers import ServerCounters
from proglog_trio.rpc.server.log_service import LogService, open_log_service
from proglog_trio.rpc.server.log_service_state import LogServiceConfig, ServerInfo
from proglog_trio.rpc.server.server import ServerConfig, ServerSecurity, serve


@frozen
class RunningServer:
    """A server and what it serves.

    Attributes:
        host, port: where it listens.
        scope: cancelling it stops the server.
        stopped: set when it has stopped.
    """

    host: str
    port: int
    log: Log
    service: LogService
    counters: ServerCounters
    scope: trio.CancelScope
    stopped: trio.Event

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def stop(self) -> float:
        """Stop the server; return how long it took, in seconds."""
        begun = trio.current_time()
        self.scope.cancel()
        await self.stopped.wait()
        return trio.current_time() - begun


@contextlib.asynccontextmanager
async def running_server(
    directory: Path,
    *,
    config: ServerConfig | None = None,
    service_config: LogServiceConfig | None = None,
    security: ServerSecurity | None = None,
    servers: Sequence[ServerInfo] | None = None,
    failed: Sequence[ServerInfo] = (),
    server_id: str = "node-1",
    **log_settings: Any,
) -> AsyncIterator[RunningServer]:
    """Serve a log in directory for the length of the block; servers, failed: what it tells, and may be changed."""
    counters = ServerCounters()
    stopped = trio.Event()
    scope = trio.CancelScope()

    async def run(service: LogService, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        with scope:
            await serve(
                [service], "127.0.0.1", 0, config=config, counters=counters, security=security, task_status=task_status
            )
        stopped.set()

    seen = [ServerInfo("node-1", "127.0.0.1:8400")] if servers is None else servers

    async with (
        asyncio_loop(),
        open_log(LogConfig(directory, **log_settings)) as log,
        open_log_service(log, lambda: seen, service_config, server_id=server_id, failed=lambda: failed) as service,
        trio.open_nursery() as nursery,
    ):
        host, port = await nursery.start(run, service)
        yield RunningServer(host, port, log, service, counters, scope, stopped)
        scope.cancel()


def method_path(name: str) -> str:
    return f"/log.v1.Log/{name}"


def batch_request(values: Sequence[bytes], **fields: Any) -> Any:
    payload = pack_values(values)
    return log_v1.ProduceBatchRequest(payload=payload, count=len(values), payload_crc=payload_crc(payload), **fields)


async def call(channel: TunedChannel, name: str, request: Any, timeout: float | None = None) -> Any:
    """Make a unary call, on the asyncio side."""
    response = getattr(log_v1, type(request).__name__.removesuffix("Request") + "Response")
    async with channel.request(
        method_path(name), Cardinality.UNARY_UNARY, type(request), response, timeout=timeout
    ) as stream:
        await stream.send_message(request, end=True)
        return await stream.recv_message()


async def exchange(channel: TunedChannel, name: str, requests: Sequence[Any]) -> list[Any]:
    """Send all requests on one stream, then return all answers, on the asyncio side."""
    response = getattr(log_v1, type(requests[0]).__name__.removesuffix("Request") + "Response")
    answers = []
    async with channel.request(method_path(name), Cardinality.STREAM_STREAM, type(requests[0]), response) as stream:
        for request in requests:
            await stream.send_message(request)
        await stream.end()
        async for answer in stream:
            answers.append(answer)  # noqa: PERF401 - what came before an error is wanted, too
    return answers


async def produce(connection: Connection, *values: bytes) -> list[int]:
    """Append records one after the other; return their offsets."""
    offsets = []
    for value in values:
        answer = await connection.run(call, "Produce", log_v1.ProduceRequest(record=log_v1.Record(value=value)))
        offsets.append(answer.offset)
    return offsets


@define
class RawClient:
    """An HTTP/2 client that sends what no gRPC library would."""

    stream: trio.SocketStream
    h2: h2.connection.H2Connection
    events: list[Any] = field(factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, port: int, *, greet: bool = True, receive_buffer: int | None = None
    ) -> AsyncIterator[RawClient]:
        opened = trio.socket.socket()
        if receive_buffer is not None:
            # Before it connects: a window that is offered and then taken back makes the kernel drop acknowledgements.
            opened.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        await opened.connect(("127.0.0.1", port))
        stream = trio.SocketStream(opened)
        connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        client = cls(stream, connection)
        async with stream:
            if greet:
                connection.initiate_connection()
                await client.flush()
            yield client

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def request(self, name: str, *extra: tuple[str, str]) -> int:
        """Open a stream and return its number."""
        number = self.begin_request(name, *extra)
        await self.flush()
        return number

    def begin_request(self, name: str, *extra: tuple[str, str]) -> int:
        """Open a stream, to be sent with what comes next, and return its number."""
        number = self.h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method_path(name)),
            (":authority", "node"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *extra,
        ]
        self.h2.send_headers(number, headers)
        return number

    async def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(number, data, end_stream=end)
        await self.flush()

    async def receive(self) -> bool:
        """Take in what the server sends next; False: it has closed the connection."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            return False
        if not data:
            return False
        self.events += self.h2.receive_data(data)
        await self.flush()
        return True

    async def status(self, number: int) -> tuple[int, str]:
        """Wait for a stream's gRPC status and message."""
        with trio.fail_after(10):
            while True:
                for event in self.events:
                    if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                        headers: dict[Any, Any] = dict(event.headers or ())
                        if event.stream_id == number and "grpc-status" in headers:
                            return int(headers["grpc-status"]), headers.get("grpc-message", "")
                assert await self.receive(), "the server closed the connection"

    def messages(self, number: int, message_class: Any) -> list[Any]:
        """Return the messages of a stream that have arrived."""
        data = b"".join(
            event.data or b""
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == number
        )
        found = []
        while data:
            length = int.from_bytes(data[1:5], "big")
            found.append(message_class.FromString(data[5 : 5 + length]))
            data = data[5 + length :]
        return found

    async def closed_unread(self) -> None:
        """Wait until the server closes the connection, and answer nothing that it sends."""
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            while await self.stream.receive_some():
                pass

    async def closed(self) -> None:
        """Wait until the server closes the connection."""
        with trio.fail_after(10):
            while await self.receive():
                pass


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds that no event tells of."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.01)


def message_frame(length: int, *, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, length)


__all__ = ["RawClient", "RunningServer", "open_connection", "running_server"]
