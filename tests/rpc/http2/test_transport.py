from __future__ import annotations

from pathlib import Path

import h2.events
import pytest
import trio
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.internal_errors import Where
from proglog_trio.rpc.calls.connection import ConnectionConfig, open_connection
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.server.handlers import ServerHandler
from proglog_trio.rpc.server.server import ServerConfig
from tests.rpc.support import RawClient, call, eventually, message_frame, running_server

RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13


def _config(**settings: float) -> ServerConfig:
    return ServerConfig(transport=TransportConfig(**settings))  # type: ignore[arg-type]  # the test's own numbers


async def test_a_claimed_4_gibibyte_message_is_refused_at_its_prefix(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        for name in ("Produce", "ProduceStream", "ProduceBatches", "Consume", "ConsumeBatches", "GetServers"):
            number = await client.request(name)
            await client.send(number, message_frame(0xFFFFFFFF) + b"x")
            status, message = await client.status(number)
            assert status == RESOURCE_EXHAUSTED
            assert message == "a message of 4294967295 bytes is longer than the limit of 4194304 bytes"
        assert server.counters.messages_refused == 6


async def test_the_client_refuses_a_long_message_at_its_prefix(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        config = ConnectionConfig(transport=TransportConfig(message_bytes=2000))
        async with open_connection(server.address, config) as connection:
            record = log_v1.Record(value=b"x" * 3000)
            await connection.run(call, "Produce", log_v1.ProduceRequest(record=record))
            with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED.* bytes is longer than the limit of 2000 bytes"):
                await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=0))
            # The connection goes on.
            await connection.run(call, "GetServers", log_v1.GetServersRequest())


async def test_a_compressed_message_is_unimplemented(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        number = await client.request("Produce", ("grpc-encoding", "gzip"))
        await client.send(number, message_frame(3, compressed=1) + b"abc", end=True)
        status, message = await client.status(number)
        assert status == UNIMPLEMENTED
        assert "compressed" in message


@pytest.mark.parametrize("data", [message_frame(100) + b"short", b"\x00\x00\x00"])
@pytest.mark.parametrize("name", ["Produce", "ProduceBatches", "ConsumeStream"])
async def test_a_truncated_message_is_answered(tmp_path: Path, name: str, data: bytes) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        number = await client.request(name)
        await client.send(number, data, end=True)
        status, message = await client.status(number)
        assert status == INTERNAL
        assert message.startswith("the stream ended after")


async def test_what_protobuf_cannot_parse_is_answered(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        for name in ("Produce", "ProduceBatches", "ConsumeBatches"):
            number = await client.request(name)
            await client.send(number, prefixed(b"\x0a\xff\xff"), end=True)
            status, message = await client.status(number)
            assert (status, message[:12]) == (INTERNAL, "3 bytes are ")


async def test_a_call_without_its_message_is_answered(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        number = await client.request("Produce")
        await client.send(number, b"", end=True)
        assert (await client.status(number))[0] == UNIMPLEMENTED


async def test_our_settings_are_announced_at_once(tmp_path: Path) -> None:
    config = _config(concurrent_streams=7)
    async with running_server(tmp_path, config=config) as server, RawClient.open(server.port) as client:
        while not any(isinstance(event, h2.events.RemoteSettingsChanged) for event in client.events):
            await client.receive()
        settings = client.h2.remote_settings
        assert settings.max_frame_size == 64 * 1024
        assert settings.initial_window_size == 4 * 1024 * 1024
        assert settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 7
        while client.h2.outbound_flow_control_window < 16 * 1024 * 1024:
            await client.receive()


async def test_a_frame_above_the_limit_is_refused_at_its_header(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        await client.stream.send_all((2**24 - 1).to_bytes(3, "big") + b"\x00\x00\x00\x00\x00\x01")
        await client.closed()
        (goodbye,) = [event for event in client.events if isinstance(event, h2.events.ConnectionTerminated)]
        assert goodbye.error_code is ErrorCodes.FRAME_SIZE_ERROR


async def test_empty_data_and_unknown_frames_are_ignored(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        number = await client.request("Produce")
        await client.send(number, b"")
        await client.stream.send_all(b"\x00\x00\x04\xee\x00\x00\x00\x00\x00what")
        request = log_v1.ProduceRequest(record=log_v1.Record(value=b"x"))
        await client.send(number, prefixed(request.SerializeToString()), end=True)
        assert (await client.status(number))[0] == 0


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(100)])
async def test_what_is_no_http2_ends_the_connection(tmp_path: Path, data: bytes) -> None:
    async with running_server(tmp_path) as server:
        async with RawClient.open(server.port, greet=False) as client:
            await client.stream.send_all(data)
            await client.closed_unread()
        await _serves(server.address)


async def test_an_idle_handshake_ends(tmp_path: Path) -> None:
    config = _config(handshake_seconds=0.1)
    async with running_server(tmp_path, config=config) as server, RawClient.open(server.port, greet=False) as client:
        await client.closed_unread()


async def test_a_client_that_does_not_answer_pings_is_dropped(tmp_path: Path) -> None:
    config = _config(keepalive_seconds=0.1, keepalive_timeout_seconds=0.1)
    async with running_server(tmp_path, config=config) as server, RawClient.open(server.port) as client:
        await client.request("ProduceBatches")
        await client.closed_unread()


async def test_a_client_that_answers_pings_is_kept(tmp_path: Path) -> None:
    config = _config(keepalive_seconds=0.05, keepalive_timeout_seconds=5)
    async with running_server(tmp_path, config=config) as server, RawClient.open(server.port) as client:
        with trio.fail_after(5):
            while sum(isinstance(event, h2.events.PingReceived) for event in client.events) < 5:
                assert await client.receive()


async def test_a_server_that_does_not_answer_pings_is_given_up(tmp_path: Path) -> None:
    config = ConnectionConfig(transport=TransportConfig(keepalive_seconds=0.1, keepalive_timeout_seconds=0.1))
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with listener, trio.open_nursery() as nursery:

        async def mute(stream: trio.SocketStream) -> None:
            # SETTINGS, and nothing more.
            await stream.send_all(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            await trio.sleep_forever()

        nursery.start_soon(trio.serve_listeners, mute, [listener])
        async with open_connection(f"127.0.0.1:{port}", config) as connection:
            with trio.fail_after(5), pytest.raises(Exception, match=r"did not answer a PING within 0\.1 s"):
                await connection.run(call, "GetServers", log_v1.GetServersRequest())
        nursery.cancel_scope.cancel()


async def test_streams_that_are_reset_leave_nothing(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        for _ in range(300):
            number = await client.request("ProduceBatches")
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
        await client.flush()
        number = await client.request("GetServers")
        await client.send(number, message_frame(0), end=True)
        assert (await client.status(number))[0] == 0
        await eventually(lambda: not server.service.state.producing)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_request_that_is_turned_away_after_it_was_reset_ends_nothing(tmp_path: Path, leaves: bool) -> None:
    """In one piece with it: the request is looked at when its reset, or the client's goodbye, has been taken in."""
    async with running_server(tmp_path) as server:
        async with RawClient.open(server.port) as client:
            number = client.begin_request("NoSuchMethod")
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
            if leaves:
                client.h2.close_connection()
            await client.flush()
            if not leaves:
                number = await client.request("GetServers")
                await client.send(number, message_frame(0), end=True)
                assert (await client.status(number))[0] == 0
        await eventually(lambda: server.counters.requests_turned_away == 1)
        await _serves(server.address)


async def test_what_fails_while_an_event_is_processed_ends_that_connection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, internal_errors: list[tuple[Where, Exception]]
) -> None:
    async with running_server(tmp_path) as server:
        async with RawClient.open(server.port) as client:
            with monkeypatch.context() as patch:
                patch.setattr(ServerHandler, "accept", _fail)
                await client.request("GetServers")
                await client.flush()
                await client.closed()
        assert [where for where, _ in internal_errors] == [Where.RPC_CONNECTION]
        await _serves(server.address)


def _fail(*_arguments: object) -> None:
    raise RuntimeError("a mistake of ours")


async def _serves(address: str) -> None:
    async with open_connection(address) as connection:
        await connection.run(call, "GetServers", log_v1.GetServersRequest())
