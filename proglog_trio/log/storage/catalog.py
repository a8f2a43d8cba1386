"""The segments of a log, shared by the thread that writes and those that read."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import Factory, define, field

from proglog_trio.errors import SegmentError
from proglog_trio.log.disk import Disk, File
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.storage.damage_registry import DamageRegistry
from proglog_trio.log.storage.segment import ActiveSegment, ReadSegment, load_segment

LOADED_SEGMENTS = 32
"""How many closed segments' headers and indexes are kept in memory."""


@define
class SegmentCatalog:
    """Which segments there are, and how to read them. Any thread may use it.

    Attributes:
        segments: in the order of their offsets; the last is the active one.
        active: the segment that is written to.
        noted_offset: the base offset of the newest segment that the log has taken note of. The writer may be ahead of
            that; what the log says that it holds, it is not.
        damage: what is known not to be readable.
        files_lock: held while files of closed segments are replaced or removed, so that a repair cannot bring a
            segment back that retention removes at the same time.
        repair_lock: held while a repair writes: one at a time.
    """

    disk: Disk
    index_interval_bytes: int
    segments: tuple[SegmentFiles, ...]
    active: ActiveSegment
    damage: DamageRegistry = Factory(DamageRegistry)
    noted_offset: int = field(init=False)
    files_lock: threading.Lock = Factory(threading.Lock)
    repair_lock: threading.Lock = Factory(threading.Lock)
    _loaded: OrderedDict[int, ReadSegment] = Factory(OrderedDict)
    # Per segment whose files were replaced how often; odd while it happens.
    _replaced: dict[int, int] = Factory(dict)
    _lock: threading.Lock = Factory(threading.Lock)

    @noted_offset.default
    def _noted_at_first(self) -> int:
        return self.segments[-1].base_offset

    @property
    def noted_segments(self) -> tuple[SegmentFiles, ...]:
        """The segments that the log has taken note of, at least one: what removes or judges any keeps to these."""
        segments = self.segments
        return segments[: bisect_right(segments, self.noted_offset, key=lambda files: files.base_offset)]

    def make_active(self, active: ActiveSegment) -> None:
        """Take a new segment, which is written to from now on."""
        with self._lock:
            self.segments = (*self.segments, active.files)
            self.active = active

    def forget(self, count: int) -> tuple[SegmentFiles, ...]:
        """Take the oldest segments out and return them; never the newest that the log has taken note of."""
        with self._lock:
            count = min(count, len(self.noted_segments) - 1)
            forgotten = self.segments[:count]
            self.segments = self.segments[count:]
            for files in forgotten:
                self._loaded.pop(files.base_offset, None)
                self._replaced.pop(files.base_offset, None)
        return forgotten

    def containing(self, offset: int) -> SegmentFiles:
        """Return the segment in which an offset stands, or would; the oldest for one below all."""
        segments = self.segments
        found = bisect_right(segments, offset, key=lambda files: files.base_offset) - 1
        return segments[max(found, 0)]

    def after(self, files: SegmentFiles) -> SegmentFiles | None:
        """Return the segment that follows one, or None after the active one."""
        segments = self.segments
        place = bisect_right(segments, files.base_offset, key=lambda files: files.base_offset)
        return segments[place] if place < len(segments) else None

    def durable_end(self, files: SegmentFiles) -> int | None:
        """Return up to where the active segment's file may be read; None for a closed one: to its end."""
        active = self.active
        return active.position if active.files == files else None

    def open(self, files: SegmentFiles) -> tuple[File, ReadSegment]:
        """Open a segment for reading; the caller closes the file.

        Raises:
            FileNotFoundError: retention removed it meanwhile.
            SegmentError: its header cannot be read.
        """
        while True:
            before = self._replaced.get(files.base_offset, 0)
            try:
                store = self.disk.open(files.store)
                try:
                    read = self._read(files, store, before)
                except BaseException:
                    store.close()
                    raise
            except (SegmentError, FileNotFoundError):
                if self._replaced.get(files.base_offset, 0) == before:
                    raise
                continue
            if self._replaced.get(files.base_offset, 0) == before:
                return store, read
            # The file is of the segment before its repair and the index of the one after it, or the other way round.
            store.close()

    @contextmanager
    def replacing(self, files: SegmentFiles) -> Iterator[None]:
        """Keep readers from pairing a closed segment's store file from before a change with an index from after it.

        Within, the index file must be one that fits both store files. A reader that has the old file open keeps it.
        """
        self._note_replaced(files)
        try:
            yield
        finally:
            self._note_replaced(files)

    def _note_replaced(self, files: SegmentFiles) -> None:
        with self._lock:
            self._loaded.pop(files.base_offset, None)
            self._replaced[files.base_offset] = self._replaced.get(files.base_offset, 0) + 1

    def load(self, files: SegmentFiles) -> ReadSegment:
        """Return a segment's header and index; raises as open does."""
        store, read = self.open(files)
        store.close()
        return read

    def _read(self, files: SegmentFiles, store: File, before: int) -> ReadSegment:
        """Return a segment's header and index; before is how often it had been replaced when the file was opened."""
        with self._lock:
            if self.active.files == files:
                return self.active.read
            read = self._loaded.get(files.base_offset)
            if read is not None:
                self._loaded.move_to_end(files.base_offset)
                return read
        read = load_segment(self.disk, files, store, self.index_interval_bytes)
        with self._lock:
            if before % 2 or self._replaced.get(files.base_offset, 0) != before:
                return read
            self._loaded[files.base_offset] = read
            while len(self._loaded) > LOADED_SEGMENTS:
                self._loaded.popitem(last=False)
        return read
