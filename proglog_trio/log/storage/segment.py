"""Segments on disk: the store file with the frames, and the index file beside it.

A segment is made under temporary names, synced, and renamed, so one that has its name is whole. Its files are named
by the offset of its first record, with 20 digits.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from attrs import Factory, define, frozen

from proglog_trio.errors import SegmentError
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, IN_OFFSETS, NO_ORIGIN, Envelope, EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import HEADER_PREFIX_BYTES, SegmentHeader, header_length
from proglog_trio.log.storage.disk import Disk, File, Identity, NotWritten, SyncFailed, sync, sync_directory
from proglog_trio.log.storage.index import (
    MARK_POSITION,
    DurableMark,
    IndexEntry,
    SparseIndex,
    encode_preamble,
    read_entries,
    read_header_copy,
)
from proglog_trio.log.storage.scanner import DamagedPlace, SegmentWalk

STORE_SUFFIX = ".store"
INDEX_SUFFIX = ".index"
NEW_SUFFIX = ".new"
_STORE_NAME = re.compile(r"(\d{20})\.store")


@frozen
class SegmentFiles:
    """Where the files of one segment are."""

    directory: Path
    base_offset: int

    @property
    def store(self) -> Path:
        """The file with the frames."""
        return self.directory / f"{self.base_offset:020d}{STORE_SUFFIX}"

    @property
    def index(self) -> Path:
        """The file with the sparse index."""
        return self.directory / f"{self.base_offset:020d}{INDEX_SUFFIX}"


def list_segments(disk: Disk, directory: Path) -> list[SegmentFiles]:
    """Return the segments of a directory in the order of their offsets."""
    found = (_STORE_NAME.fullmatch(name) for name in disk.list_directory(directory))
    return [SegmentFiles(directory, base) for base in sorted(int(match.group(1)) for match in found if match)]


@frozen
class PendingFrame:
    """A frame that is to be written: what its envelope needs besides the place.

    Attributes:
        buffers: the portable frame, in one or more pieces.
    """

    kind: EnvelopeKind
    base_offset: int
    origin: Origin
    base_sequence: int
    count: int
    buffers: tuple[bytes, ...]

    @property
    def length(self) -> int:
        """The portable frame's length in bytes."""
        return sum(map(len, self.buffers))

    @property
    def stored_bytes(self) -> int:
        """What it takes in the store file, its envelope included."""
        return ENVELOPE_BYTES + self.length


def bare_envelope(kind: EnvelopeKind, base_offset: int) -> PendingFrame:
    """Return an envelope with no frame behind it."""
    return PendingFrame(kind, base_offset, NO_ORIGIN, 0, 0, ())


@frozen
class ReadSegment:
    """What reading a segment needs besides its store file.

    Attributes:
        header: decoded.
        header_bytes: as they are in the store file, which begins with them.
        index: where to begin.
    """

    header: SegmentHeader
    header_bytes: bytes
    index: SparseIndex


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
    _index_position: int
    identity: Identity
    index_error: OSError | None = None
    # Bounded by the index's interval and the segment's size.
    _unwritten: list[bytes] = Factory(list)

    @classmethod
    def create(cls, disk: Disk, directory: Path, header: SegmentHeader, index_interval_bytes: int) -> Self:
        """Make an empty segment, durable on return.

        Raises:
            NotWritten: there is no such segment; it may be tried again.
            OSError: it is not known whether there is one.
        """
        files = SegmentFiles(directory, header.base_offset)
        data = header.encode()
        new_store = files.store.with_suffix(NEW_SUFFIX)
        try:
            with ExitStack() as on_failure:
                index_file, index_position = write_index(
                    disk, files, data, header, DurableMark(len(data), header.base_offset), []
                )
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
            for leftover in (new_store, files.index, new_index_path(files)):
                # What stays does no harm: the next attempt writes over it, and the next opening removes it.
                with suppress(OSError):
                    disk.remove(leftover)
            raise NotWritten(*error.args) from error
        read = ReadSegment(header, data, SparseIndex(index_interval_bytes))
        return cls(files, read, len(data), header.base_offset, store, index_file, index_position, identity)

    def commit(self, frames: Sequence[PendingFrame]) -> None:
        """Write frames and return when they are durable.

        Raises:
            NotWritten: the write failed, what was written of it is cut off again, and that is durable.
            OSError: it is not known what is on the disk; nothing of them may be served, and the segment must not be
                written to any more.
        """
        salt = self.read.header.salt
        buffers: list[bytes] = []
        entries: list[IndexEntry] = []
        position = self.position
        for frame in frames:
            length = frame.length
            envelope = Envelope(
                frame.kind, length, frame.base_offset, frame.origin, frame.base_sequence, frame.count, self.position
            )
            buffers.append(envelope.encode(salt))
            buffers.extend(frame.buffers)
            if frame.kind in IN_OFFSETS:
                entries.append(IndexEntry(frame.base_offset, position, frame.origin, frame.base_sequence))
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
        self._note(entries)

    def _note(self, entries: Sequence[IndexEntry]) -> None:
        """Add to the index what was committed, and move the durable mark."""
        salt = self.read.header.salt
        self._unwritten += [entry.encode(salt) for entry in entries if self.read.index.add(entry)]
        if self._index_file is None:
            return
        try:
            if self._unwritten:
                self._index_file.write_at(self._index_position, self._unwritten)
                self._index_position += sum(map(len, self._unwritten))
                self._unwritten.clear()
            mark = DurableMark(self.position, self.next_offset)
            self._index_file.write_at(MARK_POSITION, [mark.encode(salt)])
            self.index_error = None
        except OSError as error:
            self.index_error = error

    def take_index(self, index_file: File, index_position: int) -> None:
        """Take the index file, which opening could not write before."""
        self._index_file, self._index_position = index_file, index_position

    def finish(self) -> None:
        """Sync the index file and close both; the store is durable already."""
        try:
            if self.index_error is not None:
                # There may be room again. What is half written is cut off otherwise: it would pass for damage.
                self._note(())
            if self._index_file is not None:
                if self.index_error is not None:
                    self._index_file.truncate(self._index_position)
                self._index_file.sync()
        except OSError as error:
            self.index_error = error
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
    header: SegmentHeader,
    mark: DurableMark,
    entries: Sequence[IndexEntry],
) -> tuple[File, int]:
    """Make a segment's index file anew; return it open, and its length. Durable but for its directory entry."""
    preamble = encode_preamble(mark, header_bytes, header.salt)
    encoded = b"".join(entry.encode(header.salt) for entry in entries)
    temporary = new_index_path(files)
    file = disk.create(temporary)
    try:
        file.write_at(0, [preamble, encoded])
        sync(file)
        disk.rename(temporary, files.index)
    except BaseException:
        file.close()
        raise
    return file, len(preamble) + len(encoded)


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
        try:
            for entry in read_entries(index_file, header_bytes, header.salt):
                index.add(entry)
            return ReadSegment(header, header_bytes, index)
        except SegmentError:
            index = SparseIndex(index_interval_bytes)
        finally:
            index_file.close()
    walk = SegmentWalk(store, header.salt, len(header_bytes), header.base_offset)
    while (found := walk.step()) is not None:
        if not isinstance(found, DamagedPlace) and found.envelope.kind in IN_OFFSETS:
            envelope = found.envelope
            index.add(IndexEntry(envelope.base_offset, found.position, envelope.origin, envelope.base_sequence))
    return ReadSegment(header, header_bytes, index)
