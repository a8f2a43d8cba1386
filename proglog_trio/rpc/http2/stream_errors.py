"""An HTTP/2 connection that tells a stream's errors from the connection's own (RFC 9113, sections 5.4.1 and 5.4.2).

h2 ends the connection for most of what is wrong with one stream, and with it all the calls that share it. Here the
stream alone ends:

- a request whose header list is longer than the limit, or that is malformed (section 8.1.1), is answered with a gRPC
  status;
- a request beyond the number of concurrent streams is refused (REFUSED_STREAM: it may be made again);
- responses and trailers that are malformed or too long, bodies that are not what content-length says, windows that are
  exceeded or changed by nothing, and PRIORITY frames of a wrong length end their stream (RST_STREAM).

What the connection itself cannot survive still ends it, with GOAWAY and the reason in words: frames that are no frames,
or larger than announced; header blocks that cannot be decoded or cost too much (header_blocks.py); the connection's own
window exceeded; frames on stream 0, or on streams that were never opened or are over, where they must not be.

This reaches into h2 (checked with 4.4.1); the tests beside say when it no longer fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from attrs import define, frozen
from grpclib.const import Status
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived
from h2.exceptions import NoSuchStreamError, ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from proglog_trio.rpc.http2.header_blocks import HeaderBlockDecoder, HeaderBlockError

if TYPE_CHECKING:
    from h2._typing import Buffer

MAX_REASON_BYTES = 512
_FRAME_HEADER_BYTES = 9
_PRIORITY_BYTES = 5
_WINDOW_UPDATE_BYTES = 4
_LARGEST_INCREMENT = 2**31 - 1

_Received = tuple[list[Frame], list[Event]]


@define(eq=False)
class RequestRefused(Event):
    """A request that is not passed on, and has to be answered with a status.

    Attributes:
        status, message: what the client is told.
        error_code: what the stream is reset with if the client has more to send.
    """

    stream_id: int
    status: Status
    message: str
    error_code: ErrorCodes


@define(eq=False)
class StreamFailed(Event):
    """A stream that was reset for what the peer sent on it.

    Attributes:
        status, message: what came of the call, for the caller that waits for it on this side.
    """

    stream_id: int
    status: Status
    message: str


@frozen
class _FaultyFrame:
    """A frame that has a fault which concerns its stream alone; it changes nothing else."""

    stream_id: int
    error_code: ErrorCodes
    detail: str
    opens_nothing: bool


class _Frames(FrameBuffer):
    """h2's buffer, which also finds frames that hyperframe would call an error of the connection."""

    def __init__(self, max_block_bytes: int, *, is_server: bool) -> None:
        super().__init__(server=is_server)
        self._max_block_bytes = max_block_bytes

    def __next__(self) -> Frame:
        # Within a header block nothing but its continuation may come, and h2 ends the connection for anything else.
        faulty = None if self._headers_buffer else self._pop_faulty_frame()
        return super().__next__() if faulty is None else cast("Frame", faulty)

    def _pop_faulty_frame(self) -> _FaultyFrame | None:
        data = self._data
        if len(data) < _FRAME_HEADER_BYTES or data[3] not in (PriorityFrame.type, WindowUpdateFrame.type):
            return None
        length = int.from_bytes(data[:3], "big")
        stream_id = int.from_bytes(data[5:9], "big") & 0x7FFFFFFF
        end = _FRAME_HEADER_BYTES + length
        if not stream_id or len(data) < end or length > self.max_frame_size:
            # Of the connection, not all here yet, or too long: h2 knows what to do.
            return None
        if data[3] == PriorityFrame.type:
            if length == _PRIORITY_BYTES:
                return None
            detail = f"a PRIORITY frame of {length} bytes instead of {_PRIORITY_BYTES}"
            faulty = _FaultyFrame(stream_id, ErrorCodes.FRAME_SIZE_ERROR, detail, opens_nothing=False)
        else:
            increment = int.from_bytes(data[_FRAME_HEADER_BYTES:end], "big") & _LARGEST_INCREMENT
            if length != _WINDOW_UPDATE_BYTES or increment:
                return None
            detail = "a WINDOW_UPDATE frame that changes nothing"
            faulty = _FaultyFrame(stream_id, ErrorCodes.PROTOCOL_ERROR, detail, opens_nothing=True)
        del data[:end]
        return faulty

    def _update_header_buffer(self, frame: Frame | None) -> Frame | None:
        complete = super()._update_header_buffer(frame)
        waiting = sum(len(part.data) for part in self._headers_buffer)
        if waiting > self._max_block_bytes:
            raise HeaderBlockError(
                f"a header block of more than {self._max_block_bytes} bytes is too long", ErrorCodes.ENHANCE_YOUR_CALM
            )
        return complete


class TolerantConnection(H2Connection):
    """h2's connection, for which a stream's error is that stream's.

    Emits RequestRefused and StreamFailed besides h2's own events.

    Args:
        config: h2's.
        settings: ours, MAX_FRAME_SIZE and MAX_HEADER_LIST_SIZE among them.
    """

    def __init__(self, config: H2Configuration, settings: Mapping[SettingCodes, int]) -> None:
        super().__init__(config=config)
        # In force at once and not when the peer acknowledges them: a peer that has read our SETTINGS may send a large
        # frame in the same packet as its acknowledgement.
        self.local_settings = Settings(client=bool(config.client_side), initial_values=dict(settings))
        self.max_inbound_frame_size = settings[SettingCodes.MAX_FRAME_SIZE]
        self._blocks = HeaderBlockDecoder(max_header_list_size=settings[SettingCodes.MAX_HEADER_LIST_SIZE])
        self.decoder = self._blocks
        self.incoming_buffer = _Frames(self._blocks.max_encoded_bytes, is_server=not config.client_side)
        dispatch: dict[Any, Any] = self._frame_dispatch_table
        dispatch[_FaultyFrame] = self._receive_faulty_frame

    def receive_data(self, data: Buffer) -> list[Event]:
        """Parse bytes of the peer; raises h2.exceptions.ProtocolError when they end the connection."""
        try:
            return super().receive_data(data)
        except ProtocolError as error:
            self.say_why_it_ends(error, error.error_code)
            raise

    def say_why_it_ends(self, error: Exception, code: ErrorCodes | int) -> None:
        """Prepare a GOAWAY that gives the reason."""
        reason = str(error) or type(error).__name__
        self.close_connection(code, reason.encode("utf-8", "replace")[:MAX_REASON_BYTES])

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """Leave it to receive_data, which knows the reason; h2 calls this for each error."""

    # -- frames --------------------------------------------------------------------------------------------------------

    def _receive_headers_frame(self, frame: HeadersFrame) -> _Received:
        fields = self._blocks.decode_block(frame.data)  # even if it is refused, or the next block is read wrongly
        is_oversized = self._blocks.is_oversized
        events: list[Event] = self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        # h2's own check would end the connection. Counted before the stream is made, which would count itself.
        begins = frame.stream_id not in self.streams
        max_open = self.local_settings.max_concurrent_streams
        is_one_too_many = begins and self.open_inbound_streams >= max_open
        stream = self._get_or_create_stream(frame.stream_id, AllowedStreamIDs(not self.config.client_side))
        if is_one_too_many:
            return [self._reset(stream, ErrorCodes.REFUSED_STREAM)], events
        failed: Exception | None = None
        frames: list[Frame] = []
        stream_events: list[Event] = []
        try:
            frames, stream_events = stream.receive_headers(
                fields, "END_STREAM" in frame.flags, self.config.header_encoding
            )
        except NoSuchStreamError:
            raise  # it is over: what that means depends on how it ended
        except (ProtocolError, UnicodeDecodeError) as error:
            failed = error
        if failed is None and not is_oversized:
            return frames, events + stream_events
        if is_oversized:
            status, code = Status.RESOURCE_EXHAUSTED, ErrorCodes.ENHANCE_YOUR_CALM
            message = f"the header list is longer than the limit of {self.decoder.max_header_list_size} bytes"
        else:
            status, code, message = Status.INTERNAL, ErrorCodes.PROTOCOL_ERROR, f"the headers are malformed: {failed}"
        if begins and not self.config.client_side and not stream.closed:
            # That the request has ended, if it has, is passed on; that it began is not.
            after = [event for event in stream_events if not isinstance(event, RequestReceived)]
            answered_with = ErrorCodes.NO_ERROR if is_oversized else code
            return frames, [*events, RequestRefused(frame.stream_id, status, message, answered_with), *after]
        return self._fail(stream, code, status, message)

    def _receive_data_frame(self, frame: DataFrame) -> _Received:
        length = frame.flow_controlled_length
        exceeds_connection = length > self.inbound_flow_control_window
        try:
            return super()._receive_data_frame(frame)
        except NoSuchStreamError:
            raise
        except ProtocolError as error:
            stream = self.streams.get(frame.stream_id)
            # Errors of the connection: a stream that was never opened, its own window exceeded, or it is over already.
            if stream is None or exceeds_connection or self.state_machine.state is ConnectionState.CLOSED:
                raise
            frames, events = self._fail(stream, error.error_code, Status.INTERNAL, f"the body is malformed: {error}")
            # These bytes will not be read, so they are given back to the window that all streams share.
            increment = self._inbound_flow_control_window_manager.process_bytes(length)
            if increment:
                update = WindowUpdateFrame(0)
                update.window_increment = increment
                frames.append(update)
            return frames, events

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> _Received:
        """Ignore priorities (RFC 9113, section 5.3.2), those that make no sense too."""
        return [], self.state_machine.process_input(ConnectionInputs.RECV_PRIORITY)

    def _receive_faulty_frame(self, frame: _FaultyFrame) -> _Received:
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            if frame.opens_nothing:
                try:
                    self._get_stream_by_id(frame.stream_id)
                except NoSuchStreamError as error:
                    # Its subclass StreamClosedError: there was such a stream, and its frames may still be on their way.
                    if type(error) is NoSuchStreamError:
                        raise ProtocolError(f"{frame.detail} on a stream that was never opened") from error
            return [], []
        if stream.closed:
            return [], []
        return self._fail(stream, frame.error_code, Status.INTERNAL, frame.detail)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _fail(self, stream: H2Stream, code: ErrorCodes, status: Status, message: str) -> _Received:
        return [self._reset(stream, code)], [StreamFailed(stream.stream_id, status, message)]

    @staticmethod
    def _reset(stream: H2Stream, code: ErrorCodes) -> RstStreamFrame:
        # h2's state machine may have closed the stream for the error already, and not have noted that by a reset: then
        # what is still on its way on this stream would count as an error of the connection.
        stream.state_machine.state = StreamState.CLOSED
        stream.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
        frame = RstStreamFrame(stream.stream_id)
        frame.error_code = code
        return frame
