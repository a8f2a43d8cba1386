"""Bad requests beside good ones on one connection: what HTTP/2 calls a stream's error ends that stream alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import h2.events
import pytest
import trio
from attrs import define
from grpclib.const import Status
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack.hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.calls.connection import ConnectionConfig, open_connection
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.server.server import ServerConfig
from tests.rpc.support import RawClient, RunningServer, call, message_frame, method_path, running_server

Fields = list[tuple[str, str]]


def _request(name: str = "Produce", **changes: str | None) -> Fields:
    """Return a request's header list; None leaves a field out."""
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method_path(name),
        ":authority": "node",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for key, value in changes.items():
        fields[key.replace("__", ":").replace("_", "-")] = value
    return [(key, value) for key, value in fields.items() if value is not None]


def _produce(value: bytes) -> bytes:
    return prefixed(log_v1.ProduceRequest(record=log_v1.Record(value=value)).SerializeToString())


@define
class Bystander:
    """A connection with a stream that is followed while other requests on it go wrong."""

    client: RawClient
    follower: int
    produced: int = 0

    async def sees_the_next_record(self) -> None:
        """Produce a record by a call of its own; wait until the follower has it."""
        value = b"record %d" % self.produced
        self.produced += 1
        number = await self.client.request("Produce")
        await self.client.send(number, _produce(value), end=True)
        assert await self.client.status(number) == (0, "")
        with trio.fail_after(10):
            while len(found := self.client.messages(self.follower, log_v1.ConsumeResponse)) < self.produced:
                assert await self.client.receive(), "the server closed the connection"
        assert found[-1].record.value == value

    def open(self, fields: Fields, *, end: bool = False) -> int:
        number = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(number, fields, end_stream=end)
        return number

    async def reset_code(self, number: int) -> int:
        """Wait until the server has reset a stream; return why."""
        with trio.fail_after(10):
            while True:
                for event in self.client.events:
                    if isinstance(event, h2.events.StreamReset) and event.stream_id == number:
                        return int(event.error_code or 0)
                assert await self.client.receive(), "the server closed the connection"

    async def http_status(self, number: int) -> str:
        with trio.fail_after(10):
            while True:
                for event in self.client.events:
                    if isinstance(event, h2.events.ResponseReceived) and event.stream_id == number:
                        headers: dict[Any, Any] = dict(event.headers or ())
                        return str(headers[":status"])
                assert await self.client.receive(), "the server closed the connection"

    async def send_frames(self, *frames: Frame) -> None:
        await self.client.flush()
        await self.client.stream.send_all(b"".join(frame.serialize() for frame in frames))


class _PlainEncoder(Encoder):
    """Does without Huffman's code, which takes hpack seconds for long values."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        return bytes(super().encode(headers, huffman))


@contextlib.asynccontextmanager
async def _bystander(server: RunningServer) -> AsyncIterator[Bystander]:
    async with RawClient.open(server.port) as client:
        client.h2.config.normalize_outbound_headers = False
        client.h2.encoder = _PlainEncoder()
        follower = await client.request("ConsumeStream")
        await client.send(
            follower, prefixed(log_v1.ConsumeRequest(offset=server.log.next_offset).SerializeToString()), end=True
        )
        bystander = Bystander(client, follower)
        await bystander.sees_the_next_record()
        yield bystander


MALFORMED: dict[str, Fields] = {
    "an upper-case name": [*_request(), ("X-Name", "v")],
    "a space in a name": [*_request(), ("x name", "v")],
    "an empty name": [*_request(), ("", "v")],
    "a name that is not ASCII": [*_request(), ("\u00e9", "v")],
    "a value that is not ASCII": [*_request(), ("x-name", "\u00e9")],
    "a line break in a value": [*_request(), ("x-name", "a\r\nb")],
    "a NUL in a value": [*_request(), ("x-name", "a\0b")],
    "space around a value": [*_request(), ("x-name", " v")],
    "no method": _request(__method=None),
    "no path": _request(__path=None),
    "an empty path": _request(__path=""),
    "no scheme": _request(__scheme=None),
    "no authority": _request(__authority=None),
    "an unknown pseudo-header": [(":what", "v"), *_request()],
    "a response's pseudo-header": [(":status", "200"), *_request()],
    "a pseudo-header twice": [(":path", "/"), *_request()],
    "a pseudo-header after others": [("x-name", "v"), *_request()],
    "another host": [*_request(), ("host", "other")],
    "two hosts": [*_request(), ("host", "node"), ("host", "node")],
    "a connection header": [*_request(), ("connection", "close")],
    "another te": _request(te="gzip"),
    "a content length of letters": [*_request(), ("content-length", "many")],
    "two content lengths": [*_request(), ("content-length", "1"), ("content-length", "2")],
}
OVERSIZED: dict[str, Fields] = {
    "20 KiB in one value": [*_request(), ("trace", "t" * 20_000)],
    "100 KiB in one value": [*_request(), ("trace", "t" * 100_000)],
    "30 KiB in 300 fields": [*_request(), *((f"trace-{number}", "t" * 50) for number in range(300))],
    "a path of 20 KiB": _request(__path="/" + "p" * 20_000),
    "a name of 20 KiB": [*_request(), ("n" * 20_000, "v")],
}
NOT_GRPC: dict[str, tuple[Fields, Status]] = {
    "another method": (_request("Nope"), Status.UNIMPLEMENTED),
    "a timeout without a unit": ([*_request(), ("grpc-timeout", "5")], Status.INVALID_ARGUMENT),
    "a timeout below 0": ([*_request(), ("grpc-timeout", "-1S")], Status.INVALID_ARGUMENT),
    "a timeout of 9 digits": ([*_request(), ("grpc-timeout", "123456789S")], Status.INVALID_ARGUMENT),
    "a timeout of 4000 digits": ([*_request(), ("grpc-timeout", "9" * 4000 + "n")], Status.INVALID_ARGUMENT),
    "a timeout of 5000 digits": ([*_request(), ("grpc-timeout", "9" * 5000 + "H")], Status.INVALID_ARGUMENT),
    "one of two timeouts": (
        [*_request(), ("grpc-timeout", "1S"), ("grpc-timeout", "soon")],
        Status.INVALID_ARGUMENT,
    ),
    "a binary value that is no base64": ([*_request(), ("trace-bin", "a")], Status.INVALID_ARGUMENT),
    "no content type": (_request(content_type=None), Status.UNKNOWN),
    "another content type": (_request(content_type="application/json"), Status.UNKNOWN),
    "no te": (_request(te=None), Status.UNKNOWN),
    "a method that is not POST": (_request(__method="GET"), Status.UNKNOWN),
}


@pytest.mark.parametrize("ends", [False, True])
async def test_a_request_with_bad_headers_is_answered_and_leaves_the_others_alone(tmp_path: Path, ends: bool) -> None:
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        expected = [
            *((name, fields, Status.INTERNAL) for name, fields in MALFORMED.items()),
            *((name, fields, Status.RESOURCE_EXHAUSTED) for name, fields in OVERSIZED.items()),
        ]
        for name, fields, status in expected:
            number = bystander.open(fields, end=ends)
            if not ends:
                await bystander.client.send(number, _produce(b"not stored"))
            await bystander.client.flush()
            found, message = await bystander.client.status(number)
            assert found == status.value, (name, message)
            assert message.startswith(("the headers are malformed: ", "the header list is longer than"))
            await bystander.sees_the_next_record()
        assert server.counters.requests_turned_away == len(expected)
        assert server.log.next_offset == bystander.produced


async def test_a_request_that_is_no_grpc_call_is_answered_and_leaves_the_others_alone(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        for name, (fields, status) in NOT_GRPC.items():
            number = bystander.open(fields)
            await bystander.client.flush()
            if dict(fields)[":method"] == "GET":
                assert await bystander.http_status(number) == "405"
            else:
                found, message = await bystander.client.status(number)
                assert (found, bool(message)) == (status.value, True), name
            await bystander.sees_the_next_record()


async def test_a_bad_message_is_answered_and_leaves_the_others_alone(tmp_path: Path) -> None:
    messages = {
        "too long": (message_frame(0xFFFFFFFF), Status.RESOURCE_EXHAUSTED),
        "compressed": (message_frame(3, compressed=1) + b"abc", Status.UNIMPLEMENTED),
        "cut off": (message_frame(100) + b"short", Status.INTERNAL),
        "no protobuf": (prefixed(b"\x0a\xff\xff"), Status.INTERNAL),
    }
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        for name, (data, status) in messages.items():
            number = bystander.open([*_request(), ("grpc-encoding", "gzip")])
            await bystander.client.send(number, data, end=True)
            assert (await bystander.client.status(number))[0] == status.value, name
            await bystander.sees_the_next_record()


# -- frames on a stream that is open -----------------------------------------------------------------------------------


def _headers(bystander: Bystander, number: int, fields: Fields, *flags: str) -> HeadersFrame:
    frame = HeadersFrame(number, flags=["END_HEADERS", *flags])
    frame.data = bystander.client.h2.encoder.encode(fields)
    return frame


def _window_update(number: int, increment: int) -> WindowUpdateFrame:
    frame = WindowUpdateFrame(number)
    frame.window_increment = increment
    return frame


def _data(number: int, data: bytes, *flags: str) -> DataFrame:
    return DataFrame(number, data, flags=flags)


class _Raw(Frame):
    """A frame whose body is whatever the test wants."""

    def __init__(self, kind: int, number: int, body: bytes) -> None:
        self.stream_association = None
        super().__init__(number)
        self.type = kind
        self.body = body

    def serialize_body(self) -> bytes:
        return self.body


Bad = Callable[[Bystander, int], Sequence[Frame]]

ON_A_STREAM: dict[str, tuple[Bad, ErrorCodes]] = {
    "trailers that do not end it": (lambda by, n: [_headers(by, n, [("x", "v")])], ErrorCodes.PROTOCOL_ERROR),
    "trailers with a pseudo-header": (
        lambda by, n: [_headers(by, n, [(":path", "/")], "END_STREAM")],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "trailers with a bad name": (
        lambda by, n: [_headers(by, n, [("X", "v")], "END_STREAM")],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "trailers that are too long": (
        lambda by, n: [_headers(by, n, [("x", "v" * 20_000)], "END_STREAM")],
        ErrorCodes.ENHANCE_YOUR_CALM,
    ),
    "a window change of 0": (lambda _, n: [_Raw(8, n, bytes(4))], ErrorCodes.PROTOCOL_ERROR),
    "a window above 2^31": (lambda _, n: [_window_update(n, 2**31 - 1)], ErrorCodes.FLOW_CONTROL_ERROR),
    "a priority of 4 bytes": (lambda _, n: [_Raw(2, n, bytes(4))], ErrorCodes.FRAME_SIZE_ERROR),
    "data after its end": (
        lambda _, n: [_data(n, b"", "END_STREAM"), _data(n, b"more")],
        ErrorCodes.STREAM_CLOSED,
    ),
    "headers after its end": (
        lambda by, n: [_data(n, b"", "END_STREAM"), _headers(by, n, [("x", "v")], "END_STREAM")],
        ErrorCodes.STREAM_CLOSED,
    ),
    "more data than its window allows": (
        lambda _, n: [_data(n, bytes(64 * 1024)) for _ in range(4 * 16 + 1)],
        ErrorCodes.FLOW_CONTROL_ERROR,
    ),
}


async def test_a_bad_frame_on_a_stream_ends_that_stream(tmp_path: Path) -> None:
    """And what was already on its way on it ends nothing else."""
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        for name, (bad, code) in ON_A_STREAM.items():
            # A consumer at the end of the log reads nothing after its request, so windows fill.
            number = bystander.open(_request("ConsumeStream"))
            request = log_v1.ConsumeRequest(offset=server.log.next_offset + 1000)
            await bystander.client.send(number, prefixed(request.SerializeToString()))
            await bystander.sees_the_next_record()
            await bystander.send_frames(*bad(bystander, number))
            assert await bystander.reset_code(number) == code, name
            await bystander.send_frames(
                _data(number, b"late"),
                _window_update(number, 10),
                _headers(bystander, number, [("x", "v")], "END_STREAM"),
                RstStreamFrame(number),
            )
            await bystander.sees_the_next_record()
        assert server.service.state.counters.consumers == 1  # the handlers of those streams have ended


@pytest.mark.parametrize(
    ("length", "body", "ends"),
    [("3", b"more than 3", False), ("3", b"12", True)],
)
async def test_a_body_of_another_length_than_announced_ends_its_stream(
    tmp_path: Path, length: str, body: bytes, ends: bool
) -> None:
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        number = bystander.open([*_request(), ("content-length", length)])
        await bystander.client.send(number, body, end=ends)
        assert await bystander.reset_code(number) == ErrorCodes.PROTOCOL_ERROR
        await bystander.sees_the_next_record()


async def test_what_changes_nothing_is_ignored(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        number = bystander.open(_request())
        await bystander.send_frames(
            _Raw(2, number, number.to_bytes(4, "big") + b"\x00"),  # a stream that depends on itself
            _Raw(2, number + 2, bytes(5)),  # a priority for a stream to come
            _Raw(2, number + 2, bytes(3)),
        )
        await bystander.client.send(number, _produce(b"stored"), end=True)
        assert (await bystander.client.status(number))[0] == 0


async def test_the_window_that_all_share_gets_back_what_a_failed_stream_used(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, _bystander(server) as bystander:
        for _ in range(18 * 16):  # more than the connection's 16 MiB, if it were kept
            number = bystander.open([*_request(), ("content-length", "3")])
            while bystander.client.h2.outbound_flow_control_window < 64 * 1024:
                assert await bystander.client.receive()
            await bystander.client.send(number, bytes(bystander.client.h2.max_outbound_frame_size))
            assert await bystander.reset_code(number) == ErrorCodes.PROTOCOL_ERROR
            bystander.client.events.clear()
        assert bystander.client.h2.outbound_flow_control_window > 1 << 20


async def test_a_stream_too_many_is_refused(tmp_path: Path) -> None:
    config = ServerConfig(transport=TransportConfig(concurrent_streams=3))
    async with running_server(tmp_path, config=config) as server, _bystander(server) as bystander:
        bystander.client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        bystander.client.h2.remote_settings.acknowledge()  # it would keep to the server's limit
        opened = [bystander.open(_request("ProduceBatches")) for _ in range(4)]
        await bystander.client.flush()
        for number in opened[2:]:
            assert await bystander.reset_code(number) == ErrorCodes.REFUSED_STREAM
        await bystander.send_frames(
            _data(opened[3], b"late"), _headers(bystander, opened[3], [("x", "v")], "END_STREAM")
        )
        bystander.client.h2.reset_stream(opened[0])
        await bystander.sees_the_next_record()


# -- what ends the connection ------------------------------------------------------------------------------------------


def _block(number: int, data: bytes) -> HeadersFrame:
    frame = HeadersFrame(number, flags=["END_HEADERS"])
    frame.data = data
    return frame


def _long_block(number: int) -> list[Frame]:
    first = HeadersFrame(number)
    first.data = bytes(60_000)
    rest = [ContinuationFrame(number) for _ in range(5)]
    for part in rest:
        part.data = bytes(60_000)
    return [first, *rest]


def _more_than_fits(bystander: Bystander) -> list[Frame]:
    """Return streams of which nothing is read behind the request, each within its own window."""
    request = prefixed(log_v1.ConsumeRequest(offset=1000).SerializeToString())
    frames: list[Frame] = []
    for number in [bystander.open(_request("ConsumeStream")) for _ in range(5)]:
        frames += [_data(number, request), *(_data(number, bytes(64 * 1024)) for _ in range(60))]
    return frames


ON_THE_CONNECTION: dict[str, tuple[Bad, ErrorCodes]] = {
    "headers that cannot be decoded": (
        lambda _, n: [_block(n, b"\xff\xff\xff\xff\xff\xff")],
        ErrorCodes.COMPRESSION_ERROR,
    ),
    "a header block that is too long": (lambda _, n: _long_block(n), ErrorCodes.ENHANCE_YOUR_CALM),
    "a header block of too many fields": (lambda _, n: [_block(n, b"\x82" * 2000)], ErrorCodes.ENHANCE_YOUR_CALM),
    "a flood of continuations": (
        lambda _, n: [HeadersFrame(n), *(ContinuationFrame(n) for _ in range(100))],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "another frame within a header block": (
        lambda _, n: [HeadersFrame(n), PingFrame(0, bytes(8))],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "data on a stream that was never opened": (lambda _, n: [_data(n + 100, b"x")], ErrorCodes.PROTOCOL_ERROR),
    "a window change of 0 on such a stream": (lambda _, n: [_Raw(8, n + 100, bytes(4))], ErrorCodes.PROTOCOL_ERROR),
    "a window change of 0 for all": (lambda _, n: [_Raw(8, 0, bytes(4))], ErrorCodes.PROTOCOL_ERROR),
    "a window above 2^31 for all": (lambda _, n: [_window_update(0, 2**31 - 1)], ErrorCodes.FLOW_CONTROL_ERROR),
    "data on stream 0": (lambda _, n: [_Raw(0, 0, b"x")], ErrorCodes.PROTOCOL_ERROR),
    "a server's stream": (lambda by, n: [_headers(by, n + 1, _request())], ErrorCodes.PROTOCOL_ERROR),
    "a lower stream than before": (
        lambda by, n: [_headers(by, n + 4, _request()), _headers(by, n + 2, _request())],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "a ping of 7 bytes": (lambda _, n: [_Raw(6, 0, bytes(7))], ErrorCodes.FRAME_SIZE_ERROR),
    "a reset of 3 bytes": (lambda _, n: [_Raw(3, n, bytes(3))], ErrorCodes.FRAME_SIZE_ERROR),
    "a setting that cannot be": (lambda _, n: [SettingsFrame(0, settings={2: 7})], ErrorCodes.PROTOCOL_ERROR),
    "more than all windows allow": (lambda by, _: _more_than_fits(by), ErrorCodes.FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", ON_THE_CONNECTION)
async def test_what_the_connection_cannot_survive_ends_it_and_says_why(running: RunningServer, name: str) -> None:
    bad, code = ON_THE_CONNECTION[name]
    async with _bystander(running) as bystander, _bystander(running) as other:
        number = bystander.client.h2.get_next_available_stream_id()
        with contextlib.suppress(trio.BrokenResourceError):
            await bystander.send_frames(*bad(bystander, number))
        await bystander.client.closed()
        (goodbye,) = [event for event in bystander.client.events if isinstance(event, h2.events.ConnectionTerminated)]
        assert goodbye.error_code == code
        assert goodbye.additional_data
        number = await other.client.request("GetServers")
        await other.client.send(number, message_frame(0), end=True)
        assert (await other.client.status(number))[0] == 0


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as server:
        yield server


# -- the client's side -------------------------------------------------------------------------------------------------


async def test_a_response_with_too_many_headers_ends_its_call_alone(tmp_path: Path) -> None:
    config = ConnectionConfig(transport=TransportConfig(header_list_bytes=1024))
    async with running_server(tmp_path) as server, open_connection(server.address, config) as connection:
        for _ in range(2):
            # The name comes back in the answer.
            with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED.*longer than the limit of 1024 bytes"):
                await connection.run(call, "N" * 2000, log_v1.GetServersRequest())
            await connection.run(call, "GetServers", log_v1.GetServersRequest())
        assert server.counters.connections == 1
