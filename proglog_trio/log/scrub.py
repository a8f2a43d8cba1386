"""The scrub: a slow walk through the whole log that finds damage before a reader does."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from attrs import define

from proglog_trio.errors import SegmentError
from proglog_trio.log.disk import File
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.scanner import SegmentScanner, scan_from
from proglog_trio.log.storage.segment_check import scan, walk_files, whole_segment


@define
class Scrub:
    """One pass through a log, in steps. It blocks on the disk: use it from a worker thread.

    Attributes:
        bytes_read: so far, of store files and indexes.
        _faults: what is left to look at of a segment's header and index, before the rest.
        finished: whether the pass is over.
    """

    catalog: SegmentCatalog
    bytes_read: int = 0
    finished: bool = False
    _files: SegmentFiles | None = None
    _file: File | None = None
    _faults: Generator[DamagedPlace | int, None, None] | None = None
    _walk: SegmentScanner | None = None
    _scan: Iterator[StoredFrame | DamagedPlace] | None = None

    @property
    def segment(self) -> str:
        """Which segment is being read, or was last; empty before the first."""
        return "" if self._files is None else str(self._files.store)

    def step(self, size: int) -> list[tuple[SegmentFiles, DamagedPlace]]:
        """Read about size bytes further and return the damage in them, which the log's registry is told as well.

        Raises:
            OSError: as the disk gives it; the registry is told of what was found before. Once this is closed the pass
                may go on, with the next segment.
        """
        found: list[tuple[SegmentFiles, DamagedPlace]] = []
        try:
            self._read_on(self.bytes_read + size, found)
        finally:
            for files, place in found:
                self.catalog.damage.report(files, place, "scrub")
        return found

    def _read_on(self, goal: int, found: list[tuple[SegmentFiles, DamagedPlace]]) -> None:
        while self.bytes_read < goal and not self.finished:
            if self._walk is None or self._files is None or self._scan is None:
                self._open_next(found)
                continue
            if self._faults is not None:
                self._look_at_files(self._files, self._faults, found)
                continue
            self._walk.end = self.catalog.durable_end(self._files)
            before = self._walk.position
            item = next(self._scan, None)
            self.bytes_read += self._walk.position - before
            if item is None:
                self.close()
            elif isinstance(item, DamagedPlace):
                found.append((self._files, item))

    def _open_next(self, found: list[tuple[SegmentFiles, DamagedPlace]]) -> None:
        files = self.catalog.segments[0] if self._files is None else self.catalog.after(self._files)
        if files is None or files.base_offset > self.catalog.noted_offset:
            self.finished = True
            return
        self._files = files
        after = self.catalog.after(files)
        following = None if after is None else after.base_offset
        try:
            self._file, read = self.catalog.open(files)
            if after is not None:
                self._faults = walk_files(self.catalog.disk, files, self._file)
        except FileNotFoundError as error:
            if files in self.catalog.segments:
                found.append((files, whole_segment(files, str(error), following)))
        except SegmentError as error:
            self.close()
            found.append((files, whole_segment(files, str(error), following)))
        else:
            self._walk = scan_from(self._file, read.header, read.header_length)
            self._scan = scan(self._walk, following)

    def _look_at_files(
        self,
        files: SegmentFiles,
        faults: Generator[DamagedPlace | int, None, None],
        found: list[tuple[SegmentFiles, DamagedPlace]],
    ) -> None:
        try:
            item = next(faults, None)
        except SegmentError as error:
            self.close()
            after = self.catalog.after(files)
            found.append((files, whole_segment(files, str(error), None if after is None else after.base_offset)))
            return
        if item is None:
            self._faults = None
        elif isinstance(item, DamagedPlace):
            found.append((files, item))
        else:
            self.bytes_read += item

    def close(self) -> None:
        """Close the segment that is being read; another step goes on with the next."""
        if self._faults is not None:
            self._faults.close()
        if self._file is not None:
            self._file.close()
        self._file = self._faults = self._walk = self._scan = None
