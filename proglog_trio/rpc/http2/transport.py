"""HTTP/2 as this package speaks it: grpclib's protocol, tuned and bounded.

All that reaches into grpclib's internals on the way of bytes is here (checked with grpclib 0.4.9):

- 64 KiB DATA frames, and flow-control windows of 4 MiB a stream and 16 MiB a connection, announced in the first
  SETTINGS frame. A smaller frame costs a third of the throughput; a stream window as large as the connection's would
  let one stalled stream starve the others.
- A message's length is checked before the message is read: see message_buffer.py.
- A peer that has gone is noticed by HTTP/2 PINGs (RFC 9113, section 6.7), and its transport aborted; grpclib's
  keepalive closes the transport instead, which waits for ever for a full buffer to drain.
- What a peer that does not read can make us buffer is bounded: also replies to its PINGs and SETTINGS.
- Frames and events that HTTP/2 says to ignore are ignored; what is wrong with one stream ends that stream alone, see
  stream_errors.py; any other error in a peer's bytes ends its connection with GOAWAY and never the loop (a trio-asyncio
  loop ends when an error reaches its exception handler).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, cast

import structlog
from attrs import field, frozen, validators
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol
from grpclib.protocol import Stream as ProtocolStream
from grpclib.utils import Wrapper
from h2.config import H2Configuration
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.events import RemoteSettingsChanged, StreamReset
from h2.exceptions import FrameTooLargeError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.keepalive import PeerPatience, PeerWatch
from proglog_trio.rpc.http2.library_fixes import use_cheap_frame_repr
from proglog_trio.rpc.http2.message_buffer import MessageBuffer
from proglog_trio.rpc.http2.stream_errors import RequestRefused, StreamFailed, TolerantConnection
from proglog_trio.security.tls_problems import tls_problem
from proglog_trio.steps import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = structlog.get_logger(__name__)

use_cheap_frame_repr()

FRAME_BYTES = 64 * 1024
STREAM_WINDOW_BYTES = 4 * 1024 * 1024
CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
DEFAULT_MESSAGE_BYTES = 4 * 1024 * 1024
_WRITE_AT_ONCE_BYTES = 4 * FRAME_BYTES
_UNREAD_REPLIES_BYTES = 1024 * 1024
_LINGER_SECONDS = 2.0
_LENGTH_BYTES = 3
_TLS_RECORDS = (b"\x15", b"\x16")
"""How TLS begins: with an alert, or a handshake. HTTP/2 begins with its preface, or a length below 2^16."""
_FRAME_HEADER_BYTES = 9
_TURN_SECONDS = 0.004
"""How long frames of one connection are taken in before others have a turn: pausing and going on has its price."""
_FRAMES_AT_ONCE = 16
"""Frames that are taken in before the clock is looked at."""
_FRAMES_OF_HEADERS = frozenset((b"\x01", b"\x09"))
"""HEADERS and CONTINUATION: each of them takes milliseconds if it is full of small ones, and may begin a request."""


@frozen(kw_only=True)
class TransportConfig:
    """What both ends of a connection are configured with.

    Attributes:
        message_bytes: the longest message that is accepted from the peer.
        header_list_bytes: the longest header list that is accepted from the peer (RFC 9113, section 6.5.2); a longer
            one ends its call with RESOURCE_EXHAUSTED, one that costs too much to read ends its connection.
        concurrent_streams: how many streams the peer may have open at once on one connection; more are refused.
        keepalive_seconds: a peer from which nothing came for so long is sent a PING.
        keepalive_timeout_seconds: a peer that does not answer it for so long is taken for dead.
        handshake_seconds: a peer that has not sent its HTTP/2 preface and SETTINGS by then is disconnected.
    """

    message_bytes: int = field(default=DEFAULT_MESSAGE_BYTES, validator=validators.ge(1024))
    header_list_bytes: int = field(default=16 * 1024, validator=validators.ge(1024))
    concurrent_streams: int = field(default=100, validator=validators.ge(1))
    keepalive_seconds: float = field(default=10.0, validator=validators.gt(0))
    keepalive_timeout_seconds: float = field(default=10.0, validator=validators.gt(0))
    handshake_seconds: float = field(default=10.0, validator=validators.gt(0))

    @property
    def patience(self) -> PeerPatience:
        """How long the peer is waited for."""
        return PeerPatience(self.handshake_seconds, self.keepalive_seconds, self.keepalive_timeout_seconds)


def abort_transport(transport: asyncio.Transport) -> None:
    """Close a connection without waiting for anything.

    Before Python 3.11.4 (Debian 12 has 3.11.2) a transport of TLS that is closed twice forgets its protocol, and fails
    when it is aborted then: it is closing already, and has a deadline for that.
    """
    if getattr(transport, "_ssl_protocol", transport) is not None:
        transport.abort()


def grpclib_configuration(server_name: str | None = None) -> Configuration:
    """Return grpclib's own configuration: our windows, and its keepalive off, since ours takes its place.

    Args:
        server_name: what the certificate of a server must be for; None: the host that is dialled.
    """
    return Configuration(
        ssl_target_name_override=server_name,
        _keepalive_time=None,
        http2_connection_window_size=CONNECTION_WINDOW_BYTES,
        http2_stream_window_size=STREAM_WINDOW_BYTES,
    )


def status_headers(status: Status, message: str) -> list[tuple[str, str]]:
    """Return the headers of a response that is nothing but a status."""
    return [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", str(status.value)),
        ("grpc-message", encode_grpc_message(message)),
    ]


class TunedStream(ProtocolStream):
    """One HTTP/2 stream, with bounded messages in and large writes out."""

    connection: TunedConnection
    buffer: MessageBuffer  # type: ignore[assignment]  # has the methods that grpclib calls, and its own besides

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        """Give the stream its number and its buffer."""
        super().init_stream(stream_id, connection)
        self.buffer = self.connection.message_buffer(stream_id)

    def _number(self) -> int:
        if self.id is None:
            raise RuntimeError("the stream has not been opened yet")
        return self.id

    def answer_with_trailers(
        self, headers: list[tuple[str, str]], error_code: ErrorCodes = ErrorCodes.NO_ERROR
    ) -> None:
        """Answer a request at once with nothing but a status, and leave the stream.

        Args:
            headers: the answer.
            error_code: what the stream is reset with if the client has not ended it.
        """
        stream_id = self._number()
        # What arrived in one piece has all been taken in: a client may have reset the request, or left, in that piece.
        with contextlib.suppress(ProtocolError):
            self._h2_connection.send_headers(stream_id, headers, end_stream=True)
            if self.closable:
                self._h2_connection.reset_stream(stream_id, error_code)
        self.connection.flush()

    async def read_messages(self, max_bytes: int) -> list[bytes]:
        """Return the encoded messages that have arrived, at least one; see MessageBuffer.read_messages."""
        messages = await self.buffer.read_messages(max_bytes)
        self.connection.messages_received += len(messages)
        return messages

    async def wait_writable(self) -> int:
        """Wait until the peer takes data of this stream; return how many bytes its windows allow.

        Raises:
            h2.exceptions.StreamClosedError: the stream is closed.
        """
        stream_id = self._number()
        while True:
            while not self.connection.write_ready.is_set():
                # Others that woke up before may have filled the buffer again, hence the loop.
                await self.connection.write_ready.wait()
            if not self.closable:
                # A closed stream may have kept a window of 0, which nothing will open any more.
                raise StreamClosedError(stream_id)
            window = self._h2_connection.local_flow_control_window(stream_id)
            if window > 0:
                return window
            self.window_updated.clear()
            await self.window_updated.wait()

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        """Send data in as few frames and writes as the peer allows; waits while it takes none."""
        stream_id = self._number()
        h2_connection = self._h2_connection
        view = memoryview(data)
        place = 0
        while True:
            budget = min(await self.wait_writable(), _WRITE_AT_ONCE_BYTES)
            frame_bytes = min(h2_connection.max_outbound_frame_size, FRAME_BYTES)
            sent = 0
            while True:
                piece = view[place : place + min(frame_bytes, budget - sent)]
                place += len(piece)
                sent += len(piece)
                at_end = place == len(view)
                h2_connection.send_data(stream_id, cast("bytes", piece), end_stream=end_stream and at_end)
                if at_end or sent >= budget:
                    break
            self._transport.write(h2_connection.data_to_send())
            self.data_sent += sent
            self.connection.data_sent += sent
            if at_end:
                return


class TunedConnection(Connection):
    """One HTTP/2 connection: bounded replies, keepalive, and a handshake that ends in time.

    Args:
        refused_message: called for each message that is refused for its prefix.
    """

    def __init__(
        self,
        connection: TolerantConnection,
        transport: asyncio.Transport,
        *,
        config: Configuration,
        transport_config: TransportConfig,
        refused_message: Callable[[], None],
    ) -> None:
        super().__init__(connection, transport, config=config)
        self.h2_connection = connection
        self.transport = transport
        self._limits = transport_config
        self._refused_message = refused_message
        self._loop = asyncio.get_running_loop()
        self.watch = PeerWatch(self._loop, transport_config.patience, self._ask_for_life, self.abort)
        self.lost_reason: str | None = None
        self.is_tls = False
        self._has_received = False

    def message_buffer(self, stream_id: int) -> MessageBuffer:
        """Return a new buffer for one of this connection's streams."""
        compressed = Status.INTERNAL if self.h2_connection.config.client_side else Status.UNIMPLEMENTED
        return MessageBuffer(
            partial(self.ack, stream_id), self._limits.message_bytes, compressed, self._refused_message
        )

    def create_stream(self, *, stream_id: int | None = None, wrapper: Wrapper | None = None) -> TunedStream:
        """Return a stream of this connection."""
        return TunedStream(self, self.h2_connection, self.transport, stream_id=stream_id, wrapper=wrapper)

    def ack(self, stream_id: int, size: int) -> None:
        """Give bytes back to the peer's window; grpclib's own fails once the connection is closed."""
        if size and not self.is_closing():
            super().ack(stream_id, size)

    def feed(self, data: bytes) -> list[H2Event]:
        """Parse what the peer sent; raises h2.exceptions.ProtocolError."""
        if not self._has_received:
            self._has_received = True
            self.is_tls = data[:1] in _TLS_RECORDS and data[1:2] in (b"", b"\x03")
        self.watch.received()
        events = super().feed(data)
        # h2 looks at a frame's length only when all of it is here, up to 16 MiB.
        rest = self.h2_connection.incoming_buffer._data  # noqa: SLF001 - h2 gives no other way to what waits
        length = int.from_bytes(rest[:3], "big") if len(rest) >= _LENGTH_BYTES else 0
        if length > FRAME_BYTES:
            raise FrameTooLargeError(f"a frame of {length} bytes is longer than the limit of {FRAME_BYTES}")
        return events

    def flush(self) -> None:
        """Write what HTTP/2 has to say; a peer that lets replies pile up unread is disconnected."""
        if self.is_closing():
            return
        super().flush()
        if not self.write_ready.is_set() and self.transport.get_write_buffer_size() > _UNREAD_REPLIES_BYTES + (
            _WRITE_AT_ONCE_BYTES
        ):
            self.abort("the peer does not read what it asked for")

    def initialize(self) -> None:
        """Begin to watch over the peer; grpclib's name for it."""
        self.watch.begin()

    def abort(self, reason: str) -> None:
        """Drop the connection without waiting for anything."""
        if self.lost_reason is None:
            self.lost_reason = reason
            _logger.debug("connection aborted", reason=reason)
        self.watch.stop()
        abort_transport(self.transport)

    def close(self) -> None:
        """Close the connection once what is written has been sent, or the peer has not read it for a while."""
        self.watch.stop()
        if not self.is_closing() and self.transport.get_write_buffer_size():
            self._loop.call_later(_LINGER_SECONDS, abort_transport, self.transport)
        super().close()

    def ping_ack_process(self) -> None:
        """Take note of an answer to our PING; grpclib's name for it."""
        self.watch.answered()

    def _ask_for_life(self) -> None:
        if not self.is_closing():
            self.h2_connection.ping(b"proglog?")
            self.flush()


class TunedEventsProcessor(EventsProcessor):
    """Passes HTTP/2 events on, and ignores those that HTTP/2 says to ignore.

    Args:
        handler, connection: grpclib's.
        refused_request: called for each request that is answered here, since its headers cannot be accepted.
    """

    connection: TunedConnection

    def __init__(
        self, handler: AbstractHandler, connection: TunedConnection, refused_request: Callable[[], None]
    ) -> None:
        super().__init__(handler, connection)
        self._refused_request = refused_request

    def process(self, event: H2Event) -> None:
        """Pass one event on."""
        processors = getattr(self, "processors", None)  # gone once the connection is closed
        if processors is None:
            return
        if isinstance(event, RequestRefused):
            self._answer_refused(event)
        elif isinstance(event, StreamFailed):
            self._end_failed(event)
        elif type(event) in processors:
            if type(event) is RemoteSettingsChanged:
                self.connection.watch.greeted()
            processors[type(event)](event)

    def process_stream_reset(self, event: StreamReset) -> None:
        """End the stream that the peer reset; one that we have already left is nobody's any more.

        A server that has answered before it has read the whole request resets the stream without an error (RFC 9113,
        section 8.1): its answer is complete and still has to be read, only sending has come to an end.
        """
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        if event.remote_reset and event.error_code == ErrorCodes.NO_ERROR and _has_status(stream):
            stream.window_updated.set()
        else:
            super().process_stream_reset(event)

    def _answer_refused(self, event: RequestRefused) -> None:
        self._refused_request()
        stream = self.connection.create_stream(stream_id=event.stream_id)
        _logger.info("request refused", reason=event.message)
        stream.answer_with_trailers(status_headers(event.status, event.message), event.error_code)

    def _end_failed(self, event: StreamFailed) -> None:
        """End a stream that was reset for what the peer sent on it."""
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        self.connection.streams_failed += 1
        _logger.info("a stream was reset", reason=event.message)
        if not self.connection.h2_connection.config.client_side:
            stream.__terminated__(event.message)
            self.handler.cancel(stream)
            return
        # As if the server had ended the call with this status: what it did say cannot be used.
        status = status_headers(event.status, event.message)
        if stream.headers is None:
            stream.headers = status
            stream.headers_received.set()
        stream.trailers = status
        stream.trailers_received.set()
        stream.__ended__()
        stream.window_updated.set()


def _has_status(stream: ProtocolStream) -> bool:
    return stream.trailers is not None or any(name == "grpc-status" for name, _ in stream.headers or ())


class TunedProtocol(H2Protocol):
    """One connection's asyncio protocol.

    Args:
        handler: what takes requests (server) or notices the end (client).
        config, h2_config: grpclib's and h2's.
        transport_config: ours.
        refused_message: called for each message that is refused for its prefix.
        refused_request: called for each request whose headers are not accepted.
        errors: where an error of ours on this connection is counted.
    """

    connection: TunedConnection
    processor: TunedEventsProcessor

    def __init__(
        self,
        handler: AbstractHandler,
        config: Configuration,
        h2_config: H2Configuration,
        *,
        transport_config: TransportConfig,
        refused_message: Callable[[], None] = lambda: None,
        refused_request: Callable[[], None] = lambda: None,
        errors: InternalErrors | None = None,
    ) -> None:
        super().__init__(handler, config, h2_config)
        self.errors = errors if errors is not None else InternalErrors()
        self.transport_config = transport_config
        self._refused_message = refused_message
        self._refused_request = refused_request
        self._turn = Turn(seconds=_TURN_SECONDS)
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer with our settings and begin to watch over it."""
        # asyncio itself sets TCP_NODELAY.
        self.connection = TunedConnection(
            self._greeting_connection(),
            cast("asyncio.Transport", transport),
            config=self.config,
            transport_config=self.transport_config,
            refused_message=self._refused_message,
        )
        self.connection.flush()
        self.connection.initialize()
        self.processor = TunedEventsProcessor(self.handler, self.connection, self._refused_request)

    def _greeting_connection(self) -> TolerantConnection:
        client_side = bool(self.h2_config.client_side)
        connection = TolerantConnection(self.h2_config, self.transport_config.header_list_bytes)
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size,
            SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
            SettingCodes.MAX_CONCURRENT_STREAMS: self.transport_config.concurrent_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: self.transport_config.header_list_bytes,
        }
        if client_side:
            settings[SettingCodes.ENABLE_PUSH] = 0
        # In force at once and not when the peer acknowledges them: a peer that has read our SETTINGS may send a large
        # frame in the same packet as its acknowledgement.
        connection.local_settings = Settings(client=client_side, initial_values=settings)
        connection.max_inbound_frame_size = FRAME_BYTES
        connection.initiate_connection()
        connection.increment_flow_control_window(self.config.http2_connection_window_size - 65_535)
        return connection

    def data_received(self, data: bytes) -> None:
        """Take in bytes of the peer; whatever is wrong with them ends this connection and nothing else."""
        if self._waiting:
            # From what was on its way when reading stopped.
            self._waiting += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take in some frames at a time; when others should have a turn, the rest waits and nothing more is read."""
        self._turn.begin()
        place = 0
        while place < len(data):
            end = self._end_of_some_frames(data, place)
            if not self._take_some(data if end - place == len(data) else data[place:end]):
                return
            place = end
            if place < len(data) and self._turn.is_over:
                self._waiting = data[place:]
                self.connection.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)
                return

    def _go_on(self) -> None:
        data, self._waiting = self._waiting, b""
        if not data or self.connection.is_closing():
            return
        self._take(data)
        if not self._waiting and not self.connection.is_closing():
            self.connection.transport.resume_reading()

    def _end_of_some_frames(self, data: bytes, place: int) -> int:
        """Return where in data the next few frames end; h2 may have the beginning of the first."""
        incoming = self.connection.h2_connection.incoming_buffer
        begun = incoming._data  # noqa: SLF001 - h2 gives no other way to what waits
        place += incoming._preamble_len  # noqa: SLF001 - what stands before the first frame
        begin = place - len(begun)
        header = (bytes(begun[:_FRAME_HEADER_BYTES]) + data[place : place + _FRAME_HEADER_BYTES])[:_FRAME_HEADER_BYTES]
        for _ in range(_FRAMES_AT_ONCE):
            begin += _FRAME_HEADER_BYTES + int.from_bytes(header[:_LENGTH_BYTES], "big")
            if begin >= len(data):
                return len(data)
            if header[_LENGTH_BYTES : _LENGTH_BYTES + 1] in _FRAMES_OF_HEADERS:
                break
            header = data[begin : begin + _FRAME_HEADER_BYTES]
        return begin

    def _take_some(self, data: bytes) -> bool:
        """Take in bytes; tell whether the connection goes on."""
        try:
            events = self.connection.feed(data)
        except ProtocolError as error:
            self._end_after_error(error, error.error_code)
            return False
        except Exception as error:  # noqa: BLE001 - nothing that a peer sends may end the loop
            self._end_after_error(error, ErrorCodes.PROTOCOL_ERROR)
            return False
        self.connection.flush()
        try:
            for event in events:
                self.processor.process(event)
        except Exception as error:  # noqa: BLE001 - noted
            # What is wrong is ours then; it ends this connection and not the loop, as above.
            self.errors.note(Where.RPC_CONNECTION, error)
            self._end_after_error(error, ErrorCodes.INTERNAL_ERROR)
            return False
        self.connection.flush()
        return True

    def _end_after_error(self, error: Exception, code: ErrorCodes | int) -> None:
        if self.connection.is_tls:
            self._end_tls()
            return
        h2_connection = self.connection.h2_connection
        if h2_connection.state_machine.state is not ConnectionState.CLOSED:
            h2_connection.say_why_it_ends(error, code)
        reason = f"HTTP/2 protocol error: {str(error) or type(error).__name__}"
        _logger.info("connection closed", reason=reason)
        self.connection.flush()
        self.connection.lost_reason = reason
        self.processor.close(reason)

    def _end_tls(self) -> None:
        """End a connection of somebody who speaks TLS where there is none; what HTTP/2 says means nothing to it."""
        client_side = bool(self.h2_config.client_side)
        reason = "the node speaks TLS" if client_side else "the client speaks TLS, and this node has none"
        self.connection.lost_reason = reason
        if not client_side:
            self.tell_of_tls()
        self.processor.close(reason)

    def tell_of_tls(self) -> None:
        """Take note that somebody speaks TLS where there is none; for those who log it."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """End everything that still runs on this connection."""
        self._waiting = b""
        if isinstance(exc, ssl.SSLError) and self.connection.lost_reason is None:
            self.connection.lost_reason = tls_problem(exc)
        reason = self.connection.lost_reason or (f"Connection lost: {exc}" if exc else "Connection lost")
        self.processor.close(reason=reason)
