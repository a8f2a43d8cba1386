"""GetServers and WatchServers, over a server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from grpclib.const import Cardinality

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import CallFailed
from proglog_trio.rpc.calls.connection import Connection, TunedChannel, open_connection
from proglog_trio.rpc.http2.bridge import aio_as_trio
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.server.log_service_state import LogServiceConfig, ServerInfo
from tests.rpc.support import RawClient, RunningServer, call, eventually, method_path, running_server

WAIT_SECONDS = 20.0
ONE, TWO, THREE = (ServerInfo(f"node-{number}", f"127.0.0.1:{number}") for number in (1, 2, 3))


@asynccontextmanager
async def watching(connection: Connection) -> AsyncIterator[trio.MemoryReceiveChannel[log_v1.WatchServersResponse]]:
    """Watch the servers; the answers come through a channel, which ends with them."""
    send, receive = trio.open_memory_channel[log_v1.WatchServersResponse](1000)

    async def watch(channel: TunedChannel) -> None:
        async with channel.request(
            method_path("WatchServers"),
            Cardinality.UNARY_STREAM,
            log_v1.WatchServersRequest,
            log_v1.WatchServersResponse,
        ) as stream:
            await stream.send_message(log_v1.WatchServersRequest(), end=True)
            async for answer in stream:
                send.send_nowait(answer)

    async def run() -> None:
        with send:
            await connection.run(watch)

    with trio.fail_after(WAIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield receive
            nursery.cancel_scope.cancel()


def names(servers: list[log_v1.Server]) -> list[str]:
    return [server.id for server in servers]


async def test_the_servers_now_and_whenever_they_change(tmp_path: Path) -> None:
    servers, failed = [ONE, TWO], [THREE]
    async with (
        running_server(tmp_path, servers=servers, failed=failed, cluster_name="orders") as server,
        open_connection(server.address) as connection,
        watching(connection) as answers,
    ):
        first = await answers.receive()
        assert first == log_v1.WatchServersResponse(
            servers=[
                log_v1.Server(id="node-1", rpc_addr="127.0.0.1:1", is_leader=True),
                log_v1.Server(id="node-2", rpc_addr="127.0.0.1:2", is_leader=True),
            ],
            cluster_name="orders",
            server_id="node-1",
            failed=[log_v1.Server(id="node-3", rpc_addr="127.0.0.1:3", is_leader=True)],
        )
        asked = await connection.run(call, "GetServers", log_v1.GetServersRequest())
        assert (asked.servers, asked.cluster_name, asked.server_id) == (first.servers, "orders", "node-1")
        # Nothing is told where nothing has changed.
        await server.service.news.tell()
        servers.remove(TWO)
        failed.insert(0, TWO)
        await server.service.news.tell()
        told = await answers.receive()
        assert (names(told.servers), names(told.failed)) == (["node-1"], ["node-2"])
        failed.remove(TWO)
        servers.append(TWO)
        await server.service.news.tell()
        told = await answers.receive()
        assert (names(told.servers), names(told.failed)) == (["node-1", "node-2"], [])
        assert (server.service.counters.watchers, server.service.counters.watchers_refused) == (1, 0)
    await eventually(lambda: server.service.counters.watchers == 0)


async def test_for_a_client_that_does_not_read_what_happens_is_one_answer(tmp_path: Path) -> None:
    many = [ServerInfo(f"{number:03}" + "x" * 500, f"127.0.0.1:{number}") for number in range(400)]
    servers, failed = list(many), list[ServerInfo]()
    async with (
        running_server(tmp_path, servers=servers, failed=failed) as server,
        RawClient.open(server.port) as client,
    ):
        number = await client.request("WatchServers")
        await client.send(number, prefixed(b""), end=True)
        # What a client takes that says nothing of windows is 64 KiB: the first answer does not fit.
        while not _data(client, number):
            assert await client.receive()
        for server_that_failed in many[:50]:
            servers.remove(server_that_failed)
            failed.insert(0, server_that_failed)
            await server.service.news.tell()
            await trio.lowlevel.checkpoint()
        with trio.fail_after(WAIT_SECONDS):
            while _count(_data(client, number)) < 2:
                client.h2.increment_flow_control_window(1 << 16)
                client.h2.increment_flow_control_window(1 << 16, number)
                await client.flush()
                assert await client.receive()
        first, second = client.messages(number, log_v1.WatchServersResponse)
        assert (len(first.servers), len(first.failed)) == (400, 0)
        assert (len(second.servers), names(second.failed)) == (350, [each.id for each in reversed(many[:50])])


def _data(client: RawClient, number: int) -> bytes:
    return b"".join(getattr(event, "data", b"") for event in client.events if getattr(event, "stream_id", 0) == number)


def _count(data: bytes) -> int:
    """How many messages are complete."""
    count = 0
    while len(data) >= 5 and len(data) >= 5 + (length := int.from_bytes(data[1:5], "big")):
        count, data = count + 1, data[5 + length :]
    return count


async def test_too_many_watchers_are_refused(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, service_config=LogServiceConfig(max_watchers=1)) as server,
        open_connection(server.address) as connection,
    ):
        async with watching(connection) as answers:
            await answers.receive()
            with pytest.RaisesGroup(
                pytest.RaisesExc(CallFailed, match="RESOURCE_EXHAUSTED: this node serves at most 1 watchers"),
                flatten_subgroups=True,
            ):
                async with watching(connection):
                    await trio.sleep_forever()
            assert server.service.counters.watchers_refused == 1
        await eventually(lambda: server.service.counters.watchers == 0)
        async with watching(connection) as answers:
            await answers.receive()


async def test_watching_ends_when_the_node_stops(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        with pytest.RaisesGroup(
            pytest.RaisesExc(CallFailed, match="UNAVAILABLE: the node is stopping"), flatten_subgroups=True
        ):
            async with watching(connection) as answers:
                await answers.receive()
                assert await server.stop() < 0.7
                await trio.sleep_forever()
        assert _watching(server) == (0, 0)


async def test_watching_ends_before_what_is_under_way_is_finished(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        with pytest.RaisesGroup(
            pytest.RaisesExc(CallFailed, match="UNAVAILABLE: the node is stopping"), flatten_subgroups=True
        ):
            async with watching(connection) as answers:
                await answers.receive()
                await aio_as_trio(server.service.drain)()
                await trio.sleep_forever()
        await eventually(lambda: server.service.counters.watchers == 0)


def _watching(server: RunningServer) -> tuple[int, int]:
    tasks = [task for task in asyncio.all_tasks() if "request_handler" in repr(task)]
    return server.service.counters.watchers, len(tasks)


async def test_a_client_that_leaves_is_not_watching(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        for _ in range(20):
            async with open_connection(server.address) as connection, watching(connection) as answers:
                await answers.receive()
        await eventually(lambda: _watching(server) == (0, 0))
        assert not server.service.news._watchers
