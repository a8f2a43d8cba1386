from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import h2.events
import psutil
import pytest
import trio
from google.protobuf import descriptor_pb2
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from grpclib.health.v1 import health_pb2
from grpclib.reflection.v1 import reflection_pb2
from h2.errors import ErrorCodes

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import AddressInUse, AddressUnavailable, CallFailed, ConnectionLost
from proglog_trio.log.disk import NotWritten
from proglog_trio.log.writer import CommitFailed
from proglog_trio.rpc.calls.connection import TunedChannel, open_connection
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.server.server import ServerConfig, serve
from tests.rpc.support import RawClient, batch_request, call, eventually, method_path, produce, running_server

SERVING, NOT_SERVING = 1, 2
CANCELLED, UNAVAILABLE = 1, 14

# -- where it listens --------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_named() -> None:
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(serve, [], "127.0.0.1", 0)
        with pytest.raises(AddressInUse, match=f"^cannot listen on 127.0.0.1:{port}: the port is in use$"):
            await serve([], "127.0.0.1", port)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
async def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(AddressUnavailable, match=f"^cannot listen on {host}:8400: "):
        await serve([], host, 8400)


# -- health and reflection ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _grpcio_channel(address: str) -> AsyncIterator[grpc.Channel]:
    channel = grpc.insecure_channel(address)
    try:
        yield channel
    finally:
        await trio.to_thread.run_sync(channel.close)


async def _foreign_call(channel: grpc.Channel, path: str, request: Any, response: Any) -> Any:
    method = channel.unary_unary(
        path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
    )
    return await trio.to_thread.run_sync(lambda: method(request, timeout=10))


@pytest.mark.parametrize("service", ["", "log.v1.Log", "log.v1.Log.Produce", "log.v1.Log.Consume"])
async def test_health(tmp_path: Path, service: str) -> None:
    async with running_server(tmp_path) as server, _grpcio_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await _foreign_call(channel, "/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse)
        assert answer.status == SERVING


async def test_health_of_a_node_that_takes_no_records(tmp_path: Path) -> None:
    """By the name that is asked for: the node, the service as a whole, writing, reading."""
    async with running_server(tmp_path) as server, _grpcio_channel(server.address) as channel:

        async def health() -> list[int]:
            answers = []
            for name in ("", "log.v1.Log", "log.v1.Log.Produce", "log.v1.Log.Consume"):
                request = health_pb2.HealthCheckRequest(service=name)
                path = "/grpc.health.v1.Health/Check"
                answers.append((await _foreign_call(channel, path, request, health_pb2.HealthCheckResponse)).status)
            return answers

        assert await health() == [SERVING] * 4
        # More than any disk has, so that nothing changes until this says so.
        full = CommitFailed(NotWritten(28, "No space left on device"), 0, 0, may_go_on=True, wanted=1 << 61)
        server.log.committed(0, full)
        assert await health() == [SERVING, NOT_SERVING, NOT_SERVING, SERVING]
        server.log.looked_at_disk(1 << 62)
        assert await health() == [SERVING] * 4


async def test_health_of_writing_is_watched(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        seen: list[int] = []

        async def watch(channel: TunedChannel) -> None:
            async with channel.request(
                "/grpc.health.v1.Health/Watch",
                Cardinality.UNARY_STREAM,
                health_pb2.HealthCheckRequest,
                health_pb2.HealthCheckResponse,
            ) as stream:
                await stream.send_message(health_pb2.HealthCheckRequest(service="log.v1.Log.Produce"), end=True)
                async for answer in stream:
                    seen.append(answer.status)
                    if len(seen) == 3:
                        await stream.cancel()
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run, watch)
            await eventually(lambda: seen == [SERVING])
            full = CommitFailed(NotWritten(28, "No space left on device"), 0, 0, may_go_on=True, wanted=1 << 61)
            server.log.committed(0, full)
            await eventually(lambda: seen == [SERVING, NOT_SERVING])
            server.log.looked_at_disk(1 << 62)
        assert seen == [SERVING, NOT_SERVING, SERVING]


async def test_health_of_an_unknown_service(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, _grpcio_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service="what")
        with pytest.raises(grpc.RpcError) as caught:
            await _foreign_call(channel, "/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_watched_while_the_server_stops(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        seen: list[int] = []

        async def watch(channel: TunedChannel) -> None:
            async with channel.request(
                "/grpc.health.v1.Health/Watch",
                Cardinality.UNARY_STREAM,
                health_pb2.HealthCheckRequest,
                health_pb2.HealthCheckResponse,
            ) as stream:
                await stream.send_message(health_pb2.HealthCheckRequest(), end=True)
                async for answer in stream:
                    seen.append(answer.status)  # noqa: PERF401 - looked at while it grows

        async with trio.open_nursery() as nursery:

            async def watching() -> None:
                with pytest.raises((CallFailed, ConnectionLost)):
                    await connection.run(watch)

            nursery.start_soon(watching)
            await eventually(lambda: seen == [SERVING])
            await server.stop()
        assert seen == [SERVING, NOT_SERVING]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_the_service(tmp_path: Path, version: str) -> None:
    async with running_server(tmp_path) as server, _grpcio_channel(server.address) as channel:
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="log.v1.Log"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Service"),
        ]
        listed, described, health, missing = await trio.to_thread.run_sync(
            lambda: list(method(iter(requests), timeout=10))
        )
        names = {service.name for service in listed.list_services_response.service}
        assert names >= {"log.v1.Log", "grpc.health.v1.Health"}
        file = descriptor_pb2.FileDescriptorProto.FromString(
            described.file_descriptor_response.file_descriptor_proto[0]
        )
        assert [method.name for method in file.service[0].method][:4] == [
            *("Produce", "Consume", "ConsumeStream", "ProduceStream")
        ]
        assert health.file_descriptor_response.file_descriptor_proto
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_too_many_connections_are_sent_away(tmp_path: Path) -> None:
    async with running_server(tmp_path, config=ServerConfig(max_connections=2)) as server:
        async with RawClient.open(server.port) as first, RawClient.open(server.port) as second:
            for busy in (first, second):
                await busy.request("ProduceBatches")
            await eventually(lambda: len(server.service.state.producing) == 2)
            async with RawClient.open(server.port) as third:
                await third.closed()
                assert _goodbye(third) == b"too many connections"
        assert (server.counters.connections_refused, server.counters.connections_evicted) == (1, 0)
        await eventually(lambda: len(psutil_connections(server.port)) == 1)
        async with open_connection(server.address) as connection:
            await connection.run(call, "GetServers", log_v1.GetServersRequest())


@pytest.mark.parametrize("watches", [False, True])
async def test_who_does_nothing_makes_room(tmp_path: Path, watches: bool) -> None:
    async with running_server(tmp_path, config=ServerConfig(max_connections=2)) as server:
        async with RawClient.open(server.port) as busy, RawClient.open(server.port) as idle:
            number = await busy.request("ProduceBatches")
            await eventually(lambda: len(server.service.state.producing) == 1)
            if watches:
                # Who only watches the servers can do so elsewhere.
                await idle.send(await idle.request("WatchServers"), prefixed(b""), end=True)
                await eventually(lambda: server.service.counters.watchers == 1)
            await idle.receive()
            async with open_connection(server.address) as third:
                await third.run(call, "GetServers", log_v1.GetServersRequest())
            await idle.closed()
            assert _goodbye(idle) == b"too many connections, and this one was idle"
            await busy.send(number, b"", end=True)
            assert (await busy.status(number))[0] == 0
        assert (server.counters.connections_refused, server.counters.connections_evicted) == (0, 1)


def _goodbye(client: RawClient) -> bytes | None:
    (event,) = [event for event in client.events if isinstance(event, h2.events.ConnectionTerminated)]
    assert event.error_code is ErrorCodes.ENHANCE_YOUR_CALM
    return event.additional_data


async def test_a_deadline_that_has_passed_is_said(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        number = await client.request("Produce", ("grpc-timeout", "0n"))
        assert (await client.status(number))[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_deadline_ends_a_waiting_call(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        for name in ("ProduceBatches", "ProduceStream", "Produce"):
            number = await client.request(name, ("grpc-timeout", "100m"))
            assert (await client.status(number))[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        number = await client.request("ConsumeStream", ("grpc-timeout", "100m"))
        await client.send(number, prefixed(b""), end=True)
        assert (await client.status(number))[0] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        await eventually(lambda: server.service.counters.consumers == 0)


# -- stopping ----------------------------------------------------------------------------------------------------------

CLIENT = """
import sys
import trio
from grpclib.const import Cardinality
from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.calls.connection import open_connection

async def consume(channel):
    async with channel.request("/log.v1.Log/ConsumeBatches", Cardinality.UNARY_STREAM, log_v1.ConsumeBatchesRequest,
                               log_v1.ConsumeBatchesResponse) as stream:
        await stream.send_message(log_v1.ConsumeBatchesRequest(offset=0), end=True)
        await stream.recv_message()
        print("ready", flush=True)
        async for answer in stream:
            pass

async def produce(channel):
    async with channel.request("/log.v1.Log/ProduceBatches", Cardinality.STREAM_STREAM, log_v1.ProduceBatchRequest,
                               log_v1.ProduceBatchResponse) as stream:
        await stream.send_request()
        print("ready", flush=True)
        while True:  # never reads an answer
            await stream.send_message(log_v1.ProduceBatchRequest(payload=b"\\x91\\x91\\xc4\\x01x", count=1))

async def main():
    async with open_connection(sys.argv[1]) as connection:
        await connection.run({"consume": consume, "produce": produce}[sys.argv[2]])

trio.run(main)
"""


def psutil_connections(port: int) -> list[Any]:
    """The sockets of this process on a port, those that listen included."""
    own = psutil.Process().net_connections(kind="tcp")
    return [each for each in own if each.laddr[1:] == (port,)]


async def _read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return await trio.to_thread.run_sync(process.stdout.readline)


async def test_stopping_with_all_kinds_of_clients_leaves_nothing(tmp_path: Path) -> None:
    async with running_server(tmp_path / "log") as server, contextlib.AsyncExitStack() as clients:
        connection = await clients.enter_async_context(open_connection(server.address))
        big = batch_request([b"x" * 1000] * 1000)
        await connection.run(_exchange_many, [big] * 40)
        processes = []
        for kind in ("consume", "consume", "produce", "produce"):
            process = subprocess.Popen(  # noqa: ASYNC220 - starting it is quick; what waits for it does so in a thread
                [sys.executable, "-c", textwrap.dedent(CLIENT), server.address, kind],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            clients.callback(process.wait)
            clients.callback(process.kill)
            assert process.stdout is not None
            clients.callback(process.stdout.close)
            processes.append(process)
        for process in processes:
            assert await _read_line(process) == b"ready\n"
        os.kill(processes[0].pid, signal.SIGSTOP)
        os.kill(processes[2].pid, signal.SIGSTOP)
        # One that reads nothing at all, one that waits at the end, one that has only connected.
        mute = await clients.enter_async_context(RawClient.open(server.port))
        number = await mute.request("ConsumeBatches")
        await mute.send(number, prefixed(log_v1.ConsumeBatchesRequest(offset=0).SerializeToString()), end=True)
        waiting = await clients.enter_async_context(RawClient.open(server.port))
        number = await waiting.request("ConsumeStream")
        await waiting.send(number, prefixed(log_v1.ConsumeRequest(offset=10**9).SerializeToString()), end=True)
        await clients.enter_async_context(RawClient.open(server.port, greet=False))
        await eventually(lambda: server.service.counters.consumers == 4)

        assert await server.stop() < 10
        assert await waiting.status(number) == (UNAVAILABLE, "the node is stopping")
        assert psutil_connections(server.port) == []
        assert server.service.counters.consumers == 0
        assert not server.service.state.producing
        assert [task for task in asyncio.all_tasks() if "request_handler" in repr(task)] == []


async def _exchange_many(channel: TunedChannel, requests: list[Any]) -> None:
    async with channel.request(
        method_path("ProduceBatches"),
        Cardinality.STREAM_STREAM,
        log_v1.ProduceBatchRequest,
        log_v1.ProduceBatchResponse,
    ) as stream:
        for request in requests:
            await stream.send_message(request)
        await stream.end()
        async for answer in stream:
            assert answer.error is None, answer


async def test_what_a_produce_stream_took_in_is_answered_before_the_stop(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        answers: list[int] = []

        async def produce_on(channel: TunedChannel) -> None:
            async with channel.request(
                method_path("ProduceBatches"),
                Cardinality.STREAM_STREAM,
                log_v1.ProduceBatchRequest,
                log_v1.ProduceBatchResponse,
            ) as stream:
                for number in range(50):
                    await stream.send_message(batch_request([b"x" * 1000] * 100, producer_sequence=number))
                async for answer in stream:
                    answers.append(answer.producer_sequence)  # noqa: PERF401 - looked at while it grows
                # grpclib tells the status of a stream that the client has not ended only in this way.
                raise StreamTerminatedError("the node ended the stream")

        async with trio.open_nursery() as nursery:

            async def producing() -> None:
                with pytest.raises(CallFailed, match="UNAVAILABLE: the node is stopping"):
                    await connection.run(produce_on)

            nursery.start_soon(producing)
            await eventually(lambda: len(answers) >= 1)
            assert await server.stop() < 2
        assert answers == list(range(len(answers)))
        assert server.log.next_offset == len(answers) * 100


async def test_an_idle_server_stops_at_once(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await produce(connection, b"x")
        assert await server.stop() < 0.5


async def test_a_client_that_leaves_ends_its_calls_at_once(tmp_path: Path) -> None:
    config = ServerConfig(transport=TransportConfig(keepalive_seconds=60))
    async with running_server(tmp_path, config=config) as server:
        async with RawClient.open(server.port) as client:
            for name, request in (
                ("ConsumeStream", log_v1.ConsumeRequest(offset=5)),
                ("ConsumeBatches", log_v1.ConsumeBatchesRequest(offset=0)),
                ("ProduceStream", None),
                ("ProduceBatches", None),
            ):
                number = await client.request(name)
                if request is not None:
                    await client.send(number, prefixed(request.SerializeToString()), end=True)
            await eventually(lambda: server.service.counters.consumers == 2)
            await eventually(lambda: len(server.service.state.producing) == 2)
            assert (server.counters.connections_open, server.counters.requests_open) == (1, 4)
        await eventually(lambda: server.service.counters.consumers == 0)
        await eventually(lambda: not server.service.state.producing)
        await eventually(lambda: (server.counters.connections_open, server.counters.requests_open) == (0, 0))
