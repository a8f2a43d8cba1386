"""Retention: which of the oldest segments may go, and removing their files."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SegmentError
from .catalog import SegmentCatalog
from .config import LogConfig
from .segment import SegmentFiles
from .segment_header import SegmentHeader


def removable(catalog: SegmentCatalog, config: LogConfig, now: int) -> tuple[int, SegmentHeader] | None:
    """Return how many of the oldest segments may go, and the header of the one that is then the oldest.

    A segment goes when those after it hold retention_bytes, or when the one after it was begun more than
    retention_seconds ago: then so was everything in it stored. The newest that the log has taken note of stays: what
    stands in one that has just been begun the log does not know yet. Blocks.

    Args:
        catalog: the segments.
        config: the limits.
        now: wall-clock milliseconds.

    Raises:
        OSError: as the disk gives it.
    """
    segments = catalog.noted_segments
    count = _removable_by_bytes(catalog, config, segments)
    if config.retention_seconds is not None:
        oldest_kept = now - int(config.retention_seconds * 1000)
        while count + 1 < len(segments) and _begun(catalog, segments[count + 1]) <= oldest_kept:
            count += 1
    while count > 0:
        try:
            return count, catalog.load(segments[count]).header
        except (SegmentError, FileNotFoundError):
            # Its snapshot is needed to tell what is gone; so the one before it stays.
            count -= 1
    return None


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
    """Return the size of a segment's store file in bytes; one that somebody removed has none."""
    try:
        return catalog.disk.size_of(files.store)
    except FileNotFoundError:
        return 0


def _begun(catalog: SegmentCatalog, files: SegmentFiles) -> int:
    """Return when a segment was begun, in wall-clock milliseconds; an unreadable one counts as begun just now."""
    try:
        return catalog.load(files).header.created
    except (SegmentError, FileNotFoundError):
        return 1 << 62


def remove_files(catalog: SegmentCatalog, forgotten: Sequence[SegmentFiles]) -> None:
    """Remove the files of segments that the log has forgotten, oldest first. Blocks; raises OSError."""
    for files in forgotten:
        with catalog.files_lock:
            for path in (files.store, files.index):
                try:
                    catalog.disk.remove(path)
                except FileNotFoundError:
                    # An index is a hint, a segment may be without; and somebody may have removed the store.
                    continue
        # One after the other, or a crash could leave an older segment and take a newer one.
        catalog.disk.sync_directory(files.directory)
