"""What HTTP/2 events mean for the streams of a connection."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from grpclib.protocol import AbstractHandler, EventsProcessor
from grpclib.protocol import Stream as ProtocolStream
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.events import RemoteSettingsChanged, StreamReset

from proglog_trio.rpc.http2.connection import TunedConnection, status_headers
from proglog_trio.rpc.http2.stream_errors import RequestRefused, StreamFailed

_logger = structlog.get_logger(__name__)


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
        processors = getattr(self, "processors", None)  # grpclib deletes it when the connection is closed
        if processors is None:
            return
        if isinstance(event, RequestRefused):
            self._answer_refused(event)
        elif isinstance(event, StreamFailed):
            self._end_failed(event)
        elif type(event) in processors:
            # Others are of frames that have no meaning here, such as ALTSVC or unknown ones; grpclib fails at them.
            if type(event) is RemoteSettingsChanged:
                self.connection.watch.greeted()
            processors[type(event)](event)

    def process_stream_reset(self, event: StreamReset) -> None:
        """End the stream that the peer reset, unless it has been left already on this side.

        A server that has answered before it has read the whole request resets the stream without an error (RFC 9113,
        section 8.1): its answer is complete and still has to be read, only sending has come to an end.
        """
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        if event.remote_reset and event.error_code == ErrorCodes.NO_ERROR and _has_status(stream):
            # A sender that waits for room in the window wakes up, finds the stream closed, and stops.
            stream.window_updated.set()
        else:
            super().process_stream_reset(event)

    def _answer_refused(self, event: RequestRefused) -> None:
        self._refused_request()
        # Not registered: what else comes on it finds no stream, and is ignored.
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
