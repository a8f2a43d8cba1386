"""Answers of the consume streams, encoded in the threads that read the disk: no record is touched in the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgpack
from attrs import Factory, define, frozen

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import DataLoss, OffsetOutOfRange, PayloadError, ProglogError
from proglog_trio.log.chunk import Chunk, Skipped
from proglog_trio.log.format.record import Record, record_of_row
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.reader import LogReader
from proglog_trio.rpc.http2.message_buffer import message_prefix, prefixed
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.protobuf import bytes_field_header, encode_message

_FRAMES = 1
"""The field of ConsumeBatchesResponse that is written by itself."""
_TEXT_ERRORS = "surrogateescape"


@frozen
class Answers:
    """Messages that are ready to be sent.

    Attributes:
        data: length-prefixed messages, one after the other; empty when there is nothing new to say.
        next_offset: where the next read goes on.
        records: how many records they hold.
    """

    data: bytes
    next_offset: int
    records: int


# -- ConsumeBatches ----------------------------------------------------------------------------------------------------


@define
class BatchAnswers:
    """Makes ConsumeBatchesResponses of what a reader reads. Its methods block.

    Attributes:
        reader: where to read.
        first: whether the next answer is the stream's first, which tells the position of the start.
    """

    reader: LogReader
    first: bool = True

    @property
    def next_offset(self) -> int:
        """The first offset that is not read yet."""
        return self.reader.next_offset

    def read(self, max_bytes: int, until_offset: int, end_offset: int) -> Answers:
        """Return one answer with frames below until_offset.

        Args:
            max_bytes: of frames; a single frame may be larger.
            until_offset: as LogReader.read has it.
            end_offset: the log's end, for the client to know.

        Raises:
            DataLoss, OffsetOutOfRange: see LogReader.read.
        """
        chunk = self.reader.read(max_bytes, until_offset)
        if not chunk.frames and not chunk.skipped and not self.first:
            return Answers(b"", chunk.next_offset, 0)
        data = self._encode(chunk, end_offset)
        return Answers(data, chunk.next_offset, sum(frame.envelope.count for frame in chunk.frames))

    def _encode(self, chunk: Chunk, end_offset: int) -> bytes:
        rest = log_v1.ConsumeBatchesResponse(
            base_offsets=[frame.base_offset for frame in chunk.frames],
            end_offset=end_offset,
            skipped=[_skipped_message(each) for each in chunk.skipped],
        )
        if self.first:
            rest.position = self.reader.start_position.encode()
            self.first = False
        encoded = encode_message(rest)
        # The frames are copied once, from where they were read to where they are sent.
        frames = [frame.data for frame in chunk.frames]
        frames_bytes = sum(map(len, frames))
        header = bytes_field_header(_FRAMES, frames_bytes) if frames else b""
        return b"".join((message_prefix(len(header) + frames_bytes + len(encoded)), header, *frames, encoded))

    def close(self) -> None:
        """Close the reader."""
        self.reader.close()


def _skipped_message(skipped: Skipped) -> log_v1.Skipped:
    message = log_v1.Skipped(from_offset=skipped.from_offset, to_offset=skipped.to_offset, reason=skipped.reason)
    if skipped.sequences is not None:
        origin, message.from_sequence, message.to_sequence = skipped.sequences
        message.origin = bytes(origin)
    return message


# -- Consume and ConsumeStream -----------------------------------------------------------------------------------------


@define
class RecordAnswers:
    """Makes a ConsumeResponse of every record that a reader reads. Its methods block.

    Attributes:
        reader: where to read.
        next_offset: the offset of the next record.
    """

    reader: LogReader
    next_offset: int
    # Read and not begun; _records goes on in the frame before them. Once _failure is set nothing more is read.
    _frames: deque[StoredFrame] = Factory(deque)
    _records: Iterator[tuple[int, record_messages.ConsumeResponse]] | None = None
    _failure: ProglogError | None = None

    def read(self, max_bytes: int, until_offset: int, end_offset: int) -> Answers:
        """Return messages for the next records below until_offset, up to the first that makes them max_bytes.

        Raises:
            DataLoss: the next record is damaged, or is none; the reader can go on after it by another stream.
            OffsetOutOfRange: the next records were retired.
        """
        parts: list[bytes] = []
        size = 0
        while size < max_bytes and self._failure is None:
            try:
                found = self._next(max_bytes, until_offset)
            except ProglogError as failure:
                self._failure = failure
                break
            if found is None:
                break
            offset, message = found
            part = prefixed(message.SerializeToString())
            parts.append(part)
            size += len(part)
            self.next_offset = offset + 1
        if self._failure is not None and not parts:
            # Not before: the records that stand before the failure are sent first.
            raise self._failure
        if not parts and self.next_offset < until_offset:
            self.next_offset = until_offset  # nothing but frames without records
        return Answers(b"".join(parts), self.next_offset, len(parts))

    def _next(self, max_bytes: int, until_offset: int) -> tuple[int, record_messages.ConsumeResponse] | None:
        while True:
            if self._records is not None:
                found = next(self._records, None)
                if found is not None:
                    return found
                self._records = None
            if not self._frames:
                self._frames.extend(self.reader.read(max_bytes, until_offset).frames)
                if not self._frames:
                    return None
            self._records = records_of(self._frames.popleft(), self.next_offset)

    def close(self) -> None:
        """Close the reader."""
        self.reader.close()


def records_of(stored: StoredFrame, from_offset: int) -> Iterator[tuple[int, record_messages.ConsumeResponse]]:
    """Yield the offsets and messages of a frame's records, from an offset on; raises DataLoss as rows_of."""
    header = stored.header
    origin = bytes(header.origin)
    log_time = header.log_time
    first_sequence = header.base_sequence - stored.base_offset
    for offset, row in rows_of(stored, from_offset):
        sequence = first_sequence + offset
        if type(row) is tuple and len(row) == 1 and type(row[0]) is bytes:
            message = record_messages.Record(
                value=row[0], offset=offset, origin=origin, sequence=sequence, log_time=log_time
            )
        else:
            record = _record_of(row, stored, offset)
            message = record_messages.Record(
                value=record.value,
                offset=offset,
                key=record.key or b"",
                headers=record.headers,
                timestamp=record.timestamp or 0,
                origin=origin,
                sequence=sequence,
                log_time=log_time,
            )
        yield offset, record_messages.ConsumeResponse(record=message)


def rows_of(stored: StoredFrame, from_offset: int) -> Iterator[tuple[int, object]]:
    """Yield the offsets of a frame's records and what msgpack makes of them, from an offset on.

    Record by record: a frame of millions of tiny ones never stands in memory as objects, and one that is no record
    spoils neither those before it nor those after it.

    Raises:
        DataLoss: an element cannot be unpacked; it names its offset.
    """
    payload = stored.data[stored.header.header_length :]
    offset = stored.base_offset
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(payload),
        use_list=False,
        raw=False,
        strict_map_key=False,
        unicode_errors=_TEXT_ERRORS,
    )
    unpacker.feed(payload)
    try:
        for _ in range(unpacker.read_array_header()):
            if offset < from_offset:
                unpacker.skip()
            else:
                yield offset, unpacker.unpack()
            offset += 1
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise _no_record(offset, error) from error


def _record_of(row: object, stored: StoredFrame, offset: int) -> Record:
    try:
        return record_of_row(row, offset - stored.base_offset)
    except PayloadError as error:
        raise _no_record(offset, error) from error


def _no_record(offset: int, error: Exception) -> DataLoss:
    reason = str(error) or type(error).__name__
    return DataLoss(offset, offset + 1, f"the producer packed no proper record: {reason}")


def read_record(log: Log, offset: int, lowest_offset: int, next_offset: int) -> record_messages.Record:
    """Return the record at an offset. Blocks.

    Args:
        log: the log.
        offset: of the record.
        lowest_offset: of the log, as the host thread sees it.
        next_offset: of the log, as the host thread sees it.

    Raises:
        OffsetOutOfRange: the log does not hold it.
        DataLoss: it is damaged, or is none.
    """
    if not lowest_offset <= offset < next_offset:
        raise OffsetOutOfRange(offset, lowest_offset, next_offset)
    reader = log.reader_at_offset(offset)
    try:
        for stored in reader.read(1, next_offset).frames:
            for _, message in records_of(stored, offset):
                return message.record  # the first is the one at the offset
    finally:
        reader.close()
    raise OffsetOutOfRange(offset, reader.next_offset, next_offset)
