"""What opening a directory has to write before the log may be written to again.

It is apart from reading, so that a log on a full disk is opened and served without it; it is completed once there is
room.
"""

from __future__ import annotations

from pathlib import Path

from attrs import Factory, define

from proglog_trio.log.disk import Disk, File, sync, sync_directory
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, Envelope
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.storage.damaged_files import Aside, MovedAside
from proglog_trio.log.storage.index import IndexBuilder
from proglog_trio.log.storage.scanner import CHUNK_BYTES
from proglog_trio.log.storage.segment import ActiveSegment, write_index


@define
class OpeningCompletion:
    """Completes the opening of a directory. It may be tried again after a failure for want of room.

    Attributes:
        store, files, header_bytes: the newest segment.
        durable: everything before this place in it had been durable.
        end: where the last that stays in it ends.
        next_offset: at which the log goes on, above all offsets that may have been given out.
        reopened: the envelope that says at end that next_offset is above what stands in the segment; None: it is not.
        tail: what is wrong at end, if anything there has to go.
        tail_offset: the offset at which it begins.
        entries: for the index, that of reopened among them.
        unreadable: newer segments without a header that can be read, and why: they are moved aside.
        moved: is told of what was moved aside.
    """

    disk: Disk
    store: File
    files: SegmentFiles
    header_bytes: bytes
    aside: Aside
    durable: int
    end: int
    next_offset: int
    reopened: Envelope | None
    tail: str | None
    tail_offset: int
    entries: IndexBuilder
    moved: list[MovedAside]
    unreadable: list[tuple[SegmentFiles, str]] = Factory(list)
    _is_tail_saved: bool = False

    @property
    def directory(self) -> Path:
        """Where the segments are."""
        return self.files.directory

    def settle_what_is_served(self) -> None:
        """Make what stays in the segment durable without completing anything, which takes no room. Raises OSError."""
        _write_again(self.store, self.durable, self.end)
        sync(self.store)
        sync_directory(self.disk, self.directory)

    def complete(self, active: ActiveSegment) -> None:
        """Write all that there is to write; the log may be written to on return.

        Args:
            active: the newest segment, which is told where it goes on.

        Raises:
            OSError: as the disk gives it; has_no_room tells whether it may be tried again.
        """
        if self.tail is not None and not self._is_tail_saved:
            path, size = self.aside.save_tail(self.store, self.files, self.end)
            self.moved.append(MovedAside(path, size, self.files.store, self.end, self.tail_offset, self.tail))
            self._is_tail_saved = True
        end = self._mend()
        # The index last: until it is there, the old mark says what is missing.
        index_file = write_index(self.disk, self.files, self.header_bytes, self.entries, end, self.next_offset)
        try:
            sync_directory(self.disk, self.directory)
            # Only now: which offsets they used is noted durably.
            while self.unreadable:
                self.moved.append(self.aside.move_segment(*self.unreadable[0]))
                self.unreadable.pop(0)
        except BaseException:
            index_file.close()
            raise
        self.entries.unwritten.clear()
        active.opened(index_file, end, self.next_offset)

    def _mend(self) -> int:
        """Make what stays in the segment durable, take the tail away, and let offsets go on; return the new end.

        In this order a crash in the midst of it leaves either the tail, or the note of which offsets it used.
        """
        _write_again(self.store, self.durable, self.end)
        end = self.end
        if self.reopened is not None:
            self.store.write_at(end, [self.reopened.encode(self.entries.salt)])
            end += ENVELOPE_BYTES
        sync(self.store)
        if self.store.size() > end:
            self.store.truncate(end)
            sync(self.store)
        return end


def _write_again(store: File, start: int, end: int) -> None:
    """Write once more what stands in [start, end).

    If the sync of it failed before, the kernel may take its pages for written although they are not; only what is
    written anew is certain to be covered by the next sync.
    """
    while start < end:
        data = store.read_at(start, min(CHUNK_BYTES, end - start))
        store.write_at(start, [data])
        start += len(data)
