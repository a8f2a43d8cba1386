"""Opening a data directory: what is there, what is damaged, and where to go on.

Only the newest segment is read; its header tells the rest. What cannot be read is one of two things. Below the durable
place (the durable mark of the index file, or `durable_before` of any later envelope) it had been acknowledged and is
*damaged*: it stays where it is, is named, and is never served. Above, it is a *tail* that a crash tore, or that was
damaged just after it was acknowledged; it is moved to `damaged/` and reported as possibly acknowledged.
"""

from __future__ import annotations

import errno
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from attrs import define, evolve, field, frozen

from proglog_trio.errors import DataDirectoryError, DataDirectoryFull, FrameError, SegmentError
from proglog_trio.log.completion import OpeningCompletion
from proglog_trio.log.disk import Disk, File, has_no_room, sync
from proglog_trio.log.format.envelope import (
    ENVELOPE_BYTES,
    IN_OFFSETS,
    MARKERS,
    NO_ORIGIN,
    SALT_BYTES,
    Envelope,
    EnvelopeKind,
    Salt,
    find_envelope,
    read_unchecked,
)
from proglog_trio.log.format.frame import FRAME_MAGIC, FrameHeader, log_time_of
from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES
from proglog_trio.log.format.segment_files import INDEX_SUFFIX, SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.state import LogState
from proglog_trio.log.storage.damaged_files import DAMAGED_DIRECTORY, Aside, MovedAside
from proglog_trio.log.storage.index import (
    IndexBuilder,
    IndexEntry,
    entries_begin,
    entries_between,
    read_mark,
    read_sound_entries,
)
from proglog_trio.log.storage.running_time import RunningTime
from proglog_trio.log.storage.scanner import SegmentScanner, scan_from
from proglog_trio.log.storage.segment import (
    NEW_SUFFIX,
    ActiveSegment,
    ReadSegment,
    list_damaged_too,
    list_segments,
    read_segment_header,
)
from proglog_trio.log.storage.sparse_index import SparseIndex

T = TypeVar("T")
LOG_DIRECTORY = "log"
LOCK_FILE = "lock"


@define
class RecoveryReport:
    """What opening found.

    Attributes:
        segments: how many there are.
        frames: how many were read in the newest.
        damaged: places that had been acknowledged and cannot be read; (segment's store file, place).
        moved_aside: tails that a crash tore, "possibly acknowledged".
        lost: acknowledged bytes that are missing altogether, in words.
        repaired: what was put right from a second copy, in words.
        aside: what became of what was moved aside before.
    """

    segments: int = 0
    frames: int = 0
    damaged: list[tuple[Path, DamagedPlace]] = field(factory=list)
    moved_aside: list[MovedAside] = field(factory=list)
    lost: list[str] = field(factory=list)
    repaired: list[str] = field(factory=list)
    aside: Aside | None = None

    @property
    def is_clean(self) -> bool:
        """Whether everything that was ever acknowledged is there, as far as the newest segment tells."""
        return not (self.damaged or self.moved_aside or self.lost)


@frozen
class Recovered:
    """An opened directory.

    Attributes:
        completion: what there was no room to write; until it is done, the log must not be written to.
        obstacle: why it could not be done.
    """

    state: LogState
    active: ActiveSegment
    segments: list[SegmentFiles]
    report: RecoveryReport
    running_time: RunningTime
    completion: OpeningCompletion | None = None
    obstacle: OSError | None = None


@define
class _Read:
    """What reading the newest segment gave besides the state.

    Attributes:
        end: where the last that stays in the log ends.
        durable: everything before this place had been durable.
        entries: for the index.
        header_bytes: the segment's.
        known: what the index file of before says, in the order of the store file; None: it has not been asked.
        tail: what is wrong at end, if anything there has to go.
    """

    end: int
    durable: int
    entries: IndexBuilder
    header_bytes: bytes
    known: Sequence[IndexEntry] | None = None
    tail: str | None = None


@define
class Recovery:
    """Opens one data directory; the caller holds its lock.

    Attributes:
        directory: the data directory.
        wall_milliseconds: now.
        clock: seconds, monotonic.
        max_damaged_bytes, max_damaged_files: how much is kept of what is moved aside.
        offsets_used: an offset above all that a segment without a readable header may have given out.
    """

    disk: Disk
    directory: Path
    cluster_name: str
    index_interval_bytes: int
    wall_milliseconds: int
    rng: random.Random
    clock: Callable[[], float]
    max_damaged_bytes: int
    max_damaged_files: int
    report: RecoveryReport = field(factory=RecoveryReport)
    offsets_used: int = 0

    @property
    def log_directory(self) -> Path:
        """Where the segments are."""
        return self.directory / LOG_DIRECTORY

    def run(self) -> Recovered:
        """Recover, and return with everything that may be served durable.

        Raises:
            DataDirectoryError: another cluster's directory, or a newer format.
            DataDirectoryFull: there is nothing to serve, and no room to begin.
            OSError: as the disk gives it.
        """
        self.disk.make_directory(self.log_directory)
        aside = Aside(self.disk, self.directory / DAMAGED_DIRECTORY, self.max_damaged_bytes, self.max_damaged_files)
        self.report.aside = aside
        # Not only when something is added: the bounds may have been lowered.
        aside.trim()
        self._remove_leftovers()
        segments = list_damaged_too(self.disk, self.log_directory)
        with_store = frozenset(list_segments(self.disk, self.log_directory))
        unreadable: list[tuple[SegmentFiles, str]] = []
        while segments:
            newest = segments[-1]
            store = self.disk.open(newest.store, writable=True)
            try:
                header, header_bytes, fault = read_segment_header(self.disk, newest, store)
            except SegmentError as error:
                store.close()
                unreadable.append((segments.pop(), str(error)))
                self.offsets_used = max(self.offsets_used, self._offset_after(newest))
                # Nor can the log go on in one of which there is the index alone. Those are moved first: behind the
                # last store file they would pass for what was not finished, and be removed.
                while segments and segments[-1] not in with_store:
                    unreadable.insert(0, (segments.pop(), "the store file is missing"))
                continue
            except BaseException:
                store.close()
                raise
            try:
                recovered = self._open_newest(segments, store, header, header_bytes, fault, aside, unreadable)
            except BaseException:
                store.close()
                raise
            break
        else:
            recovered = self._make_first()
            try:
                # Only now: which offsets they used is noted durably.
                self.report.moved_aside += [aside.move_segment(files, detail) for files, detail in unreadable]
            except BaseException:
                recovered.active.close()
                raise
        return recovered

    def _remove_leftovers(self) -> None:
        indexes = {files.index.name for files in list_damaged_too(self.disk, self.log_directory)}
        for name in self.disk.list_directory(self.log_directory):
            orphan = name.endswith(INDEX_SUFFIX) and name not in indexes
            if name.endswith(NEW_SUFFIX) or orphan:
                self.disk.remove(self.log_directory / name)

    def _make_first(self) -> Recovered:
        state = LogState(self.rng.randbytes(DIRECTORY_ID_BYTES), self.cluster_name, self.offsets_used)
        header = state.to_header(Salt(self.rng.randbytes(SALT_BYTES)), self.wall_milliseconds)
        running_time = RunningTime.open(self.disk, self.directory, header, self.clock)
        try:
            active = ActiveSegment.create(self.disk, self.log_directory, header, self.index_interval_bytes)
        except OSError as error:
            if has_no_room(error):
                raise DataDirectoryFull(f"{self.directory}: there is no room on its disk to begin ({error})") from error
            raise
        self.report.segments = 1
        return Recovered(state, active, [active.files], self.report, running_time)

    def _open_newest(
        self,
        segments: list[SegmentFiles],
        store: File,
        header: SegmentHeader,
        header_bytes: bytes,
        fault: str | None,
        aside: Aside,
        unreadable: list[tuple[SegmentFiles, str]],
    ) -> Recovered:
        files = segments[-1]
        if header.cluster_name != self.cluster_name:
            raise DataDirectoryError(
                f"{self.directory} belongs to cluster {header.cluster_name!r}, not to {self.cluster_name!r}"
            )
        if fault is not None:
            store.write_at(0, [header_bytes])
            sync(store)
            self.report.repaired.append(f"the header of {files.store.name} from its copy: {fault}")
        try:
            state = LogState.of_header(header)
        except (ValueError, TypeError, IndexError) as error:
            raise SegmentError(f"{files.store}: the snapshot in the header is not valid: {error!r}") from None
        running_time = RunningTime.open(self.disk, self.directory, header, self.clock)
        state.go_on(header, running_time.before)
        mark = self._of_index(files, lambda file: read_mark(file, header.salt))
        walk = scan_from(store, header, len(header_bytes))
        durable = max(len(header_bytes), mark.position if mark is not None else 0)
        index = SparseIndex(self.index_interval_bytes)
        entries = IndexBuilder(header.salt, index, entries_begin(header_bytes))
        read = _Read(walk.position, durable, entries, header_bytes)
        self._read(walk, state, files, read)
        highest = max(state.next_offset, self.offsets_used, mark.next_offset if mark is not None else 0)
        size = store.size()
        cut_off_below = 0
        if size < read.durable:
            cut_off_below = highest
            self.report.lost.append(
                f"{files.store} has {size} bytes, but {read.durable} had been acknowledged: what stood after byte "
                f"{read.end} is gone, offsets {state.next_offset} to {highest - 1}"
            )
        if read.tail is not None:
            highest = max(highest, self._highest_offset(store, header.salt, read.end))
        reopened = None
        if highest > state.next_offset:
            reopened = Envelope(
                EnvelopeKind.REOPENED, 0, highest, NO_ORIGIN, cut_off_below, 0, min(read.durable, read.end)
            )
            entries.add(read.end, reopened, reopened.encode(header.salt), 0)
        completion = OpeningCompletion(
            self.disk,
            store,
            files,
            header_bytes,
            aside,
            read.durable,
            read.end,
            highest,
            reopened,
            read.tail,
            state.next_offset,
            entries,
            self.report.moved_aside,
            unreadable,
        )
        read_segment = ReadSegment.of_header(header, header_bytes, index)
        active = ActiveSegment(files, read_segment, read.end, state.next_offset, store, None, entries, store.identity())
        self.report.segments = len(segments)
        try:
            completion.complete(active)
        except OSError as error:
            if not has_no_room(error):
                raise
            completion.settle_what_is_served()
            return Recovered(state, active, segments, self.report, running_time, completion, error)
        state.next_offset = highest
        return Recovered(state, active, segments, self.report, running_time)

    def _of_index(self, files: SegmentFiles, read: Callable[[File], T]) -> T | None:
        """Return what is read from a segment's index file; None if there is none."""
        try:
            file = self.disk.open(files.index)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        with closing(file):
            return read(file)

    def _read(self, walk: SegmentScanner, state: LogState, files: SegmentFiles, read: _Read) -> None:
        """Read all that stands in the segment into state, up to the first damage that begins a tail.

        Damage at the end of what is known to be durable may be shown to lie below it by a later envelope, so what comes
        after it waits until that is known.
        """
        waiting: deque[StoredFrame | DamagedPlace] = deque()
        while (item := walk.step()) is not None:
            if isinstance(item, StoredFrame):
                read.durable = max(read.durable, item.envelope.durable_before)
            waiting.append(item)
            while waiting and (isinstance(waiting[0], StoredFrame) or waiting[0].ends_below(read.durable)):
                self._read_item(waiting.popleft(), read, state, files)
        while waiting:
            item = waiting.popleft()
            if isinstance(item, StoredFrame) or item.ends_below(read.durable):
                self._read_item(item, read, state, files)
                continue
            if item.envelope is None and item.position < read.durable:
                self._read_item(evolve(item, end=read.durable, next_offset=None), read, state, files)
            read.tail = item.detail
            break

    def _read_item(self, item: StoredFrame | DamagedPlace, read: _Read, state: LogState, files: SegmentFiles) -> None:
        read.end = item.end
        if isinstance(item, DamagedPlace):
            self.report.damaged.append((files.store, item))
            state.next_offset = max(state.next_offset, item.next_offset or 0)
            if read.known is None:
                read.known = self._of_index(
                    files, lambda file: tuple(read_sound_entries(file, read.header_bytes, read.entries.salt))
                )
            for entry in entries_between(read.known or (), item.position, item.end):
                # A repair knows by them what stood there: the new index must not be without.
                read.entries.keep(entry, entry.position)
            return
        envelope = item.envelope
        try:
            state.read_back(envelope.kind, envelope.base_offset, item.frame_without_payload, self.wall_milliseconds)
        except FrameError as error:
            # Its CRCs are right, so its writer is at fault; it is named and stepped over.
            place = DamagedPlace(
                item.position, item.end, envelope, envelope.base_offset, envelope.next_offset, str(error)
            )
            self.report.damaged.append((files.store, place))
            state.next_offset = max(state.next_offset, envelope.next_offset)
            return
        if envelope.kind in IN_OFFSETS:
            self.report.frames += 1
        control_frame = item.data if envelope.kind in MARKERS else b""
        read.entries.add(
            item.position, envelope, envelope.encode(read.entries.salt), log_time_of(item.data), control_frame
        )

    def _highest_offset(self, store: File, salt: Salt, start: int) -> int:
        """Return the offset after all records whose envelopes can still be read in the tail."""
        data = store.read_at(start, max(store.size() - start, 0))
        highest = 0
        place = find_envelope(data, 0, salt)
        while place is not None:
            highest = max(highest, Envelope.decode(data, place, salt).next_offset)
            place = find_envelope(data, place + ENVELOPE_BYTES, salt)
        return highest

    def _offset_after(self, files: SegmentFiles) -> int:
        """Return an offset after the records in a store file without a header, by what can still be read in it.

        Without the salt no envelope can be checked. One that says the same as the frame behind it is believed.
        """
        with closing(self.disk.open(files.store)) as file:
            data = file.read_at(0, file.size())
        # Above its own base offset, so that no new segment gets its name.
        following = files.base_offset + 1
        place = data.find(FRAME_MAGIC)
        while place >= 0:
            try:
                header = FrameHeader.decode(data, place)
            except FrameError:
                place = data.find(FRAME_MAGIC, place + 1)
                continue
            following += header.count
            envelope = read_unchecked(data, place - ENVELOPE_BYTES)
            if envelope is not None and (envelope.length, envelope.origin, envelope.base_sequence, envelope.count) == (
                header.frame_length,
                header.origin,
                header.base_sequence,
                header.count,
            ):
                following = max(following, envelope.next_offset)
            place = data.find(FRAME_MAGIC, place + header.frame_length)
        return following
