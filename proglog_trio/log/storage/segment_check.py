"""Everything that can be wrong with a closed segment, not only what a scanner stumbles over.

A scanner names bytes that cannot be read. A file that ends between two frames, or lacks the middle, reads well and
still does not hold the offsets that it must: those are named here, and so is a header or an index that only its copy
saves.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from contextlib import closing

from attrs import evolve

from proglog_trio.errors import SegmentError
from proglog_trio.log.disk import Disk, File
from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.storage.index import is_dense, read_entries, read_mark
from proglog_trio.log.storage.scanner import SegmentScanner
from proglog_trio.log.storage.segment import read_segment_header


def scan(scanner: SegmentScanner, following_offset: int | None) -> Iterator[StoredFrame | DamagedPlace]:
    """Yield what a scanner gives, and as damaged places without bytes the offsets that are not in the file.

    Args:
        scanner: at the segment's beginning.
        following_offset: the offset at which the next segment begins; None: there is none, the end may be anywhere.
    """
    expected = scanner.expected_offset
    while (item := scanner.step()) is not None:
        if isinstance(item, DamagedPlace):
            if item.next_offset is None and following_offset is not None:
                item = evolve(item, next_offset=following_offset)
            expected = item.next_offset if item.next_offset is not None else expected
        else:
            if item.base_offset > expected and item.envelope.kind is not EnvelopeKind.REOPENED:
                yield offsets_not_in_file(item.position, expected, item.base_offset)
            expected = item.next_offset
        yield item
    if following_offset is not None and expected < following_offset:
        yield offsets_not_in_file(scanner.position, expected, following_offset)


def offsets_not_in_file(position: int, from_offset: int, to_offset: int) -> DamagedPlace:
    """Return the damaged place of offsets for which a segment's file has no bytes at all."""
    detail = f"offsets {from_offset} to {to_offset - 1} are not in the file"
    return DamagedPlace(position, position, None, from_offset, to_offset, detail)


def whole_segment(files: SegmentFiles, detail: str, following_offset: int | None) -> DamagedPlace:
    """Return the damaged place that is a whole segment."""
    return DamagedPlace(0, 0, None, files.base_offset, following_offset, f"the whole segment: {detail}")


def file_faults(disk: Disk, files: SegmentFiles, store: File) -> list[DamagedPlace]:
    """Return what is wrong with a closed segment's header and index where no record is lost by it.

    Raises:
        SegmentError: no copy of the header can be read.
        OSError: as the disk gives it.
    """
    return [found for found in walk_files(disk, files, store) if isinstance(found, DamagedPlace)]


def walk_files(disk: Disk, files: SegmentFiles, store: File) -> Generator[DamagedPlace | int, None, None]:
    """Yield what file_faults returns, and for each entry of the index how many bytes it has; raises as that does."""
    header, header_bytes, fault = read_segment_header(disk, files, store)
    if fault is not None:
        said = f"{fault}; the copy in the index file is right"
        yield DamagedPlace(0, len(header_bytes), None, files.base_offset, files.base_offset, said)
    try:
        index = disk.open(files.index)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        # It was removed, and can be made anew. One that holds something else is the disk's fault, and damage.
        yield DamagedPlace(
            0, 0, None, files.base_offset, files.base_offset, "the index file is missing", is_missing_index=True
        )
        return
    with closing(index):
        try:
            for entry in read_entries(index, header_bytes, header.salt):
                yield entry.length
            mark = read_mark(index, header.salt)
            if mark is None:
                raise SegmentError("its durable mark cannot be read")
            if mark.position < store.size() and is_dense(index):
                # There was no room for the last entries, or they were not synced; a repair would miss them.
                detail = "the index file lacks its end"
                yield DamagedPlace(0, 0, None, files.base_offset, files.base_offset, detail, is_missing_index=True)
        except SegmentError as error:
            detail = f"the index file: {error}"
            yield DamagedPlace(0, 0, None, files.base_offset, files.base_offset, detail)
