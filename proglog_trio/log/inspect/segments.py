"""The segments of a data directory that a node may be writing to, opened one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.disk import Disk, File
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.recovery import LOG_DIRECTORY
from proglog_trio.log.storage.segment import list_segments


def segments_of(disk: Disk, directory: Path) -> list[SegmentFiles]:
    """Return the segments of a data directory in the order of their offsets, at least one.

    Raises:
        DataDirectoryError: there is none.
    """
    try:
        segments = list_segments(disk, directory / LOG_DIRECTORY)
    except OSError as error:
        raise DataDirectoryError(f"{directory} holds no log: {error}") from None
    if not segments:
        raise DataDirectoryError(f"{directory} holds no log: there is no segment in it")
    return segments


def size_of_all(disk: Disk, segments: Sequence[SegmentFiles]) -> int:
    """Return how many bytes their store files have; one that retention of a running node removed has none."""
    size = 0
    for files in segments:
        with suppress(FileNotFoundError):
            size += disk.size_of(files.store)
    return size


def open_each(disk: Disk, segments: Sequence[SegmentFiles]) -> Iterator[tuple[SegmentFiles, File, int | None]]:
    """Yield each segment that is still there with its store file, closed afterwards, and where the next one begins.

    That is an offset, or None for the newest.

    Raises:
        DataDirectoryError: a store file cannot be opened.
    """
    for number, files in enumerate(segments):
        following = segments[number + 1].base_offset if number + 1 < len(segments) else None
        try:
            store = disk.open(files.store)
        except FileNotFoundError:
            continue  # Retention of a running node removed it meanwhile.
        except OSError as error:
            raise DataDirectoryError(str(error)) from None
        with closing(store):
            yield files, store, following
