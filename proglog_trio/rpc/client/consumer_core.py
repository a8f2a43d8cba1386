"""What a consumer asks for, delivers, trims and drops. No I/O and no clock.

The rules it keeps, and why there is no gap and no repeat:

- What was received is known as a position (per origin, the next sequence), begun with the position that the node gives
  of the stream's start. A new stream asks for what follows it, so it does not matter how far the old one was delivered,
  or whether the new one comes from another node whose offsets differ.
- A frame that lies before the position is dropped, one that straddles it is trimmed: a position may stand inside a
  frame.
- Until there is a position (no answer yet) a new stream asks for the start that was configured.
- Nothing counts as received before its CRCs have been checked; what is damaged on the way is asked for again, and is an
  error when it comes damaged again and again.
"""

from __future__ import annotations

from collections import deque
from typing import NoReturn

from grpclib.const import Status

from ..._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesResponse
from ...errors import FrameError, PositionError
from ...log.frame import Frame, decode_frame
from ...log.position import Position
from .configuration import Anchor, ConsumerConfig
from .consumed import ConsumedBatch, SkippedRange
from .errors import ClientError, ConsumerError, NodeUnreachable, RecordsLost, StartOutOfRange, StreamBroken

MOST_DAMAGED_IN_A_ROW = 3
_ERROR_OF_STATUS: dict[Status, type[ConsumerError]] = {
    Status.OUT_OF_RANGE: StartOutOfRange,
    Status.DATA_LOSS: RecordsLost,
}


class ConsumerCore:
    """The state of one consumer: what was received, and of that what waits to be delivered.

    Attributes:
        received: the position after all that was received; None before the first answer.
        next_offset: the offset after the last record that was received or skipped; None before the first answer.
        end_offset: the log's end as of the last answer; None before the first.
        waiting_bytes: how many bytes of frames wait to be delivered.
        ended: the node ended the stream because everything up to the end was delivered.
        error: why nothing more will come.
        dropped_records: records that came although they had been received before.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        self.config = config
        self.received: Position | None = None if config.position is None else Position.decode(config.position)
        self.start: Position | None = self.received
        self.next_offset: int | None = None
        self.end_offset: int | None = None
        self.waiting_bytes = 0
        self.ended = False
        self.error: ClientError | None = None
        self.dropped_records = 0
        self._queue: deque[ConsumedBatch] = deque()
        self._skipped: list[SkippedRange] = []
        self._skipped_to = 0
        self._damaged_in_row = 0
        self._begun = False
        self._first_answer = True
        self._trim_below = 0
        self._failing_since: float | None = None

    # -- streams -------------------------------------------------------------------------------------------------------

    def request(self) -> ConsumeBatchesRequest:
        """Return the ConsumeBatchesRequest of a new stream that goes on from what was received."""
        self._first_answer = True
        self._trim_below = 0
        config = self.config
        request = ConsumeBatchesRequest(
            until_end=not config.follow, skip_missing=config.skip_missing, response_bytes=config.response_bytes
        )
        if self.received is not None:
            request.position = self.received.encode()
        elif config.offset is not None:
            request.offset = self._trim_below = config.offset
        elif config.anchor is not None:
            request.anchor = config.anchor.value
        else:
            request.anchor = Anchor.LOWEST.value
        return request

    def has_room(self) -> bool:
        """Tell whether another answer should be read."""
        return self.waiting_bytes < self.config.prefetch_bytes

    def received_answer(self, answer: ConsumeBatchesResponse) -> None:
        """Take in a ConsumeBatchesResponse: what is new in it waits to be delivered then.

        Raises:
            StreamBroken: it is damaged; what is whole before the damage was taken in.
        """
        self._failing_since = None
        if self._first_answer:
            self._take_start(answer)
        self.end_offset = answer.end_offset
        for skipped in answer.skipped:
            # A new stream tells again what the old one left out just before it broke.
            begin = max(skipped.from_offset, self._skipped_to)
            if begin < skipped.to_offset:
                self._skipped.append(SkippedRange(begin, skipped.to_offset, skipped.reason))
                self._skipped_to = skipped.to_offset
                self.next_offset = max(self.next_offset or 0, skipped.to_offset)
        data = answer.frames
        place = 0
        for base_offset in answer.base_offsets:
            try:
                frame = decode_frame(data, place)
            except FrameError as error:
                self._damaged(f"a frame at offset {base_offset}: {error}")
            place += frame.length
            self._take_frame(frame, base_offset)
        if place != len(data):
            self._damaged(f"{len(data) - place} bytes follow the {len(answer.base_offsets)} frames of an answer")
        self._first_answer = False
        self._damaged_in_row = 0

    def _take_start(self, answer: ConsumeBatchesResponse) -> None:
        if self.received is not None:
            return
        try:
            self.received = self.start = Position.decode(answer.position)
        except PositionError as error:
            self._damaged(f"the position of the stream's start: {error}")

    def _damaged(self, what: str) -> NoReturn:
        self._damaged_in_row += 1
        if self._first_answer and not self._begun and self._trim_below:
            # The position of the start is that before the frame that holds the offset; ask by offset again.
            self.received = None
        message = f"the node's answer is damaged: {what}"
        if self._damaged_in_row >= MOST_DAMAGED_IN_A_ROW:
            self.error = RecordsLost(f"{message}; it came so {self._damaged_in_row} times in a row")
        raise StreamBroken(message)

    def _take_frame(self, frame: Frame, base_offset: int) -> None:
        header = frame.header
        received = self.received
        if received is None:
            raise RuntimeError("the first answer gives a position")
        following = base_offset + header.count
        if header.is_control:
            return
        have = received.next_sequence(header.origin) - header.base_sequence
        if self._trim_below > base_offset:
            # Only on the stream that was asked for by offset: another node's offsets mean something else.
            have = max(have, self._trim_below - base_offset)
        first = min(max(have, 0), header.count)
        if first:
            received = received.advanced(header.origin, header.base_sequence, header.base_sequence + first)
            if not self._begun:
                self.start = received
        self.dropped_records += first
        if first == header.count:
            return
        self._damaged_in_row = 0
        self._begun = True
        batch = ConsumedBatch(
            header, frame.payload, base_offset, first, header.count - first, received, tuple(self._skipped)
        )
        self._skipped.clear()
        self.received = batch.position_after(batch.count)
        self.next_offset = following
        self.waiting_bytes += batch.size
        self._queue.append(batch)

    def stream_ended(self) -> None:
        """Take note that the node ended the stream without an error.

        Raises:
            StreamBroken: it has no reason to when the end is followed.
        """
        if self.config.follow:
            raise StreamBroken("the node ended the stream")
        self.ended = True

    def stream_lost(self, failure: StreamBroken, now: float) -> None:
        """Take note that a stream broke; error is set when no other may be tried."""
        if self.error is not None:
            return
        status = failure.refusal
        if status is not None:
            self.error = _ERROR_OF_STATUS.get(status, ConsumerError)(str(failure), status)
            return
        if self._failing_since is None:
            self._failing_since = now
        seconds = self.config.reconnect_timeout
        if now - self._failing_since >= seconds:
            self.error = NodeUnreachable(f"no answer for {seconds:g} s: {failure}")

    @property
    def finished(self) -> bool:
        """Whether no other stream is to be opened."""
        return self.ended or self.error is not None

    def stream_lasted(self) -> None:
        """Take note that the stream that just broke had stood for so long that it counts as an answer."""
        self._failing_since = None

    # -- delivery ------------------------------------------------------------------------------------------------------

    def next_batch(self) -> ConsumedBatch | None:
        """Return the next batch to deliver, or None if there is none now."""
        if not self._queue:
            return None
        batch = self._queue.popleft()
        self.waiting_bytes -= batch.size
        return batch

    def take_skipped(self) -> tuple[SkippedRange, ...]:
        """Return what was left out behind the last batch, once nothing more comes."""
        skipped, self._skipped = tuple(self._skipped), []
        return skipped
