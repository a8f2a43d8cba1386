"""What a consumer asks for, delivers, trims and drops. No I/O and no clock.

The rules it keeps, and why nothing is left out and nothing comes twice:

- What was received is known as a position (per origin, the next sequence), begun with the position that the node gives
  of the stream's start. A new stream asks for what follows it, so it does not matter how far the old one was delivered,
  or whether the new one comes from another node whose offsets differ.
- A frame that lies before the position is dropped, one that straddles it is trimmed: a position may stand inside a
  frame.
- Until there is a position (no answer yet) a new stream asks for the start that was configured.
- A start that was given as an offset is resolved by one node: until it has answered, no other can be asked.
- The end that is not to be followed is that of the node that the consumer opened at, known as a position. A stream that
  ends at another node before that is no end: the consumer goes on until some node has given all of it.
- A node that lacks the next records (they are retired or damaged there, or a frame of an origin does not follow what
  was received of it) is not asked again until another one has given some, see stream_failures.py.
- A batch whose producer sent it to two nodes comes under two origins; the copy that is delivered second is dropped when
  it would be (see delivered_window.py). What is trimmed, dropped or delivered of either copy is counted from the
  batch's first record, so a consumer that stopped inside one copy may get the rest from the other.
- Nothing counts as received before its CRCs have been checked; what is damaged on the way is asked for again, and is an
  error when it comes damaged again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple, NoReturn

from proglog_trio._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesResponse, Skipped
from proglog_trio.client.config import Anchor, ConsumerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch, SkippedRange
from proglog_trio.client.delivered_window import DeliveredWindow
from proglog_trio.client.errors import ClientError, RecordsLost
from proglog_trio.client.prefetch import PrefetchShares, waiting_bytes
from proglog_trio.client.stream_failures import EndedShort, StreamFailures
from proglog_trio.errors import FrameError, PositionError
from proglog_trio.log.format.frame import Frame, decode_frame
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode

MAX_DAMAGED_IN_A_ROW = 3


class _ReceivedFrame(NamedTuple):
    """A frame, or what is new in it, that waits to be delivered.

    Attributes:
        offset: of its first record, in the log of node.
        first: so many of its records were received before, in another frame.
        before: the position before the others.
        skipped: what is missing directly before it.
        node: the address of the node that it came from.
        waiting_bytes: what it counts for while it waits.
    """

    frame: Frame
    offset: int
    first: int
    before: Position
    skipped: tuple[SkippedRange, ...]
    node: str
    waiting_bytes: int


class ConsumerCore:
    """The state of one consumer: what was received, and of that what waits to be delivered.

    Attributes:
        node: the address of the node that the present stream is from.
        failures: the streams that failed since a frame with news came, which is one with records not received before.
        received: the position after all that was received; None before the first answer. It never goes back, but from a
            start that turns out to be damaged to None.
        start: where the delivery begins: what was received before the first frame with news; from then on it stays.
        start_window: what had been delivered there.
        end_offset: the log's end as of the last answer; None before the first.
        shares: what may wait, and what else is held.
        waiting_bytes: what the frames that wait to be delivered count for, see prefetch.py.
        end: where a consumer that does not follow is to end, by the node that it opened at; None before it has said so.
        ended: the node ended the stream because everything up to the end was given.
        error: why nothing more will come. With it or with ended, no other stream is opened.
        dropped_records: records that came although they had been received before.
        duplicate_records: records that were not delivered because a copy of them, under another origin, had been.
        window: what was delivered of which producers; it is behind ``received`` by what waits in the queue.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        self.config = config
        self.shares = PrefetchShares.of(config.prefetch_bytes, config.response_bytes)
        self.received: Position | None = None
        self.window = DeliveredWindow(config.remembered_producers)
        if config.position is not None:
            self.received, annex = Position.decode_with_annex(config.position)
            self.window = DeliveredWindow.decode(annex, config.remembered_producers)
        self.start: Position | None = self.received
        self.start_window = self.window
        self.node = ""
        self.failures = StreamFailures(config)
        self.end_offset: int | None = None
        self.waiting_bytes = 0
        self.end: Position | None = None
        self.ended = False
        self.error: ClientError | None = None
        self.dropped_records = 0
        self.duplicate_records = 0
        # In the order of their arrival, each beginning where the one before it ends, or behind what it says is missing.
        self._queue: deque[_ReceivedFrame] = deque()
        # What a node left out behind all that is in the queue, to be told with what comes next.
        self._skipped: list[SkippedRange] = []
        # Up to which of the present node's offsets that was told.
        self._skipped_to = 0
        self._damaged_in_row = 0
        # Whether a frame with news has come.
        self._begun = False
        # Whether the present stream has given no whole answer.
        self._first_answer = True
        # The offset that the present stream was asked for, 0 if by position or anchor: its first frame may begin below.
        self._trim_below = 0
        # The node that ``end`` is of.
        self._end_node = ""

    # -- streams -------------------------------------------------------------------------------------------------------

    @property
    def bound_to_first_node(self) -> bool:
        """Whether the start is an offset that is not resolved: it means nothing on any node but the first."""
        return self.received is None and self.config.offset is not None

    def stream_to(self, node: str) -> None:
        """Begin a stream from a node."""
        if node != self.node:
            # Its offsets are not those of the node before.
            self.node = node
            self._skipped_to = 0

    @property
    def asks_end(self) -> bool:
        """Whether the node is to be asked for the end of its log first, see end_request."""
        return not self.config.follow and self.end is None

    def end_request(self) -> ConsumeBatchesRequest:
        """Return the ConsumeBatchesRequest whose first answer has the log's end as its position."""
        return ConsumeBatchesRequest(anchor=Anchor.END.value, until_end=True, response_bytes=1)

    def received_end(self, answer: ConsumeBatchesResponse) -> None:
        """Keep the end that the first answer to end_request says; raises StreamBroken if it is damaged."""
        try:
            self.end = Position.decode(answer.position)
        except PositionError as error:
            raise StreamBroken(f"the node's answer is damaged: the position of its end: {error}") from None
        self._end_node = self.node

    def request(self) -> ConsumeBatchesRequest:
        """Return the ConsumeBatchesRequest of a new stream that goes on from what was received."""
        self._first_answer = True
        self._trim_below = 0
        config = self.config
        request = ConsumeBatchesRequest(
            until_end=not config.follow, skip_missing=config.on_missing == "skip", response_bytes=self.shares.response
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
        return self.waiting_bytes < self.shares.waiting

    def received_answer(self, answer: ConsumeBatchesResponse) -> None:
        """Have what is new in an answer wait to be delivered.

        Raises:
            StreamBroken: it is damaged; what is whole before the damage was received.
        """
        self.failures.answered()
        if self._first_answer:
            self._begin_at(answer)
        self.end_offset = answer.end_offset
        for skipped in answer.skipped:
            if skipped.origin:
                self._skip_sequences(skipped)
                continue
            # A new stream tells again what the old one left out just before it broke.
            begin = max(skipped.from_offset, self._skipped_to)
            if begin < skipped.to_offset:
                self._skipped.append(SkippedRange(begin, skipped.to_offset, skipped.reason, self.node))
                self._skipped_to = skipped.to_offset
        data: bytes | memoryview = answer.frames
        place = 0
        for base_offset in answer.base_offsets:
            try:
                frame = decode_frame(data, place)
            except FrameError as error:
                self._damaged(f"a frame at offset {base_offset}: {error}")
            place += frame.length
            self._receive_frame(frame, base_offset)
        if place != len(data):
            self._damaged(f"{len(data) - place} bytes follow the {len(answer.base_offsets)} frames of an answer")
        self._first_answer = False
        self._damaged_in_row = 0

    def _skip_sequences(self, skipped: Skipped) -> None:
        """Pass over sequences that have no offsets on the node, and of which nothing more may ever come."""
        try:
            origin = Origin.parse(skipped.origin)
        except ValueError as error:
            self._damaged(f"what it left out: {error}")
        first, following = skipped.from_sequence, skipped.to_sequence
        if self.received is None or self.received.next_sequence(origin) >= following:
            return  # A new stream tells again what the old one left out just before it broke.
        reason = f"sequences {first} to {following - 1} of origin {origin} are missing: {skipped.reason}"
        self._skipped.append(SkippedRange(skipped.from_offset, skipped.to_offset, reason, self.node))
        self.received = self.received.advanced(origin, first, following)
        if not self._begun:
            self.start = self.received

    def _begin_at(self, answer: ConsumeBatchesResponse) -> None:
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
        if self._damaged_in_row >= MAX_DAMAGED_IN_A_ROW:
            self.error = RecordsLost(
                f"{message}; it came so {self._damaged_in_row} times in a row; name other nodes, or see this one's log"
            )
        raise StreamBroken(message)

    def _receive_frame(self, frame: Frame, base_offset: int) -> None:
        header = frame.header
        received = self.received
        if received is None:
            raise RuntimeError("the first answer gives a position")
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
        if have < 0:
            self._pass_missing(header.origin, received.next_sequence(header.origin), header.base_sequence, base_offset)
        self._damaged_in_row = 0
        self._begun = True
        self.failures.brought_news()
        size = waiting_bytes(len(frame.payload), len(received.ranges))
        self._queue.append(_ReceivedFrame(frame, base_offset, first, received, tuple(self._skipped), self.node, size))
        self._skipped.clear()
        base, end = header.base_sequence + first, header.base_sequence + header.count
        self.received = received.advanced(header.origin, base, end)
        self.waiting_bytes += size

    def _pass_missing(self, origin: Origin, first: int, following: int, offset: int) -> None:
        """Pass over sequences of an origin that the node does not have, in front of a frame at an offset.

        Raises:
            StreamBroken: they are not to be skipped.
        """
        missing = f"sequences {first} to {following - 1} of origin {origin} are missing"
        if self.config.on_missing != "skip":
            raise StreamBroken(f"{missing} before offset {offset}", StatusCode.OUT_OF_RANGE)
        if not self._skipped:
            # Else the node has said so already, in offsets.
            self._skipped.append(SkippedRange(offset, offset, missing, self.node))

    def stream_ended(self) -> None:
        """End, since the node ended the stream without an error.

        Raises:
            StreamBroken: it has no reason to when the end is followed, or was not reached.
        """
        if self.config.follow:
            raise StreamBroken("the node ended the stream")
        if self.end is not None and self.node != self._end_node and not self._reached(self.end):
            raise EndedShort(f"{self.node} does not have all that {self._end_node} had when the consumer opened")
        self.ended = True

    def _reached(self, end: Position) -> bool:
        received = self.received
        return received is not None and all(
            received.next_sequence(origin) >= held.next for origin, held in end.ranges.items()
        )

    def stream_lost(self, failure: StreamBroken, now: float, known: Collection[str] = ()) -> None:
        """Begin to wait for another stream, since one broke; error is set when no other is to be tried.

        Args:
            failure: why.
            now: in seconds.
            known: the nodes that may be tried.
        """
        if self.error is None:
            self.error = self.failures.lost(self.node, failure, now, () if self.bound_to_first_node else known)

    @property
    def finished(self) -> bool:
        """Whether no other stream is to be opened."""
        return self.ended or self.error is not None

    # -- delivery ------------------------------------------------------------------------------------------------------

    def next_batch(self) -> ConsumedBatch | None:
        """Return the next batch to deliver, or None if there is none now; what has been delivered is passed over."""
        skipped: tuple[SkippedRange, ...] = ()
        while self._queue:
            received = self._queue.popleft()
            header, payload = received.frame.header, received.frame.payload
            self.waiting_bytes -= received.waiting_bytes
            skipped += received.skipped
            producer, sequence = header.producer_id, header.producer_sequence
            # Counted from the batch's first record, of whichever copy.
            first = max(received.first, self.window.delivered_of(producer, sequence, header.count))
            self.duplicate_records += first - received.first
            if first >= header.count:
                self.window = self.window.seen(producer)
                continue
            before, window = received.before, self.window
            if first > received.first:
                base = header.base_sequence
                before = before.advanced(header.origin, base + received.first, base + first)
                window = window.after(producer, sequence, first, header.count)
            count = header.count - first
            offset, node = received.offset, received.node
            batch = ConsumedBatch(header, payload, offset, first, count, before, skipped, node, window)
            self.window = batch.window_after(count)
            return batch
        # Nothing follows yet, so they are told with what will.
        self._skipped[:0] = skipped
        return None

    def skipped_at_end(self) -> tuple[SkippedRange, ...]:
        """Return what was left out behind the last batch, once nothing more comes."""
        skipped, self._skipped = tuple(self._skipped), []
        return skipped
