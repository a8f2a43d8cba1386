"""Segments on disk: the store file with the frames, and the index file beside it.

A segment is made under temporary names, synced, and renamed, so one that has its name is whole. Its files are named
by the offset of its first record, with 20 digits.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Self

from attrs import define, evolve, frozen

from proglog_trio.errors import SegmentError
from proglog_trio.log.disk import Disk, File, Identity, NotWritten, SyncFailed, sync, sync_directory
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, IN_OFFSETS, MARKERS, Envelope
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.segment_files import INDEX_SUFFIX, STORE_SUFFIX, SegmentFiles
from proglog_trio.log.format.segment_header import HEADER_PREFIX_BYTES, SegmentHeader, header_length
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.storage.index import (
    MARK_POSITION,
    DurableMark,
    IndexBuilder,
    encode_preamble,
    entries_begin,
    read_header_copy,
    read_mark,
    read_noted_entries,
)
from proglog_trio.log.storage.scanner import scan_from
from proglog_trio.log.storage.sparse_index import SparseIndex

NEW_SUFFIX = ".new"
_UNFINISHED_ENTRY = b"\0"
_FILE_NAME = re.compile(r"(\d{20})(\.store|\.index)")


def list_segments(disk: Disk, directory: Path) -> list[SegmentFiles]:
    """Return the segments of a directory that have a store file, in the order of their offsets."""
    return [SegmentFiles(directory, base) for base in _bases(disk, directory, STORE_SUFFIX)]


def list_damaged_too(disk: Disk, directory: Path) -> list[SegmentFiles]:
    """Return the segments of a directory in the order of their offsets, also those whose store files are damaged away.

    Of these there is the index, between two store files, and it tells of a commit. Any other is what retention, or the
    making of a segment, did not come to the end with: its offsets may stand in the segment before. Raises OSError.
    """
    stores = _bases(disk, directory, STORE_SUFFIX)
    indexes = [
        base
        for base in _bases(disk, directory, INDEX_SUFFIX)
        if stores
        and stores[0] < base < stores[-1]
        and base not in stores
        and _tells_of_commit(disk, SegmentFiles(directory, base))
    ]
    return [SegmentFiles(directory, base) for base in sorted({*stores, *indexes})]


def _tells_of_commit(disk: Disk, files: SegmentFiles) -> bool:
    """Tell whether a segment's index shows that anything was ever written to the segment."""
    with closing(disk.open(files.index)) as file, suppress(SegmentError):
        data = read_header_copy(file)
        if file.size() > entries_begin(data):
            return True
        mark = read_mark(file, decode_header(data, files).salt)
        return mark is not None and mark.next_offset > files.base_offset
    return False


def _bases(disk: Disk, directory: Path, suffix: str) -> list[int]:
    found = (_FILE_NAME.fullmatch(name) for name in disk.list_directory(directory))
    return sorted(int(match[1]) for match in found if match and match[2] == suffix)


@frozen
class ReadSegment:
    """What reading a segment needs besides its store file.

    Attributes:
        header: decoded, without its producer table: that is for opening alone, and may be as large as the segment.
        header_length: how many bytes of the store file it takes.
        index: where to begin.
    """

    header: SegmentHeader
    header_length: int
    index: SparseIndex

    @classmethod
    def of_header(cls, header: SegmentHeader, header_bytes: bytes, index: SparseIndex) -> Self:
        """Return what is to be kept of a header, its bytes, and an index."""
        return cls(evolve(header, producers=[]), len(header_bytes), index)


@define
class ActiveSegment:
    """The segment that is written to.

    Attributes:
        files: where it is.
        read: its header and its index in memory.
        position: where the next envelope will stand; everything before is durable.
        next_offset: the offset after the last durable record.
        identity: which file the store is.
        index_error: why the index file lacks something that will be written to it with the next commit, or when there
            is none: the store is not affected.
    """

    files: SegmentFiles
    read: ReadSegment
    position: int
    next_offset: int
    _store: File
    _index_file: File | None
    _entries: IndexBuilder
    identity: Identity
    index_error: OSError | None = None

    @classmethod
    def create(cls, disk: Disk, directory: Path, header: SegmentHeader, index_interval_bytes: int) -> Self:
        """Make an empty segment, durable on return.

        Raises:
            NotWritten: there is no such segment; it may be tried again.
            OSError: it is not known whether there is one.
        """
        files = SegmentFiles(directory, header.base_offset)
        data = header.encode()
        entries = IndexBuilder(header.salt, SparseIndex(index_interval_bytes), entries_begin(data))
        new_store = files.store.with_suffix(NEW_SUFFIX)
        try:
            with ExitStack() as on_failure:
                index_file = write_index(disk, files, data, entries, len(data), header.base_offset)
                on_failure.callback(index_file.close)
                store = disk.create(new_store)
                on_failure.callback(store.close)
                store.write_at(0, [data])
                sync(store)
                identity = store.identity()
                disk.rename(new_store, files.store)
                sync_directory(disk, directory)
                on_failure.pop_all()
        except SyncFailed:
            raise
        except OSError as error:
            # The renaming of the store comes last of what may fail so.
            for leftover in (new_store, new_index_path(files)):
                # What stays does no harm: the next attempt writes over it, and the next opening removes it.
                with suppress(OSError):
                    disk.remove(leftover)
            try:
                with suppress(FileNotFoundError):
                    disk.remove(files.index)
            except OSError as another:
                # A log that went on would have it between two of its segments.
                error.add_note(f"the index of the unfinished segment could not be removed: {another}")
                raise error from None
            raise NotWritten(*error.args) from error
        read = ReadSegment.of_header(header, data, entries.index)
        return cls(files, read, len(data), header.base_offset, store, index_file, entries, identity)

    def commit(self, frames: Sequence[PendingFrame]) -> None:
        """Write frames and return when they are durable.

        Raises:
            NotWritten: the write failed, what was written of it is cut off again, and that is durable.
            OSError: it is not known what is on the disk; nothing of them may be served, and the segment must not be
                written to any more.
        """
        salt = self.read.header.salt
        buffers: list[bytes] = []
        noted: list[tuple[int, Envelope, bytes, PendingFrame]] = []
        position = self.position
        for frame in frames:
            length = frame.length
            envelope = Envelope(
                frame.kind, length, frame.base_offset, frame.origin, frame.base_sequence, frame.count, self.position
            )
            encoded = envelope.encode(salt)
            buffers.append(encoded)
            buffers.extend(frame.buffers)
            noted.append((position, envelope, encoded, frame))
            position += ENVELOPE_BYTES + length
        try:
            self._store.write_at(self.position, buffers)
        except OSError as error:
            # After a failed write the file may be cut back to what was durable; after a failed sync nothing is known
            # of what the kernel still holds, and the file is left alone.
            try:
                self._store.truncate(self.position)
                sync(self._store)
            except OSError as another:
                error.add_note(f"the unfinished bytes could not be cut off: {another}")
                raise error from None
            raise NotWritten(*error.args) from error
        sync(self._store)
        self.position = position
        if frames:
            self.next_offset = frames[-1].base_offset + frames[-1].count
        # Only now: the index must not tell of what is not durable.
        for place, envelope, encoded, frame in noted:
            control_frame = frame.buffers[0] if frame.kind in MARKERS else b""
            self._entries.add(place, envelope, encoded, frame.log_time, control_frame)
        self._write_index()

    def _write_index(self) -> None:
        """Write the new entries, and move the durable mark."""
        if self._index_file is None:
            return
        try:
            self._entries.write_to(self._index_file)
            mark = DurableMark(self.position, self.next_offset, self._entries.last_noted)
            # After the entries, which it may point to.
            self._index_file.write_at(MARK_POSITION, [mark.encode(self.read.header.salt)])
            self.index_error = None
        except OSError as error:
            self.index_error = error

    def opened(self, index_file: File, position: int, next_offset: int) -> None:
        """Go on behind what opening has written: the index file, and the end of the store file."""
        self._index_file, self.position, self.next_offset = index_file, position, next_offset

    def sync_index(self) -> None:
        """Write what the index file lacks, and sync it; index_error says why that was not possible."""
        try:
            if self.index_error is not None:
                # There may be room again. What is half written is cut off otherwise: it would pass for damage.
                self._write_index()
            if self._index_file is not None:
                if self.index_error is not None:
                    self._index_file.truncate(self._entries.written)
                self._index_file.sync()
        except OSError as error:
            self.index_error = error

    def finish(self) -> None:
        """Sync the index file and close both; the store is durable already."""
        try:
            self.sync_index()
        finally:
            self.close()

    def close(self) -> None:
        """Close both files as they are."""
        if self._index_file is not None:
            self._index_file.close()
        self._store.close()


def new_index_path(files: SegmentFiles) -> Path:
    """Return what a segment's index is called until it is whole."""
    return files.index.with_name(files.index.name + NEW_SUFFIX)


def write_index(
    disk: Disk,
    files: SegmentFiles,
    header_bytes: bytes,
    entries: IndexBuilder,
    position: int,
    next_offset: int,
    *,
    settled: bool = True,
) -> File:
    """Make a segment's index file anew and return it open, durable but for its directory entry. Raises OSError.

    Args:
        disk: the file system.
        files: the segment.
        header_bytes: its header.
        entries: all that go into the file; they may be written again if this fails.
        position: of the durable mark.
        next_offset: likewise.
        settled: otherwise it ends in an unfinished entry: no reader of the segment uses it, and a repair does.
    """
    mark = DurableMark(position, next_offset, entries.last_noted if settled else 0)
    temporary = new_index_path(files)
    file = disk.create(temporary)
    try:
        preamble = encode_preamble(mark, header_bytes, entries.salt)
        file.write_at(0, [preamble, bytes(entries.unwritten), b"" if settled else _UNFINISHED_ENTRY])
        sync(file)
        disk.rename(temporary, files.index)
    except BaseException:
        file.close()
        raise
    return file


def read_segment_header(disk: Disk, files: SegmentFiles, store: File) -> tuple[SegmentHeader, bytes, str | None]:
    """Return a segment's header, its bytes, and what is wrong with the store's own copy if the index's had to serve.

    Raises:
        SegmentError: neither copy can be read.
        DataDirectoryError: the format is newer than this program.
    """
    try:
        data = store.read_at(0, header_length(store.read_at(0, HEADER_PREFIX_BYTES)))
        return decode_header(data, files), data, None
    except SegmentError as error:
        try:
            index_file = disk.open(files.index)
        except FileNotFoundError:
            raise error from None
        try:
            data = read_header_copy(index_file)
            return decode_header(data, files), data, str(error)
        except SegmentError:
            raise error from None
        finally:
            index_file.close()


def decode_header(data: bytes, files: SegmentFiles) -> SegmentHeader:
    """Return the header of these bytes; raises SegmentError if it is damaged, or another segment's."""
    header = SegmentHeader.decode(data)
    if header.base_offset != files.base_offset:
        raise SegmentError(f"the header says base offset {header.base_offset}, the file's name {files.base_offset}")
    return header


def load_segment(disk: Disk, files: SegmentFiles, store: File, index_interval_bytes: int) -> ReadSegment:
    """Return what reading a closed segment needs; an index that is missing or damaged is made anew in memory.

    Raises:
        SegmentError: the header cannot be read.
    """
    header, header_bytes, _ = read_segment_header(disk, files, store)
    index = SparseIndex(index_interval_bytes)
    try:
        index_file = disk.open(files.index)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    else:
        with closing(index_file), suppress(SegmentError):
            for entry in read_noted_entries(index_file, header_bytes, header.salt):
                index.add(entry.offset, entry.position, entry.origin, entry.base_sequence)
            return ReadSegment.of_header(header, header_bytes, index)
    scanner = scan_from(store, header, len(header_bytes))
    while (found := scanner.step()) is not None:
        if not isinstance(found, DamagedPlace) and found.envelope.kind in IN_OFFSETS:
            envelope = found.envelope
            index.add(envelope.base_offset, found.position, envelope.origin, envelope.base_sequence)
    return ReadSegment.of_header(header, header_bytes, index)
