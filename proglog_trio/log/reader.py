"""Reading a log from an offset or a position on.

Everything here blocks on the disk: use it from a worker thread. A reader has a file of its own, so retention may
remove a segment that it is in the middle of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Self

from attrs import define, field, frozen

from proglog_trio.errors import (
    DataLoss,
    FrameError,
    OffsetOutOfRange,
    RecordsGivenUp,
    RecordsMissing,
    SegmentError,
    SequenceOutOfRange,
)
from proglog_trio.log.chunk import CUT_OFF, GIVEN_UP, MISSING_AT_PRESENT, RETIRED, Chunk, Skipped
from proglog_trio.log.disk import File
from proglog_trio.log.format.envelope import IN_OFFSETS, Envelope, EnvelopeKind
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.sequence_gaps import SequenceGap, SequenceGapFinder
from proglog_trio.log.start_position import Origins, position_before
from proglog_trio.log.state import Bounds, position_of
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.scanner import SegmentScanner, scan_from
from proglog_trio.log.storage.segment_check import offsets_not_in_file, whole_segment
from proglog_trio.log.storage.sparse_index import Place


@frozen
class _NotGiven:
    """Records that cannot be given, since they are damaged or retired: from the reader's place up to next_offset.

    Attributes:
        detail: why, in words.
        is_retired: they are retired, not damaged.
    """

    next_offset: int
    detail: str
    is_retired: bool = False


@define
class LogReader:
    """Reads frames in the order of the log. For one thread at a time.

    Attributes:
        next_offset: the first offset that is not read yet; it never goes back.
        skip_missing: leave out what cannot be read instead of raising.
        covered: frames that lie before this position are left out.
    """

    next_offset: int
    _start_position: Position | Callable[[], Position]
    skip_missing: bool
    covered: Position | None
    _catalog: SegmentCatalog
    # The segment that is read, or is to be. Its file and the walk through it are there together, or neither is.
    _files: SegmentFiles
    _file: File | None = None
    _walk: SegmentScanner | None = None
    # Where to begin in the first segment, if that is known; used once.
    _start: Place | None = None
    # What one step has read and no read has passed yet: a frame, what cannot be given, or one of each. It is empty when
    # a segment is opened.
    _waiting: deque[StoredFrame | _NotGiven] = field(factory=deque)
    # What was passed since the last read that returned: one that raises keeps them for the next.
    _skipped: list[Skipped] = field(factory=list)
    _finder: SequenceGapFinder | None = None
    _sequence_gaps: list[SequenceGap] = field(factory=list)

    @classmethod
    def at_offset(
        cls,
        catalog: SegmentCatalog,
        lowest_offset: int,
        next_offset: int,
        origins: Origins,
        offset: int,
        *,
        skip_missing: bool,
    ) -> Self:
        """Return a reader that begins with the frame that holds an offset, or at the first after it.

        Args:
            catalog: the segments.
            lowest_offset: of what the log durably holds.
            next_offset: after what the log durably holds.
            origins: gives what it holds per origin; from the log's end on that must be what it holds now.
            offset: where to begin.
            skip_missing: see LogReader.

        Raises:
            OffsetOutOfRange: the offset is below the lowest, and skip_missing is not set.
        """
        skipped = []
        if offset < lowest_offset:
            if not skip_missing:
                raise OffsetOutOfRange(offset, lowest_offset, next_offset)
            skipped.append(Skipped(offset, lowest_offset, RETIRED))
            offset = lowest_offset
        files = catalog.containing(min(offset, next_offset))
        position: Position | Callable[[], Position]
        if offset >= next_offset:
            position = position_of(origins())
        else:
            position = partial(position_before, catalog, origins, files, offset)
        return cls(offset, position, skip_missing, None, catalog, files, skipped=skipped)

    @classmethod
    def at_position(cls, catalog: SegmentCatalog, bounds: Bounds, position: Position, *, skip_missing: bool) -> Self:
        """Return a reader of all frames that do not lie before a position.

        Raises:
            SequenceOutOfRange: retention removed some of them, and skip_missing is not set.
        """
        found: tuple[Place, SegmentFiles] | None = None
        skipped: list[Skipped] = []
        for origin, state in bounds.origins.items():
            sequence = position.next_sequence(origin)
            if sequence >= state.next:
                continue
            if sequence < state.low:
                if not skip_missing:
                    raise SequenceOutOfRange(str(origin), sequence, state.low)
                lowest = bounds.lowest_offset
                skipped.append(Skipped(lowest, lowest, RETIRED, sequences=(origin, sequence, state.low)))
                sequence = state.low
                if sequence == state.next:
                    continue
            place = place_of_sequence(catalog, origin, sequence)
            if found is None or place[0] < found[0]:
                found = place
        if found is None:
            start, files = None, catalog.containing(bounds.next_offset)
        else:
            start, files = found
        offset = bounds.next_offset if start is None else start.offset
        finder = SequenceGapFinder(position)
        return cls(
            offset, position, skip_missing, position, catalog, files, start=start, finder=finder, skipped=skipped
        )

    @property
    def start_position(self) -> Position:
        """What lies before the reader's start. Blocks where it has to be looked up, so only when it is asked for."""
        if not isinstance(self._start_position, Position):
            self._start_position = self._start_position()
        return self._start_position

    def read(self, max_bytes: int, until_offset: int, wanted: Callable[[Envelope], bool] | None = None) -> Chunk:
        """Return the next frames below until_offset, which must be durable.

        Args:
            max_bytes: how many bytes of frames to return at most; one frame may be larger.
            until_offset: where to stop; a frame is returned whole.
            wanted: tells of a frame by its envelope whether it is to be given; None: every frame is.

        Raises:
            DataLoss: the next records are damaged, and skip_missing is not set. The next read goes on after them.
            RecordsMissing: the next records are missing at present, and skip_missing is not set; likewise.
            RecordsGivenUp: they were missing and never will be here, and skip_missing is not set; likewise.
            OffsetOutOfRange: retention removed the next records, and skip_missing is not set.
        """
        frames: list[StoredFrame] = []
        size = 0
        while self.next_offset < until_offset:
            if not self._waiting and not self._step(until_offset):
                break
            item = self._waiting[0]
            if isinstance(item, _NotGiven):
                # What stands before it is given first, so that no read both raises and has something to give.
                if frames and item.next_offset > self.next_offset:
                    break
                self._pass_not_given(item, until_offset)
                continue
            if item.envelope.kind is EnvelopeKind.MISSING and item.next_offset > self.next_offset:
                if frames:
                    break
                self._pass_marker(item, until_offset)
                continue
            if self._is_to_be_given(item) and (wanted is None or wanted(item.envelope)):
                if frames and size + len(item.data) > max_bytes:
                    break
                frames.append(item)
                size += len(item.data)
            self._waiting.popleft()
            # Not always further: the first frame may begin, and a marker without offsets may stand, before next_offset.
            self.next_offset = max(self.next_offset, item.next_offset)
            if self._finder is not None:
                gaps = self._finder.pass_frame(item)
                self._sequence_gaps += gaps
                if self.skip_missing:
                    self._skipped += [Skipped.gap(gap, self.next_offset) for gap in gaps if gap.marked]
        skipped, self._skipped = self._skipped, []
        gaps, self._sequence_gaps = self._sequence_gaps, []
        return Chunk(frames, self.next_offset, skipped, gaps)

    def close(self) -> None:
        """Close the reader's file."""
        if self._file is not None:
            self._file.close()
            self._file = self._walk = None

    def _is_to_be_given(self, item: StoredFrame) -> bool:
        envelope = item.envelope
        if envelope.kind is not EnvelopeKind.RECORDS or envelope.next_offset <= self.next_offset:
            return False
        return not self._covers(envelope)

    def _covers(self, envelope: Envelope) -> bool:
        """Tell whether a frame lies before the position that the reader was made for."""
        return (
            self.covered is not None
            and envelope.kind in IN_OFFSETS
            and self.covered.covers(envelope.origin, envelope.base_sequence, envelope.count)
        )

    def _pass_not_given(self, item: _NotGiven, until_offset: int) -> None:
        """Skip or raise for records that cannot be given; what lies beyond until_offset waits until it is asked for."""
        first, following = self.next_offset, min(item.next_offset, until_offset)
        if item.next_offset <= until_offset:
            self._waiting.popleft()
        if following <= first:
            return
        self.next_offset = following
        if self.skip_missing:
            self._skipped.append(Skipped(first, following, item.detail))
        elif item.is_retired:
            raise OffsetOutOfRange(first, item.next_offset, max(until_offset, item.next_offset))
        else:
            raise DataLoss(first, following, item.detail)

    def _pass_marker(self, marker: StoredFrame, until_offset: int) -> None:
        """Skip or raise for what is missing at present; what lies beyond until_offset waits until it is asked for."""
        first, following = self.next_offset, min(marker.next_offset, until_offset)
        covered = self._covers(marker.envelope)
        if marker.next_offset <= until_offset:
            self._waiting.popleft()
            if self._finder is not None:
                self._sequence_gaps += self._finder.pass_frame(marker)
        self.next_offset = following
        if covered:
            return
        if _is_given_up(marker):
            if not self.skip_missing:
                raise RecordsGivenUp(first, following)
            self._skipped.append(Skipped(first, following, GIVEN_UP))
        elif self.skip_missing:
            self._skipped.append(Skipped(first, following, MISSING_AT_PRESENT, at_present=True))
        else:
            raise RecordsMissing(first, following, MISSING_AT_PRESENT)

    def _step(self, until_offset: int) -> bool:
        """Let at least one item wait; False: the log has no more."""
        while not self._waiting:
            walk = self._walk if self._walk is not None else self._open(until_offset)
            if walk is None:
                continue
            # The segment may have been the newest before, and grown or been closed since.
            walk.end = self._catalog.durable_end(self._files)
            item = walk.step()
            if isinstance(item, StoredFrame):
                envelope = item.envelope
                if envelope.kind is EnvelopeKind.REOPENED:
                    # It has a next offset and no records: what it steps over was given out by a tail that is not here.
                    if envelope.cut_off_below > self.next_offset:
                        self._waiting.append(_NotGiven(envelope.cut_off_below, CUT_OFF))
                elif envelope.base_offset > self.next_offset:
                    detail = f"the next frame in {self._files.store.name} has offset {envelope.base_offset}"
                    self._waiting.append(_NotGiven(envelope.base_offset, detail))
                    self._report(
                        self._files, offsets_not_in_file(item.position, self.next_offset, envelope.base_offset)
                    )
                self._waiting.append(item)
            elif item is not None:
                self._note_damage(item, until_offset)
            else:
                after = self._catalog.after(self._files)
                if after is None:
                    # Everything below until_offset is durable, so it ought to be here.
                    detail = f"{self._files.store.name} ends at byte {walk.position}"
                    self._waiting.append(_NotGiven(until_offset, detail))
                    break
                self.close()
                self._files = after
        return bool(self._waiting)

    def _report(self, files: SegmentFiles, place: DamagedPlace) -> None:
        self._catalog.damage.report(files, place, "read")

    def _note_damage(self, place: DamagedPlace, until_offset: int) -> None:
        self._report(self._files, place)
        following = place.next_offset
        # What lies before the reader's position it need not give, damaged or not.
        if following is not None and place.envelope is not None and self._covers(place.envelope):
            self.next_offset = max(self.next_offset, following)
            return
        if following is None:
            after = self._catalog.after(self._files)
            following = until_offset if after is None else after.base_offset
        self._waiting.append(_NotGiven(following, str(place)))

    def _open(self, until_offset: int) -> SegmentScanner | None:
        """Open the current segment; None: what is missing waits now, or the reader is at another segment."""
        files = self._files
        if self.next_offset < files.base_offset:
            is_retired = files.base_offset <= self._catalog.segments[0].base_offset
            detail = RETIRED if is_retired else f"the next segment is {files.store.name}"
            self._waiting.append(_NotGiven(files.base_offset, detail, is_retired))
            if not is_retired:
                before = self._catalog.containing(self.next_offset)
                self._report(before, offsets_not_in_file(0, self.next_offset, files.base_offset))
            return None
        try:
            self._file, read = self._catalog.open(files)
        except (SegmentError, FileNotFoundError) as error:
            if files not in self._catalog.segments:
                # Retention removed it since it was found: no damage.
                self._files = self._catalog.containing(self.next_offset)
                return None
            after = self._catalog.after(files)
            following = until_offset if after is None else after.base_offset
            self._waiting.append(_NotGiven(following, f"{files.store.name}: {error}"))
            self._report(files, whole_segment(files, str(error), None if after is None else following))
            self._files = files if after is None else after
            return None
        if self._finder is not None:
            # Nothing waits when a segment is opened: what came before it has been given, or never will be.
            self._sequence_gaps += self._finder.enter_segment(read.header.origins)
        start, self._start = self._start, None
        if start is None and self.next_offset > read.header.base_offset:
            # From the beginning otherwise: a marker without offsets may stand before the first frame.
            start = read.index.before_offset(self.next_offset)
        self._walk = scan_from(self._file, read.header, read.header_length, start)
        return self._walk


def _is_given_up(found: StoredFrame) -> bool:
    try:
        return GapMarker.of_frame(found.frame).final
    except FrameError:
        return True  # The program that wrote the marker is at fault; no repair knows what to put there.


def place_of_sequence(catalog: SegmentCatalog, origin: Origin, sequence: int) -> tuple[Place, SegmentFiles]:
    """Return where to begin reading for a sequence of an origin: at its frame, or a little before."""
    segments = catalog.segments
    low, high = 0, len(segments)
    # The last segment that begins at or before the sequence.
    while high - low > 1:
        middle = (low + high) // 2
        probe, state = middle, None
        while probe < high:
            try:
                state = catalog.load(segments[probe]).header.origins.get(origin, OriginState())
            except (SegmentError, FileNotFoundError):
                probe += 1
            else:
                break
        if state is not None and state.next <= sequence:
            low = probe
        else:
            # What cannot be read may hold what is wanted: it is read, and its damage named, rather than stepped over.
            high = middle
    files = segments[low]
    beginning = Place(files.base_offset, 0)
    try:
        read = catalog.load(files)
    except (SegmentError, FileNotFoundError):
        return beginning, files
    return read.index.before_sequence(origin, sequence) or beginning, files
