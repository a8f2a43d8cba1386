"""Dumping a data directory: what stands in it, in the order of the log, readable or not. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from proglog_trio.errors import DataDirectoryError, SegmentError
from proglog_trio.log.disk import Disk, OperatingSystemDisk
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.recovery import LOG_DIRECTORY
from proglog_trio.log.storage.scanner import scan_from
from proglog_trio.log.storage.segment import list_segments, read_segment_header


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
    try:
        segments = list_segments(disk, directory / LOG_DIRECTORY)
        for place, files in enumerate(segments):
            ends_before = place + 1 < len(segments) and segments[place + 1].base_offset <= from_offset
            if ends_before or (to_offset is not None and files.base_offset >= to_offset):
                continue
            yield from _dump_segment(disk, files, from_offset, to_offset)
    except OSError as error:
        raise DataDirectoryError(f"{directory} cannot be read: {error}") from None
    if not segments:
        raise DataDirectoryError(f"{directory} holds no log: there is no segment in it")


def _dump_segment(
    disk: Disk, files: SegmentFiles, from_offset: int, to_offset: int | None
) -> Iterator[DumpedSegment | DumpedEntry]:
    store = disk.open(files.store)
    try:
        try:
            header, header_bytes, detail = read_segment_header(disk, files, store)
        except SegmentError as error:
            yield DumpedSegment(files, None, str(error))
            return
        yield DumpedSegment(files, header, detail)
        scanner = scan_from(store, header, header_bytes)
        while (found := scanner.step()) is not None:
            begin = found.expected_offset if isinstance(found, DamagedPlace) else found.base_offset
            if to_offset is not None and begin >= to_offset:
                return
            end = begin if found.next_offset is None else found.next_offset
            if end > from_offset or (end == begin and begin >= from_offset):
                yield DumpedEntry(files, found)
    finally:
        store.close()
