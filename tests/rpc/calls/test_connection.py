from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path

import pytest
import trio
from grpclib.const import Cardinality

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import CallFailed, ConnectionLost, ConnectionNotOpened
from proglog_trio.rpc.calls.connection import ConnectionConfig, TunedChannel, open_connection
from proglog_trio.rpc.http2.bridge import current_loop, open_loop
from proglog_trio.rpc.http2.transport_config import TransportConfig
from tests.rpc.support import call, method_path, produce, running_server


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_without_a_running_loop_it_brings_its_own(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        results: list[list[int]] = []

        async def alone() -> None:
            token = current_loop.set(None)
            try:
                async with open_connection(server.address) as connection:
                    results.append(await produce(connection, b"a", b"b"))
            finally:
                current_loop.reset(token)

        await alone()
        assert results == [[0, 1]]


async def test_errors_of_the_body_come_out_as_they_are() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with listener:
        with pytest.raises(KeyError, match="mine"):
            async with open_connection(f"127.0.0.1:{port}"):
                raise KeyError("mine")


async def test_nobody_there() -> None:
    port = _unused_port()
    with pytest.raises(ConnectionNotOpened, match=f"^cannot connect to 127.0.0.1:{port}: "):
        async with open_connection(f"127.0.0.1:{port}"):
            pass


async def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="no port"):
        async with open_connection("somewhere"):
            pass


async def test_nobody_accepts_in_time() -> None:
    with socket.socket() as listening, socket.socket() as first:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        first.connect(listening.getsockname())  # fills the backlog: the next SYN is not answered
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ConnectionNotOpened, match=r"did not answer within 0\.2 s"):
            async with open_connection(address, ConnectionConfig(connect_timeout=0.2)):
                pass


async def test_a_status_is_not_a_lost_connection(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        with pytest.raises(CallFailed) as caught:
            await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=9))
        error = caught.value
        assert (error.status, error.code) == ("OUT_OF_RANGE", 11)
        assert str(error) == f"OUT_OF_RANGE: {error.message}"
        assert len(error.details) == 1
        # A method that the node does not have.
        with pytest.raises(CallFailed, match=r"UNIMPLEMENTED: the method /log\.v1\.Log/Nothing is not known"):
            await connection.run(_nothing)


async def _nothing(channel: TunedChannel) -> None:
    async with channel.request(
        method_path("Nothing"), Cardinality.UNARY_UNARY, log_v1.ConsumeRequest, log_v1.ConsumeResponse
    ) as stream:
        await stream.send_message(log_v1.ConsumeRequest())
        await stream.recv_message()


async def test_a_node_that_goes_away_is_a_lost_connection() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        async with open_connection(f"127.0.0.1:{port}") as connection:
            with pytest.raises(ConnectionLost, match=f"^the connection to 127.0.0.1:{port} "):
                await connection.run(call, "GetServers", log_v1.GetServersRequest())
            # It does not come back by itself.
            with pytest.raises(ConnectionLost, match="was lost"):
                await connection.run(call, "GetServers", log_v1.GetServersRequest())
        nursery.cancel_scope.cancel()


async def test_an_answer_that_is_no_http2_is_a_lost_connection() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]

    async def other_protocol(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.sleep_forever()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, other_protocol, [listener])
        async with open_connection(f"127.0.0.1:{port}") as connection:
            with trio.fail_after(5), pytest.raises(ConnectionLost, match="HTTP/2 protocol error"):
                await connection.run(call, "GetServers", log_v1.GetServersRequest())
        nursery.cancel_scope.cancel()


async def test_a_silent_node_is_given_up() -> None:
    config = ConnectionConfig(transport=TransportConfig(handshake_seconds=0.2))
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener, open_connection(f"127.0.0.1:{listener.socket.getsockname()[1]}", config) as connection:
        with trio.fail_after(5), pytest.raises(ConnectionLost, match=r"no HTTP/2 handshake within 0\.2 s"):
            await connection.run(call, "GetServers", log_v1.GetServersRequest())


async def test_leaving_closes_the_socket_of_a_node_that_does_not_read() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener, open_loop():
        with trio.move_on_after(0.3):
            async with open_connection(f"127.0.0.1:{listener.socket.getsockname()[1]}") as connection:
                await connection.run(_send_on)
        accepted = await listener.accept()
        async with accepted:
            with trio.fail_after(5):
                while True:
                    try:
                        if not await accepted.receive_some():
                            break
                    except trio.BrokenResourceError:
                        break
        assert not [task for task in asyncio.all_tasks() if "_send_on" in repr(task)]
    gc.collect()  # a channel that is left open warns, and warnings are errors


async def _send_on(channel: TunedChannel) -> None:
    request = log_v1.ProduceBatchRequest(payload=b"x" * 100_000)
    async with channel.request(
        method_path("ProduceBatches"),
        Cardinality.STREAM_STREAM,
        log_v1.ProduceBatchRequest,
        log_v1.ProduceBatchResponse,
    ) as stream:
        while True:
            await stream.send_message(request)
