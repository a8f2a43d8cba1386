"""Dumping a data directory: what stands in it, in the order of the log, readable or not. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from proglog_trio.errors import DataDirectoryError, SegmentError
from proglog_trio.log.disk import Disk, File, OperatingSystemDisk
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.inspect.segments import open_each, segments_of
from proglog_trio.log.storage.scanner import scan_from
from proglog_trio.log.storage.segment import read_segment_header


@frozen
class DumpedSegment:
    """The beginning of a segment.

    Attributes:
        header: decoded, or None if neither of its copies can be read.
        detail: what is wrong with it, if anything.
    """

    files: SegmentFiles
    header: SegmentHeader | None
    detail: str | None


@frozen
class DumpedEntry:
    """What stands at one place of a segment: a frame, a bare envelope, or damage."""

    files: SegmentFiles
    found: StoredFrame | DamagedPlace


def dump_directory(
    directory: Path, *, from_offset: int = 0, to_offset: int | None = None, disk: Disk | None = None
) -> Iterator[DumpedSegment | DumpedEntry]:
    """Yield what stands in a data directory.

    Args:
        directory: the data directory; a node may be writing to it.
        from_offset: leave out what ends at or before this offset.
        to_offset: leave out what begins at or after this offset; None: nothing.
        disk: None: the real one.

    Raises:
        DataDirectoryError: there is no log, it is of a newer format, or it cannot be read.
    """
    disk = disk if disk is not None else OperatingSystemDisk()
    segments = segments_of(disk, directory)
    ends = [*(files.base_offset for files in segments[1:]), None]
    wanted = [
        files
        for files, end in zip(segments, ends, strict=True)
        if (end is None or end > from_offset) and (to_offset is None or files.base_offset < to_offset)
    ]
    try:
        for files, store, _ in open_each(disk, wanted):
            yield from _dump_segment(disk, files, store, from_offset, to_offset)
    except OSError as error:
        raise DataDirectoryError(f"{directory} cannot be read: {error}") from None


def _dump_segment(
    disk: Disk, files: SegmentFiles, store: File, from_offset: int, to_offset: int | None
) -> Iterator[DumpedSegment | DumpedEntry]:
    try:
        header, header_bytes, detail = read_segment_header(disk, files, store)
    except SegmentError as error:
        yield DumpedSegment(files, None, str(error))
        return
    yield DumpedSegment(files, header, detail)
    scanner = scan_from(store, header, len(header_bytes))
    while (found := scanner.step()) is not None:
        begin = found.expected_offset if isinstance(found, DamagedPlace) else found.base_offset
        if to_offset is not None and begin >= to_offset:
            return
        end = begin if found.next_offset is None else found.next_offset
        if end > from_offset or (end == begin and begin >= from_offset):
            yield DumpedEntry(files, found)
