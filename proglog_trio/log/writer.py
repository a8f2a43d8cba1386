"""Writing a log: what the committer's thread does."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field, frozen

from proglog_trio.errors import DataDirectoryLost
from proglog_trio.log.completion import OpeningCompletion
from proglog_trio.log.disk import Disk, Identity, NotWritten, ReserveReached, has_no_room
from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.pending_frame import PendingFrame, bare_envelope
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.segment import ActiveSegment

MAX_WANTED = 4 << 20
"""So many bytes of what did not fit are waited for at most: that is room, also when more waited together."""


@frozen
class Roll:
    """Work for the writer: go on in a new segment."""

    header: SegmentHeader


@frozen
class Complete:
    """Work for the writer: complete the opening of the directory, for which there was no room."""

    completion: OpeningCompletion


Work = PendingFrame | Roll | Complete


class CommitFailed(Exception):
    """A commit that was not done, or not all of it.

    Attributes:
        reason: what went wrong.
        durable: so many pieces of the work, from the first on, are durable.
        uncertain: so many of those that follow may be on the disk or not; the rest certainly is not.
        may_go_on: what is on the disk is known, and the writer can be given other work.
        wanted: how many bytes there was no room for.
    """

    def __init__(
        self, reason: OSError | DataDirectoryLost, durable: int, uncertain: int, *, may_go_on: bool, wanted: int = 0
    ) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.durable = durable
        self.uncertain = uncertain
        self.may_go_on = may_go_on
        self.wanted = wanted


@define
class LogWriter:
    """Does a log's writing; one thread at a time may use it.

    Attributes:
        directory: where the segments are.
        lock_path, lock_identity: the data directory's lock file, by which the directory is known.
        reserve_bytes: so much of the disk is left free; 0: it may be filled.
    """

    disk: Disk
    directory: Path
    catalog: SegmentCatalog
    lock_path: Path
    lock_identity: Identity
    reserve_bytes: int = 0
    _durable: int = field(default=0, init=False)

    def commit(self, work: Sequence[Work]) -> None:
        """Write work in its order and return when it is durable.

        Raises:
            CommitFailed: not all of it is; that says what of it.
        """
        self._durable = 0
        frames: list[PendingFrame] = []
        for item in work:
            if isinstance(item, PendingFrame):
                frames.append(item)
                continue
            self._write(frames)
            frames = []
            if isinstance(item, Roll):
                self._roll(item.header)
            else:
                self._complete(item.completion)
            self._durable += 1
        self._write(frames)

    def _write(self, frames: Sequence[PendingFrame]) -> None:
        if not frames:
            return
        wanted = sum(frame.stored_bytes for frame in frames)
        try:
            self._check_reserve(wanted)
            self.catalog.active.commit(frames)
            # What was synced into a file that no opening will find again is not stored.
            self._check_active()
        except NotWritten as error:
            if isinstance(error, ReserveReached) and len(frames) > 1:
                # Each is refused for want of room for itself, and not for others that happened to wait with it.
                half = len(frames) // 2
                self._write(frames[:half])
                self._write(frames[half:])
                return
            raise CommitFailed(error, self._durable, 0, may_go_on=True, wanted=min(wanted, MAX_WANTED)) from error
        except (OSError, DataDirectoryLost) as error:
            raise CommitFailed(error, self._durable, len(frames), may_go_on=False) from error
        self._durable += len(frames)

    def _roll(self, header: SegmentHeader) -> None:
        before = self.catalog.active
        try:
            # Before there is another: opening makes the index of the newest segment anew, and of no other. After a
            # power loss the mark could tell of entries that are not there.
            before.sync_index()
            following = ActiveSegment.create(self.disk, self.directory, header, self.catalog.index_interval_bytes)
            self.catalog.make_active(following)
            before.close()
        except NotWritten as error:
            raise CommitFailed(error, self._durable, 0, may_go_on=True) from error
        except OSError as error:
            # A segment without a frame says nothing of any batch; but what the disk holds is not known.
            raise CommitFailed(error, self._durable, 0, may_go_on=False) from error

    def _complete(self, completion: OpeningCompletion) -> None:
        try:
            completion.complete(self.catalog.active)
        except OSError as error:
            raise CommitFailed(error, self._durable, 0, may_go_on=has_no_room(error)) from error

    def _check_reserve(self, wanted: int) -> None:
        """Raises ReserveReached if what is kept free would not be, with these bytes written."""
        if not self.reserve_bytes:
            return
        try:
            free = self.free_bytes()
        except OSError as error:
            raise NotWritten(*error.args) from error
        if free < self.reserve_bytes + wanted:
            raise ReserveReached(errno.ENOSPC, f"less than the reserve of {self.reserve_bytes} bytes would be free")

    def free_bytes(self) -> int:
        """Return how many bytes are free on the disk. Blocks.

        Raises:
            DataDirectoryLost: the directory is not there any more.
            OSError: as the disk gives it.
        """
        try:
            return self.disk.free_bytes(self.directory)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataDirectoryLost(f"{self.directory} was removed while it was in use") from error

    def check_place(self) -> None:
        """Check that the data directory and the newest segment are still where they were. Blocks; in any thread.

        Raises:
            DataDirectoryLost: they are not. What cannot be told counts for nothing.
        """
        self._check(self.lock_path, self.lock_identity)
        self._check_active()

    def _check_active(self) -> None:
        while True:
            active = self.catalog.active
            try:
                self._check(active.files.store, active.identity)
            except DataDirectoryLost:
                if self.catalog.active is not active:
                    continue  # a new segment was begun meanwhile, and retention may have removed this one
                raise
            return

    def _check(self, path: Path, identity: Identity) -> None:
        try:
            found = self.disk.identity_of(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataDirectoryLost(f"{path} was removed while it was in use") from error
        except OSError:
            return  # a disk that fails says so when it is written to
        if found != identity:
            raise DataDirectoryLost(f"{path} was replaced by another file while it was in use")

    def close(self, *, cleanly: bool) -> None:
        """Close the active segment; cleanly: note in it that everything before is durable. Raises OSError."""
        active = self.catalog.active
        if not cleanly:
            active.close()
            return
        try:
            active.commit([bare_envelope(EnvelopeKind.CLOSED, active.next_offset)])
        except OSError:
            active.close()
            raise
        active.finish()
