"""HTTP/2 as this package speaks it: grpclib's protocol, tuned and bounded.

What reaches into grpclib's internals on the way of bytes is here, in connection.py and in events.py (checked with
grpclib 0.4.9):

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
import ssl
from collections.abc import Callable
from typing import cast

import structlog
from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, H2Protocol
from h2.config import H2Configuration
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.connection import TunedConnection
from proglog_trio.rpc.http2.events import TunedEventsProcessor
from proglog_trio.rpc.http2.library_fixes import use_cheap_frame_repr
from proglog_trio.rpc.http2.stream_errors import TolerantConnection
from proglog_trio.rpc.http2.transport_config import FRAME_BYTES, TransportConfig
from proglog_trio.security.tls_problems import tls_problem
from proglog_trio.steps import Turn

_logger = structlog.get_logger(__name__)

use_cheap_frame_repr()

_LENGTH_BYTES = 3
_FRAME_HEADER_BYTES = 9
_TURN_SECONDS = 0.004
"""How long frames of one connection are processed before others have a turn: pausing and going on has its price."""
_FRAMES_AT_ONCE = 16
"""Frames that are processed before the clock is looked at."""
_FRAMES_OF_HEADERS = frozenset((b"\x01", b"\x09"))
"""HEADERS and CONTINUATION: each of them takes milliseconds if it is full of small ones, and may begin a request."""


class TunedProtocol(H2Protocol):
    """One connection's asyncio protocol.

    Args:
        new_handler: makes, for a transport, what handles requests (server) or notices the end (client).
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
        new_handler: Callable[[asyncio.BaseTransport], AbstractHandler],
        config: Configuration,
        h2_config: H2Configuration,
        *,
        transport_config: TransportConfig,
        refused_message: Callable[[], None] = lambda: None,
        refused_request: Callable[[], None] = lambda: None,
        errors: InternalErrors | None = None,
    ) -> None:
        # Not grpclib's own __init__: it wants the handler now, and who the peer is shows when there is a transport.
        self._new_handler = new_handler
        self.config = config
        self.h2_config = h2_config
        self.errors = errors if errors is not None else InternalErrors()
        self.transport_config = transport_config
        self._refused_message = refused_message
        self._refused_request = refused_request
        self._turn = Turn(seconds=_TURN_SECONDS)
        # Received and not processed yet, since others have a turn. Not empty: reading is paused, and _go_on will come.
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer with our settings and begin to watch over it."""
        # Kept, since trio-asyncio's own way of running asyncio does not say in later callbacks which loop is running.
        self._loop = asyncio.get_running_loop()
        self.handler = self._new_handler(transport)
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
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: self.transport_config.stream_window_bytes,
            SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
            SettingCodes.MAX_CONCURRENT_STREAMS: self.transport_config.concurrent_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: self.transport_config.header_list_bytes,
        }
        if self.h2_config.client_side:
            settings[SettingCodes.ENABLE_PUSH] = 0
        connection = TolerantConnection(self.h2_config, settings)
        connection.initiate_connection()
        connection.increment_flow_control_window(self.config.http2_connection_window_size - 65_535)
        return connection

    def data_received(self, data: bytes) -> None:
        """Process bytes of the peer; whatever is wrong with them ends this connection and nothing else."""
        if self._waiting:
            # From what was on its way when reading was paused; it keeps its place behind what came before.
            self._waiting += data
        else:
            self._process_in_turns(data)

    def _process_in_turns(self, data: bytes) -> None:
        """Process some frames at a time; when others should have a turn, the rest waits and nothing more is read."""
        self._turn.begin()
        place = 0
        while place < len(data):
            end = self._end_of_some_frames(data, place)
            # As it is where it is all that there is: no copy is made of large frames.
            if not self._process(data if end - place == len(data) else data[place:end]):
                return
            place = end
            if place < len(data) and self._turn.is_over:
                self._waiting = data[place:]
                self.connection.transport.pause_reading()
                self._loop.call_soon(self._go_on)
                return

    def _go_on(self) -> None:
        data, self._waiting = self._waiting, b""
        if not data or self.connection.is_closing():
            return
        self._process_in_turns(data)
        if not self._waiting and not self.connection.is_closing():
            self.connection.transport.resume_reading()

    def _end_of_some_frames(self, data: bytes, place: int) -> int:
        """Return where in data the next few frames end; h2 may have the beginning of the first.

        A piece ends behind the first frame of headers, or behind some other frames. What is not whole yet goes to h2
        with what stands before it.
        """
        incoming = self.connection.h2_connection.incoming_buffer
        begun = incoming._data  # noqa: SLF001 - h2 gives no other way to what waits
        place += incoming._preamble_len  # noqa: SLF001 - what stands before the first frame
        # Where the next frame begins: before data, if h2 has its beginning. Its header may be cut in two there.
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

    def _process(self, data: bytes) -> bool:
        """Process whole pieces of frames; tell whether the connection goes on."""
        try:
            events = self.connection.feed(data)
        except ProtocolError as error:
            self._end_after_error(error, error.error_code)
            return False
        except Exception as error:  # noqa: BLE001 - nothing that a peer sends may end the loop
            self._end_after_error(error, ErrorCodes.PROTOCOL_ERROR)
            return False
        # What h2 answers by itself, such as acknowledgements of SETTINGS and PINGs, waits for no handler.
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
            # Otherwise it has said so where the error was found.
            h2_connection.say_why_it_ends(error, code)
        reason = f"HTTP/2 protocol error: {str(error) or type(error).__name__}"
        _logger.info("connection closed", reason=reason)
        self.connection.flush()
        self.connection.lost_reason = reason
        self.processor.close(reason)

    def _end_tls(self) -> None:
        """End the connection of a peer that speaks TLS where there is none; what HTTP/2 says means nothing to it."""
        client_side = bool(self.h2_config.client_side)
        reason = "the node speaks TLS" if client_side else "the client speaks TLS, and this node has none"
        self.connection.lost_reason = reason
        if not client_side:
            self.tell_of_tls()
        self.processor.close(reason)

    def tell_of_tls(self) -> None:
        """Do nothing more for a client that speaks TLS where there is none; a server logs it here."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """End everything that still runs on this connection."""
        self._waiting = b""  # _go_on may still come
        if isinstance(exc, ssl.SSLError) and self.connection.lost_reason is None:
            self.connection.lost_reason = tls_problem(exc)
        reason = self.connection.lost_reason or (f"Connection lost: {exc}" if exc else "Connection lost")
        self.processor.close(reason=reason)
