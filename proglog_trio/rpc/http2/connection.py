"""One HTTP/2 connection and its streams: bounded messages in, large writes out, a peer that has gone noticed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import cast

import structlog
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import Connection
from grpclib.protocol import Stream as ProtocolStream
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.exceptions import FrameTooLargeError, ProtocolError, StreamClosedError

from proglog_trio.rpc.http2.keepalive import PeerWatch
from proglog_trio.rpc.http2.message_buffer import MessageBuffer
from proglog_trio.rpc.http2.stream_errors import TolerantConnection
from proglog_trio.rpc.http2.transport_config import FRAME_BYTES, TransportConfig
from proglog_trio.units import MEBIBYTE

_logger = structlog.get_logger(__name__)

_WRITE_AT_ONCE_BYTES = 4 * FRAME_BYTES
_UNREAD_REPLIES_BYTES = MEBIBYTE
_LINGER_SECONDS = 2.0
_LENGTH_BYTES = 3
_TLS_RECORDS = (b"\x15", b"\x16")
"""How TLS begins: with an alert, or a handshake. HTTP/2 begins with its preface, or a length below 2^16."""


def abort_transport(transport: asyncio.Transport) -> None:
    """Close a connection without waiting for anything.

    Before Python 3.11.4 (Debian 12 has 3.11.2) a transport of TLS that is closed twice forgets its protocol, and fails
    when it is aborted then: it is closing already, and has a deadline for that.
    """
    if getattr(transport, "_ssl_protocol", transport) is not None:
        transport.abort()


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
        # What arrived in one piece has all been parsed: a client may have reset the request, or left, in that piece.
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
            # So much in one write: other streams of the connection have their turn in between.
            budget = min(await self.wait_writable(), _WRITE_AT_ONCE_BYTES)
            frame_bytes = min(h2_connection.max_outbound_frame_size, FRAME_BYTES)
            sent = 0
            # At least one frame, though it may be empty: it carries the end of the stream.
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
        # Why the connection was ended on this side, or why it failed if that is known.
        self.lost_reason: str | None = None
        # Whether what came first looks like TLS, of which there is none on this connection.
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
        # h2 looks at a frame's length only when all of it is here, up to 16 MiB. What is left begins one.
        rest = self.h2_connection.incoming_buffer._data  # noqa: SLF001 - h2 gives no other way to what waits
        length = int.from_bytes(rest[:_LENGTH_BYTES], "big") if len(rest) >= _LENGTH_BYTES else 0
        if length > FRAME_BYTES:
            raise FrameTooLargeError(f"a frame of {length} bytes is longer than the limit of {FRAME_BYTES}")
        return events

    def flush(self) -> None:
        """Write what HTTP/2 has to say; a peer that lets replies pile up unread is disconnected."""
        if self.is_closing():
            return
        super().flush()
        # What streams write is bounded by wait_writable, so what is more than that is replies.
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
            # asyncio closes a transport when its buffer is empty, which a peer that does not read puts off for ever.
            self._loop.call_later(_LINGER_SECONDS, abort_transport, self.transport)
        super().close()

    def ping_ack_process(self) -> None:
        """Pass the answer to our PING on to the watch; grpclib's name for it."""
        self.watch.answered()

    def _ask_for_life(self) -> None:
        if not self.is_closing():
            self.h2_connection.ping(b"proglog?")
            self.flush()
