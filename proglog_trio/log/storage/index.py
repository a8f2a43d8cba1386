"""The index file of a segment: an entry for every envelope of its store file, in their order.

Nothing in it is needed to read the log: each entry has its own CRC, and a file that is missing or damaged is made anew.
It is what a repair knows a damaged store file by. An entry repeats the envelope and has the frame's log time; one of a
marker also has the marker itself, which no other log has. The file further holds a copy of the segment's header, and
the durable mark: how far the store file was durable when a commit last ended. The mark is not synced with each commit,
so after a power loss it may be behind; it is never ahead.

Few of the entries are in memory (see sparse_index.py). Those are chained from the mark backwards, so that a segment is
loaded without reading the others.

Layout, integers big endian: magic (4 bytes), version (u16), reserved (10 bytes); the durable mark (durable position
u64, next offset u64, place of the last noted entry in this file u64 or 0, reserved u32, CRC u32); the copy of the
segment header; entries (position u64, place of the noted entry before it u64 or 0, log time u64, the envelope's 60
bytes, of a marker its control frame, CRC u32). The CRCs of mark and entries are continued from the salt.

Version 1 has entries of the noted frames alone: offset u64, position u64, origin 16 bytes, base sequence u64, CRC u32.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NoReturn

from attrs import define, field, frozen

from proglog_trio.errors import SegmentError
from proglog_trio.log.disk import File
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.envelope import (
    ENVELOPE_BYTES,
    IN_OFFSETS,
    MARKERS,
    Envelope,
    Salt,
    find_envelope,
    read_unchecked,
)
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import HEADER_PREFIX_BYTES, header_length
from proglog_trio.log.storage.sparse_index import SparseIndex

INDEX_MAGIC = b"\x93PLI"
SPARSE_VERSION = 1
INDEX_VERSION = 2
MARK_POSITION = 16
_PREFIX = struct.Struct(">4sH10x")
_MARK = struct.Struct(">QQQ4x")
MARK_BYTES = _MARK.size + CHECKSUM_BYTES
HEADER_COPY_POSITION = MARK_POSITION + MARK_BYTES
_ENTRY = struct.Struct(">QQQ")
_CONTENT_BYTES = _ENTRY.size + ENVELOPE_BYTES
ENTRY_BYTES = _CONTENT_BYTES + CHECKSUM_BYTES
"""The length of an entry, without a marker's control frame."""
_SPARSE_ENTRY = struct.Struct(">QQ16sQ")
_CHECKSUM = struct.Struct(">I")


@frozen
class DurableMark:
    """How far a segment was durable: its file up to position, its offsets up to next_offset.

    Attributes:
        last_noted: where in the index file the last entry stands that is in memory; 0: none is.
    """

    position: int
    next_offset: int
    last_noted: int = 0

    def encode(self, salt: Salt) -> bytes:
        """Return the mark's bytes."""
        fields = _MARK.pack(self.position, self.next_offset, self.last_noted)
        return fields + _CHECKSUM.pack(crc32c(fields, salt.seed))


@frozen
class SparseEntry:
    """An entry of a version 1 index: where one frame stands."""

    offset: int
    position: int
    origin: Origin
    base_sequence: int

    @property
    def length(self) -> int:
        """How many bytes of the index file the entry takes."""
        return _SPARSE_ENTRY.size + CHECKSUM_BYTES


@frozen
class IndexEntry:
    """What the index says of one envelope.

    Attributes:
        position: where in the store file it stands.
        envelope: the envelope.
        log_time: of the frame behind it; 0 where there is none.
        control_frame: the whole frame, if it is a marker.
        noted_before: where in the index file the last noted entry before this one stands; 0: there is none.
    """

    position: int
    envelope: Envelope
    log_time: int
    control_frame: bytes = b""
    noted_before: int = 0

    @property
    def offset(self) -> int:
        """The local offset of its first record."""
        return self.envelope.base_offset

    @property
    def origin(self) -> Origin:
        """Whose records they are."""
        return self.envelope.origin

    @property
    def base_sequence(self) -> int:
        """The sequence of its first record."""
        return self.envelope.base_sequence

    @property
    def end(self) -> int:
        """Where in the store file the next envelope begins."""
        return self.position + ENVELOPE_BYTES + self.envelope.length

    @property
    def length(self) -> int:
        """How many bytes of the index file the entry takes."""
        return ENTRY_BYTES + len(self.control_frame)


@define
class IndexBuilder:
    """Makes the entries of one index file, in their order, and notes some of them in memory.

    Attributes:
        salt: the segment's.
        index: what is in memory.
        end: where in the index file the next entry goes.
        unwritten: the entries that are not in the file yet; they end where the next one begins. At most what the
            segment's frames need: a file that cannot be written to is tried again with each commit.
        last_noted: as in DurableMark.
    """

    salt: Salt
    index: SparseIndex
    end: int
    unwritten: bytearray = field(factory=bytearray)
    last_noted: int = 0

    def add(self, position: int, envelope: Envelope, encoded: bytes, log_time: int, control_frame: bytes = b"") -> None:
        """Add the entry of an envelope, of which encoded are the bytes; in memory it is noted if it uses offsets."""
        noted = envelope.kind in IN_OFFSETS and self.index.add(
            envelope.base_offset, position, envelope.origin, envelope.base_sequence
        )
        self._append(position, encoded, log_time, control_frame)
        if noted:
            self.last_noted = self.end - ENTRY_BYTES - len(control_frame)

    def keep(self, entry: IndexEntry, position: int) -> None:
        """Add an entry of what cannot be read at present. It is not noted: reading never begins at damage."""
        self._append(position, entry.envelope.encode(self.salt), entry.log_time, entry.control_frame)

    def _append(self, position: int, encoded: bytes, log_time: int, control_frame: bytes) -> None:
        content = _ENTRY.pack(position, self.last_noted, log_time) + encoded + control_frame
        self.unwritten += content
        self.unwritten += _CHECKSUM.pack(crc32c(content, self.salt.seed))
        self.end += len(content) + CHECKSUM_BYTES

    @property
    def written(self) -> int:
        """Up to where the index file holds whole entries."""
        return self.end - len(self.unwritten)

    def write_to(self, file: File) -> None:
        """Write what is not in the file yet. Raises OSError: it is tried again with the next."""
        if self.unwritten:
            file.write_at(self.written, [bytes(self.unwritten)])
            self.unwritten.clear()


def entries_begin(header: bytes) -> int:
    """Return where in the index file of a segment with this header its entries begin."""
    return HEADER_COPY_POSITION + len(header)


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


def _read_version(file: File, header: bytes) -> int:
    """Return an index file's version; raises SegmentError if it is not that of the segment with this header."""
    prefix = file.read_at(0, _PREFIX.size)
    magic, version = _PREFIX.unpack(prefix) if len(prefix) == _PREFIX.size else (b"", 0)
    if magic != INDEX_MAGIC or version not in (SPARSE_VERSION, INDEX_VERSION):
        raise SegmentError("no index begins here")
    if file.read_at(HEADER_COPY_POSITION, len(header)) != header:
        raise SegmentError("the index's copy of the segment header is another")
    return int(version)


def is_dense(file: File) -> bool:
    """Tell whether an index file is to have an entry for every envelope; version 1 has not."""
    version: int = _PREFIX.unpack(file.read_at(0, _PREFIX.size))[1]
    return version == INDEX_VERSION


def read_entries(file: File, header: bytes, salt: Salt) -> Iterator[IndexEntry | SparseEntry]:
    """Yield the entries of the index file of the segment that begins with this header.

    Raises:
        SegmentError: at the first that is damaged, or if the file is not this segment's.
    """
    version = _read_version(file, header)
    data = file.read_at(0, file.size())
    place, number = entries_begin(header), 0
    while place < len(data):
        try:
            if version == SPARSE_VERSION:
                entry: IndexEntry | SparseEntry = _sparse_entry(data, place, salt)
            else:
                entry = _entry_at(data, place, salt)
            yield entry
            place += entry.length
        except _DamagedEntry as error:
            raise SegmentError(f"entry {number} of the index {error}") from None
        number += 1


def read_noted_entries(file: File, header: bytes, salt: Salt) -> list[IndexEntry | SparseEntry]:
    """Return the entries of an index file that belong into memory, following their chain; the others are not read.

    Raises:
        SegmentError: as read_entries, or where there is no chain: the store file tells what belongs there.
    """
    if _read_version(file, header) == SPARSE_VERSION:
        return list(read_entries(file, header, salt))
    begin, mark = entries_begin(header), read_mark(file, salt)
    # Without the chain nothing tells which entries are noted: others are of markers, or of what cannot be read.
    if mark is None:
        raise SegmentError("the durable mark cannot be read")
    if not mark.last_noted and file.size() > begin:
        # So it is also while a repair replaces the files.
        raise SegmentError("none of the entries is noted")
    found: list[IndexEntry | SparseEntry] = []
    place = mark.last_noted
    while place:
        try:
            entry = _read_entry(file, place, salt)
        except _DamagedEntry as error:
            raise SegmentError(f"the entry at byte {place} of the index {error}") from None
        if not begin <= entry.noted_before < place and entry.noted_before:
            raise SegmentError(f"the entry at byte {place} of the index is said to follow byte {entry.noted_before}")
        found.append(entry)
        place = entry.noted_before
    found.reverse()
    return found


def read_sound_entries(file: File, header: bytes, salt: Salt) -> Iterator[IndexEntry]:
    """Yield the entries of an index file that match their CRC, stepping over those that do not.

    For a repair, to which each says what stood at a place that cannot be read. Empty for the index of another segment,
    since the CRCs are continued from the salt, and for a version 1 index.
    """
    data = file.read_at(0, file.size())
    place = entries_begin(header)
    while place < len(data):
        try:
            entry = _entry_at(data, place, salt)
        except _DamagedEntry:
            # An entry holds an envelope, which can be found in whatever surrounds it.
            found = find_envelope(data, place + _ENTRY.size + 1, salt)
            if found is None:
                return
            place = found - _ENTRY.size
        else:
            yield entry
            place += entry.length


def entries_between(entries: Sequence[IndexEntry], position: int, end: int) -> Iterator[IndexEntry]:
    """Yield the entries of what stood wholly in the bytes [position, end) of the store file; they are in its order.

    There may be many entries and many such places: only those there are looked at.
    """
    for number in range(bisect_left(entries, position, key=lambda entry: entry.position), len(entries)):
        entry = entries[number]
        if entry.position >= end:
            return
        if entry.end <= end:
            yield entry


class _DamagedEntry(Exception):
    """What is wrong with an entry, in words that follow which it is."""


def _check(data: bytes, place: int, length: int, salt: Salt) -> None:
    end = place + length
    if len(data) < end + CHECKSUM_BYTES:
        _raise_cut(data, place)
    if crc32c(data[place:end], salt.seed) != _CHECKSUM.unpack_from(data, end)[0]:
        raise _DamagedEntry("does not match its CRC")


def _raise_cut(data: bytes, place: int) -> NoReturn:
    raise _DamagedEntry(f"is cut off after {len(data) - place} bytes")


def _entry_at(data: bytes, place: int, salt: Salt) -> IndexEntry:
    # Its CRC covers the envelope with the envelope's own, which need not be checked again.
    envelope = read_unchecked(data, place + _ENTRY.size)
    if envelope is None:
        _raise_cut(data, place)
    length = _CONTENT_BYTES + (envelope.length if envelope.kind in MARKERS else 0)
    _check(data, place, length, salt)
    position, noted_before, log_time = _ENTRY.unpack_from(data, place)
    return IndexEntry(position, envelope, log_time, data[place + _CONTENT_BYTES : place + length], noted_before)


def _read_entry(file: File, place: int, salt: Salt) -> IndexEntry:
    data = file.read_at(place, ENTRY_BYTES)
    envelope = read_unchecked(data, _ENTRY.size)
    if envelope is not None and envelope.kind in MARKERS:
        data = file.read_at(place, ENTRY_BYTES + envelope.length)
    return _entry_at(data, 0, salt)


def _sparse_entry(data: bytes, place: int, salt: Salt) -> SparseEntry:
    _check(data, place, _SPARSE_ENTRY.size, salt)
    offset, position, origin, base_sequence = _SPARSE_ENTRY.unpack_from(data, place)
    return SparseEntry(offset, position, Origin(origin), base_sequence)
