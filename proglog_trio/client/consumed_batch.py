"""What a consumer delivers: batches as their producers packed them, unpacked when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple

import msgpack
from attrs import define, frozen

from proglog_trio.client.delivered_window import DeliveredWindow
from proglog_trio.client.errors import MalformedRecord
from proglog_trio.errors import PayloadError
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.headers import NO_HEADERS
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import record_of_row, unpack_rows

_first = itemgetter(0)
new_tuple = tuple.__new__
"""Makes a ConsumedRecord without the Python function that a named tuple's own constructor is: 0.17 µs, not 0.30."""


class ConsumedRecord(NamedTuple):
    """One record as it was read.

    A named tuple, since that is what Python makes fastest of all that cannot be changed by accident.

    Attributes:
        value, key, timestamp: as its producer made it.
        headers: likewise, in their order; an empty mapping that cannot be changed if there are none.
        offset: its place in the log of the node that it was read from, see node; another node's log has it elsewhere.
        origin, sequence: its name on every node, for ever.
        log_time: hybrid logical clock: milliseconds since the Unix epoch in the upper 48 bits, a counter below.
        node: the address of the node that it was read from. When it changes, the offsets do not go on from one another.
    """

    value: bytes
    key: bytes | None
    headers: Mapping[str, bytes]
    timestamp: int | None
    offset: int
    origin: Origin
    sequence: int
    log_time: int
    node: str


@frozen
class SkippedRange:
    """Offsets [from_offset, to_offset) of a node's log that could not be read and that on_missing="skip" left out.

    It is empty where what is missing has no offsets there: it was retired before the node pulled it, and reason says
    which sequences it was.

    Attributes:
        reason: in the node's words.
        node: the node's address.
    """

    from_offset: int
    to_offset: int
    reason: str
    node: str = ""

    @property
    def count(self) -> int:
        """How many offsets."""
        return self.to_offset - self.from_offset


@frozen
class _Unreadable:
    """Stands in for a row whose bytes cannot be unpacked."""

    reason: str


NOTHING_DELIVERED = DeliveredWindow()


@define(eq=False)
class ConsumedBatch:
    """Records that one producer packed together, or a part of them: its records [first, first + count).

    Attributes:
        header: the frame's header, about the whole batch.
        payload: the msgpack array of the whole batch; its CRC has been checked.
        frame_offset: the offset of the whole batch's first record.
        first, count: which of its records this is about.
        before: the position before the first of them.
        skipped: what is missing directly before it.
        node: the address of the node that it was read from, in whose log the offsets are places.
        window: what was delivered before, so that copies of it are not.
    """

    header: FrameHeader
    payload: bytes
    frame_offset: int
    first: int
    count: int
    before: Position
    skipped: tuple[SkippedRange, ...] = ()
    node: str = ""
    window: DeliveredWindow = NOTHING_DELIVERED
    # What rows returned, once it was asked: exactly count of them.
    _rows: list[object] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> int:
        """What counts against the prefetch limit, in bytes."""
        return len(self.payload)

    @property
    def base_offset(self) -> int:
        """The first record's offset."""
        return self.frame_offset + self.first

    @property
    def next_offset(self) -> int:
        """The offset after the last record's."""
        return self.frame_offset + self.first + self.count

    @property
    def origin(self) -> Origin:
        """Where the records got their sequences: a run of one data directory as a writer."""
        return self.header.origin

    @property
    def base_sequence(self) -> int:
        """The first record's sequence."""
        return self.header.base_sequence + self.first

    @property
    def log_time(self) -> int:
        """The records' log time."""
        return self.header.log_time

    @property
    def position(self) -> bytes:
        """The position after the last record, encoded: where another consumer can go on."""
        return self.encoded_position_after(self.count)

    def position_after(self, count: int) -> Position:
        """Return the position after the first count of these records."""
        begin = self.base_sequence
        return self.before.advanced(self.header.origin, begin, begin + count)

    def window_after(self, count: int) -> DeliveredWindow:
        """Return what was delivered after the first count of these records."""
        if not count:
            return self.window
        header = self.header
        return self.window.after(header.producer_id, header.producer_sequence, self.first + count, header.count)

    def encoded_position_after(self, count: int) -> bytes:
        """Return the position after the first count of these records, with what was delivered, encoded."""
        return self.position_after(count).encode(self.window_after(count).encode())

    def part(self, first: int, count: int | None = None) -> ConsumedBatch:
        """Return a batch of these records from number first on: all of them, or count."""
        rest = self.count - first
        if not 0 <= first <= self.count or not 0 <= (rest if count is None else count) <= rest:
            raise IndexError(f"no records [{first}, {first + (count or 0)}) in a batch of {self.count}")
        return ConsumedBatch(
            self.header,
            self.payload,
            self.frame_offset,
            self.first + first,
            rest if count is None else count,
            self.position_after(first) if first else self.before,
            () if first else self.skipped,
            self.node,
            self.window_after(first),
            None if self._rows is None else self._rows[first : first + (rest if count is None else count)],
        )

    def values(self) -> list[bytes]:
        """Return the records' values: the fastest way to read.

        Raises:
            MalformedRecord: for the first that is none. ``part`` gives what stands before and after it.
        """
        rows = self.rows()
        # Three passes in C are cheaper than one in Python.
        if {tuple}.issuperset(map(type, rows)) and all(rows):
            values = list(map(_first, rows))  # type: ignore[arg-type]  # they are tuples, as was just checked
            if {bytes}.issuperset(map(type, values)):
                return values
        return [self.record(index).value for index in range(self.count)]

    def records(self) -> list[ConsumedRecord]:
        """Return the records; raises MalformedRecord as values."""
        return list(self)

    def __iter__(self) -> Iterator[ConsumedRecord]:
        offset, origin, sequence = self.base_offset, self.origin, self.base_sequence
        log_time, node = self.log_time, self.node
        for index, row in enumerate(self.rows()):
            if type(row) is tuple and len(row) == 1 and type(row[0]) is bytes:
                yield new_tuple(
                    ConsumedRecord,
                    (row[0], None, NO_HEADERS, None, offset + index, origin, sequence + index, log_time, node),
                )
            else:
                yield self.record(index)

    def record(self, index: int) -> ConsumedRecord:
        """Return the record with this number in the batch.

        Raises:
            IndexError: there is none.
            MalformedRecord: it is none; or none of the batch can be read, then its count is more than 1.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"no record {index} in a batch of {self.count}")
        row = self.rows()[index]
        header = self.header
        number = self.first + index
        try:
            if isinstance(row, _Unreadable):
                raise PayloadError(row.reason)
            record = record_of_row(row, number)
        except PayloadError as error:
            raise self._malformed(str(error), index, 1) from None
        return ConsumedRecord(
            record.value,
            record.key,
            dict(record.headers) if record.headers else NO_HEADERS,
            record.timestamp,
            self.frame_offset + number,
            header.origin,
            header.base_sequence + number,
            header.log_time,
            self.node,
        )

    def rows(self) -> list[object]:
        """Return the records as msgpack has them, unchecked; raises MalformedRecord if there is no array."""
        if self._rows is None:
            try:
                rows: list[object] = list(unpack_rows(self.payload))
            except PayloadError as error:
                rows = _rows_one_by_one(self.payload)
                if not rows:
                    raise self._malformed(str(error), 0, self.count) from None
            if len(rows) != self.header.count:
                reason = f"its array has {len(rows)} records, its header says {self.header.count}"
                raise self._malformed(reason, 0, self.count)
            if self.first or self.count != len(rows):
                rows = rows[self.first : self.first + self.count]
            self._rows = rows
        return self._rows

    def _malformed(self, reason: str, index: int, count: int) -> MalformedRecord:
        number = self.first + index
        return MalformedRecord(
            reason,
            offset=self.frame_offset + number,
            origin=str(self.header.origin),
            sequence=self.header.base_sequence + number,
            count=count,
        )


def _rows_one_by_one(payload: bytes) -> list[object]:
    """Unpack what can be unpacked of a payload in which msgpack stumbled over one record; empty if it is no array."""
    bounds = []
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    try:
        for _ in range(unpacker.read_array_header()):
            start = unpacker.tell()
            unpacker.skip()
            bounds.append((start, unpacker.tell()))
    except (ValueError, msgpack.OutOfData, RecursionError):
        return []
    rows: list[object] = []
    for start, end in bounds:
        try:
            # The same reading as of the whole: an array of this one record.
            rows.append(unpack_rows(b"\x91" + payload[start:end])[0])
        except PayloadError as error:
            rows.append(_Unreadable(str(error)))
    return rows
