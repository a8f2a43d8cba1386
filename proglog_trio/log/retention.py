"""Retention: which of the oldest segments may go, and removing their files.

Age is running time (see running_time.py): a segment goes when nodes have run for so long since the one after it was
begun. Log times, wall clocks and the times of files can all be wrong; none of them makes anything go.
"""

from __future__ import annotations

from collections.abc import Sequence

from proglog_trio.errors import DataDirectoryError, SegmentError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.running_time import RunningTime


def removable(
    catalog: SegmentCatalog, config: LogConfig, running_time: RunningTime
) -> tuple[int, SegmentHeader] | None:
    """Return how many of the oldest segments may go, and the header of the one that is then the oldest.

    A segment goes when those after it hold retention_bytes, or when one after it was begun retention_age of running
    time ago: then so was everything in it stored. A header that cannot be read, or does not tell, is passed over: the
    next one that does serves, which is later and so more cautious. The newest that is noted as durable stays:
    what stands in one that has just been begun the log does not know yet. Blocks.

    Args:
        catalog: the segments.
        config: the limits.
        running_time: the directory's.

    Raises:
        OSError: as the disk gives it, for sizes of files.
    """
    segments = catalog.noted_segments
    count = _removable_by_bytes(catalog, config, segments)
    if config.retention_age is not None:
        begun_by = running_time.milliseconds() - config.retention_age * 1000
        for place in range(count + 1, len(segments)):
            header = _header(catalog, segments[place])
            begun = None if header is None else running_time.begun(header)
            if begun is None:
                continue
            if begun > begun_by:
                break
            count = place
    while count > 0:
        header = _header(catalog, segments[count])
        if header is not None:
            return count, header
        # Its snapshot is needed to tell what is retired; so the one before it stays.
        count -= 1
    return None


def is_due_to_roll(catalog: SegmentCatalog, config: LogConfig, running_time: RunningTime) -> bool:
    """Tell whether another segment should be begun, so that the records of a quiet log grow old too.

    A segment goes retention_age after the next was begun; so what is stored is gone after one and a half times
    retention_age of running time, and a look or two.
    """
    if config.retention_age is None:
        return False
    begun = running_time.begun(catalog.active.read.header)
    return begun is None or running_time.milliseconds() - begun > config.retention_age * 1000 / 2


def overdue_milliseconds(catalog: SegmentCatalog, config: LogConfig, wall_milliseconds: int) -> int:
    """Return by how much the oldest closed segment is older than it may get by the wall clock; 0 if it is not. Blocks.

    It is still there: so nodes have not run for so long since, or one of the wall clocks is or was wrong.
    """
    if config.retention_age is None:
        return 0
    for files in catalog.noted_segments[1:]:
        header = _header(catalog, files)
        if header is not None:
            return max(wall_milliseconds - header.created - int(config.retention_age * 1000), 0)
    return 0


def _removable_by_bytes(catalog: SegmentCatalog, config: LogConfig, segments: Sequence[SegmentFiles]) -> int:
    if config.retention_bytes is None:
        return 0
    sizes = [_size(catalog, files) for files in segments]
    kept = sum(sizes)
    count = 0
    while count + 1 < len(segments) and kept - sizes[count] >= config.retention_bytes:
        kept -= sizes[count]
        count += 1
    return count


def _size(catalog: SegmentCatalog, files: SegmentFiles) -> int:
    """Return the size of a segment's files in bytes; a file that is not there has none."""
    size = 0
    for path in (files.store, files.index):
        try:
            size += catalog.disk.size_of(path)
        except FileNotFoundError:
            continue
    return size


def _header(catalog: SegmentCatalog, files: SegmentFiles) -> SegmentHeader | None:
    """Return a segment's header; None if it cannot be read, whatever is wrong: that must not stop retention for ever.

    Readers of the segment say what is wrong with it, and so does the scrub.
    """
    try:
        return catalog.load(files).header
    except (SegmentError, DataDirectoryError, OSError):
        return None


def remove_files(catalog: SegmentCatalog, forgotten: Sequence[SegmentFiles]) -> None:
    """Remove the files of segments that the log has forgotten, oldest first. Blocks; raises OSError."""
    for files in forgotten:
        with catalog.files_lock:
            for path in (files.store, files.index):
                try:
                    catalog.disk.remove(path)
                except FileNotFoundError:
                    # An index is a hint, a segment may be without; and the store may not be there either.
                    continue
        # One after the other, or a crash could leave an older segment and take a newer one.
        catalog.disk.sync_directory(files.directory)
