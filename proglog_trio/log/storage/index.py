"""The sparse index of a segment: for some of its frames, where they stand.

In memory it answers from where on to scan for an offset, or for a sequence of an origin. On disk it is a hint: each
entry has its own CRC, nothing in the file is needed to read the log, and a file that is missing or damaged is made
anew. The file also holds a copy of the segment's header, and the durable mark: how far the store file was durable
when a commit last ended. The mark is not synced with each commit, so after a power loss it may be behind; it is never
ahead.

Layout, integers big endian: magic (4 bytes), version (u16), reserved (10 bytes); the durable mark (durable position
u64, next offset u64, reserved u64, reserved u32, CRC u32); the copy of the segment header; entries (offset u64,
position u64, origin 16 bytes, base sequence u64, CRC u32). The CRCs of mark and entries are continued from the salt.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from attrs import Factory, define, frozen

from proglog_trio.errors import SegmentError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.envelope import Salt
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import HEADER_PREFIX_BYTES, header_length
from proglog_trio.log.storage.disk import File

INDEX_MAGIC = b"\x93PLI"
INDEX_VERSION = 1
MARK_POSITION = 16
_PREFIX = struct.Struct(">4sH10x")
_MARK = struct.Struct(">QQ12x")
MARK_BYTES = _MARK.size + CHECKSUM_BYTES
HEADER_COPY_POSITION = MARK_POSITION + MARK_BYTES
_ENTRY = struct.Struct(">QQ16sQ")
ENTRY_BYTES = _ENTRY.size + CHECKSUM_BYTES
_CHECKSUM = struct.Struct(">I")


@frozen
class DurableMark:
    """How far a segment was durable: its file up to position, its offsets up to next_offset."""

    position: int
    next_offset: int

    def encode(self, salt: Salt) -> bytes:
        """Return the mark's bytes."""
        fields = _MARK.pack(self.position, self.next_offset)
        return fields + _CHECKSUM.pack(crc32c(fields, salt.seed))


@frozen
class IndexEntry:
    """Where one frame stands."""

    offset: int
    position: int
    origin: Origin
    base_sequence: int

    def encode(self, salt: Salt) -> bytes:
        """Return the entry's bytes."""
        fields = _ENTRY.pack(self.offset, self.position, self.origin.data, self.base_sequence)
        return fields + _CHECKSUM.pack(crc32c(fields, salt.seed))


@frozen(order=True)
class Place:
    """Where a frame begins: the offset of its first record, and its position in the segment's file."""

    offset: int
    position: int


@define
class _Places:
    """Ascending numbers, and for each the offset and the file position of its frame."""

    numbers: array[int] = Factory(lambda: array("Q"))
    offsets: array[int] = Factory(lambda: array("Q"))
    positions: array[int] = Factory(lambda: array("Q"))

    def add(self, number: int, offset: int, position: int) -> None:
        # The number last: a thread that finds it finds the others too.
        self.positions.append(position)
        self.offsets.append(offset)
        self.numbers.append(number)

    def before(self, number: int) -> Place | None:
        found = bisect_right(self.numbers, number) - 1
        return None if found < 0 else Place(self.offsets[found], self.positions[found])


@define
class SparseIndex:
    """The index of one segment in memory. One thread adds; others may look up meanwhile.

    Attributes:
        interval_bytes: how far apart in the file two entries of the same kind are at least.
    """

    interval_bytes: int
    _offsets: _Places = Factory(_Places)
    _sequences: dict[Origin, _Places] = Factory(dict)

    def add(self, entry: IndexEntry) -> bool:
        """Take note of a frame if none of its kind stands close before it; tell whether it was."""
        places = self._sequences.get(entry.origin)
        new_offset = _is_far(self._offsets, entry.position, self.interval_bytes)
        new_sequence = places is None or _is_far(places, entry.position, self.interval_bytes)
        if new_offset:
            self._offsets.add(entry.offset, entry.offset, entry.position)
        if new_sequence:
            if places is None:
                places = _Places()
            places.add(entry.base_sequence, entry.offset, entry.position)
            self._sequences[entry.origin] = places
        return new_offset or new_sequence

    def before_offset(self, offset: int) -> Place | None:
        """Return the place of the last known frame that begins at offset or below."""
        return self._offsets.before(offset)

    def last_before(self, end: Place) -> list[tuple[Origin, int, Place]]:
        """Return, for each origin that is noted before a place, its first sequence and its last noted place before it.

        A frame of an origin that is not noted itself stands less than interval_bytes behind one that is.
        """
        found = []
        for origin, places in self._sequences.copy().items():  # another thread may add an origin meanwhile
            last = bisect_left(places.offsets, end.offset) - 1
            if last >= 0:
                place = Place(places.offsets[last], places.positions[last])
                found.append((origin, places.numbers[0], place))
        return found

    def before_sequence(self, origin: Origin, sequence: int) -> Place | None:
        """Return the place of the last known frame of an origin that begins at sequence or below."""
        places = self._sequences.get(origin)
        return None if places is None else places.before(sequence)


def _is_far(places: _Places, position: int, interval_bytes: int) -> bool:
    return not places.positions or position - places.positions[-1] >= interval_bytes


def encode_preamble(mark: DurableMark, header: bytes, salt: Salt) -> bytes:
    """Return what an index file begins with, before its entries."""
    return _PREFIX.pack(INDEX_MAGIC, INDEX_VERSION) + mark.encode(salt) + header


def read_header_copy(file: File) -> bytes:
    """Return the bytes of an index file's copy of the segment's header, unchecked; raises SegmentError without."""
    return file.read_at(HEADER_COPY_POSITION, header_length(file.read_at(HEADER_COPY_POSITION, HEADER_PREFIX_BYTES)))


def read_mark(file: File, salt: Salt) -> DurableMark | None:
    """Return the durable mark of an index file, or None if it cannot be read."""
    data = file.read_at(MARK_POSITION, MARK_BYTES)
    if len(data) < MARK_BYTES or crc32c(data[: _MARK.size], salt.seed) != _CHECKSUM.unpack(data[_MARK.size :])[0]:
        return None
    return DurableMark(*_MARK.unpack(data[: _MARK.size]))


def read_entries(file: File, header: bytes, salt: Salt) -> Iterator[IndexEntry]:
    """Yield the entries of the index file of the segment that begins with this header.

    Raises:
        SegmentError: at the first that is damaged, or if the file is not this segment's.
    """
    prefix = file.read_at(0, _PREFIX.size)
    if len(prefix) < _PREFIX.size or _PREFIX.unpack(prefix) != (INDEX_MAGIC, INDEX_VERSION):
        raise SegmentError("no index begins here")
    if file.read_at(HEADER_COPY_POSITION, len(header)) != header:
        raise SegmentError("the index's copy of the segment header is another")
    start = HEADER_COPY_POSITION + len(header)
    data = file.read_at(start, file.size() - start)
    if len(data) % ENTRY_BYTES:
        raise SegmentError(f"the index ends in the middle of an entry, after {len(data)} bytes of entries")
    for place in range(0, len(data), ENTRY_BYTES):
        fields = data[place : place + _ENTRY.size]
        if crc32c(fields, salt.seed) != _CHECKSUM.unpack_from(data, place + _ENTRY.size)[0]:
            raise SegmentError(f"entry {place // ENTRY_BYTES} of the index does not match its CRC")
        offset, position, origin, base_sequence = _ENTRY.unpack(fields)
        yield IndexEntry(offset, position, Origin(origin), base_sequence)


def read_sound_entries(file: File, header: bytes, salt: Salt) -> Iterator[IndexEntry]:
    """Yield the entries of an index file that match their CRC, passing over those that do not.

    For a repair, to which each says what stood at a place that cannot be read. Empty for the index of another segment:
    the CRCs are continued from the salt.
    """
    start = HEADER_COPY_POSITION + len(header)
    data = file.read_at(start, max(file.size() - start, 0))
    for place in range(0, len(data) - ENTRY_BYTES + 1, ENTRY_BYTES):
        fields = data[place : place + _ENTRY.size]
        if crc32c(fields, salt.seed) == _CHECKSUM.unpack_from(data, place + _ENTRY.size)[0]:
            offset, position, origin, base_sequence = _ENTRY.unpack(fields)
            yield IndexEntry(offset, position, Origin(origin), base_sequence)
