"""Writing a segment's files anew, in place of damaged ones.

The new store file is written beside the old one, synced, read back and only then renamed over it: a crash at any
moment leaves the one or the other. What was sound is copied byte for byte, but that an envelope which moves says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from attrs import Factory, define, evolve, frozen

from proglog_trio.errors import FrameError, RepairError
from proglog_trio.log.disk import File
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, MARKERS, NO_ORIGIN, Envelope, EnvelopeKind, Salt
from proglog_trio.log.format.frame import Frame, log_time_of
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame, check_frame
from proglog_trio.log.repair.elements import Damaged, Element, Kept
from proglog_trio.log.repair.fetched_frames import Fetched
from proglog_trio.log.repair.placement import Fit, Placed
from proglog_trio.log.repair.survey import SurveyedSegment
from proglog_trio.log.state import LogState
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.index import IndexBuilder, IndexEntry, entries_begin
from proglog_trio.log.storage.scanner import CHUNK_BYTES, scan_from
from proglog_trio.log.storage.segment import NEW_SUFFIX, write_index
from proglog_trio.log.storage.segment_check import scan
from proglog_trio.log.storage.sparse_index import SparseIndex


@frozen
class Rebuilt:
    """What stands in a segment after its repair.

    Attributes:
        remaining: what is still damaged.
    """

    files: SegmentFiles
    remaining: tuple[DamagedPlace, ...]


@define
class SegmentRebuild:
    """Rebuilds one segment of a surveyed run. Blocks.

    Attributes:
        _expected: the envelopes that the new file must read back with.
        _unreadable: what the index has of what stays damaged, and where in the new file that stands.
    """

    catalog: SegmentCatalog
    result: Fit
    number: int
    header: SegmentHeader
    header_bytes: bytes
    _expected: list[Envelope] = Factory(list)
    _unreadable: deque[tuple[int, IndexEntry]] = Factory(deque)

    @property
    def segment(self) -> SurveyedSegment:
        """The segment as it was surveyed."""
        return self.result.survey.segments[self.number]

    def run(self) -> Rebuilt | None:
        """Write the segment's files anew; None: retention has removed it meanwhile.

        Raises:
            RepairError: the old file is not what it was when it was surveyed, or the new one not what it should be;
                the old one stays.
            OSError: as the disk gives it; the old file stays.
        """
        files, disk = self.segment.files, self.catalog.disk
        temporary = files.store.with_suffix(NEW_SUFFIX)
        try:
            with closing(disk.create(temporary)) as new:
                self._write(new)
                new.sync()
                entries, remaining = self._read_back(new)
                size = new.size()
            with self.catalog.files_lock:
                if files not in self.catalog.segments:
                    disk.remove(temporary)
                    return None
                with self.catalog.replacing(files):
                    if self.segment.header is not None:
                        # Otherwise the index has another header, and fits neither store file.
                        write_whole_index(self.catalog, self.segment, self.header_bytes, entries)
                    disk.rename(temporary, files.store)
                    disk.sync_directory(files.directory)
                write_whole_index(self.catalog, self.segment, self.header_bytes, entries, size)
        except (OSError, RepairError) as error:
            self._discard(temporary, error)
            raise
        return Rebuilt(files, tuple(remaining))

    def _discard(self, temporary: Path, error: Exception) -> None:
        """Remove what was not finished; if that fails as well, the next opening does it."""
        try:
            self.catalog.disk.remove(temporary)
        except FileNotFoundError:
            return  # It has its name already.
        except OSError as another:
            error.add_note(f"the unfinished file could not be removed: {another}")

    # -- writing -------------------------------------------------------------------------------------------------------

    def _write(self, new: File) -> None:
        position = 0
        buffers: list[bytes] = []
        held = 0
        for data in self._contents():
            buffers.append(data)
            held += len(data)
            if held >= CHUNK_BYTES:
                new.write_at(position, buffers)
                position += held
                buffers, held = [], 0
        new.write_at(position, buffers)

    def _contents(self) -> Iterator[bytes]:
        """Yield the new file's content, piece by piece."""
        yield self.header_bytes
        position = len(self.header_bytes)
        elements = [
            (number, element)
            for number, element in enumerate(self.result.survey.elements)
            if element.segment == self.number
        ]
        old = None
        if self.segment.size:
            old = self.catalog.disk.open(self.segment.files.store)
        try:
            for place, (number, element) in enumerate(elements):
                pieces: Sequence[bytes]
                if self.result.changes(number):
                    pieces = self._filled(number, element, position)
                elif isinstance(element, Kept):
                    pieces = self._copied(old, element, position)
                else:
                    pieces = [self._left(old, element, is_last=place == len(elements) - 1)]
                    if element.entry is not None:
                        self._unreadable.append((position, element.entry))
                for piece in pieces:
                    yield piece
                    position += len(piece)
        finally:
            if old is not None:
                old.close()

    def _copied(self, old: File | None, element: Kept, position: int) -> Sequence[bytes]:
        frame = element.frame
        envelope = frame.envelope
        if element.is_restored:
            data = envelope.encode(self._old_salt) + frame.data
        else:
            data = b"" if old is None else old.read_at(frame.position, frame.end - frame.position)
        try:
            if len(data) != frame.end - frame.position or data[:ENVELOPE_BYTES] != envelope.encode(self._old_salt):
                raise FrameError("its envelope is not what it was")
            if envelope.length:
                check_frame(data[ENVELOPE_BYTES:], envelope)
        except FrameError as error:
            raise RepairError(
                f"{self.segment.files.store.name} changed while it was repaired: the frame at byte {frame.position}: "
                f"{error}"
            ) from None
        if position == frame.position:
            self._expected.append(envelope)
            return [data]
        moved = evolve(envelope, durable_before=min(envelope.durable_before, position))
        self._expected.append(moved)
        return [moved.encode(self.header.salt), data[ENVELOPE_BYTES:]]

    @property
    def _old_salt(self) -> Salt:
        return self.header.salt if self.segment.header is None else self.segment.header.salt

    def _filled(self, number: int, element: Damaged | Kept, position: int) -> list[bytes]:
        if isinstance(element, Damaged) and number in self.result.retired:
            # Offsets go on behind it; nothing is lost, since the records stand elsewhere.
            envelope = Envelope(EnvelopeKind.REOPENED, 0, element.to_offset, NO_ORIGIN, 0, 0, position)
            self._expected.append(envelope)
            return [envelope.encode(self.header.salt)]
        pieces: list[bytes] = []
        for placed in self.result.placed.get(number, []):
            data = _data_of(placed, self.header)
            stood_at = element.position if isinstance(element, Damaged) else None
            if isinstance(element, Damaged) and element.entry is not None:
                stood_at = element.entry.position
            old = element.envelope if isinstance(element, Damaged) and stood_at == position else None
            if old is not None and old.kind is EnvelopeKind.RECORDS and isinstance(placed.content, Fetched):
                envelope = old
            else:
                envelope = _envelope_of(placed, len(data), position)
            self._expected.append(envelope)
            pieces += [envelope.encode(self.header.salt), data]
            position += ENVELOPE_BYTES + len(data)
        return pieces

    def _left(self, old: File | None, element: Damaged, *, is_last: bool) -> bytes:
        """Return the bytes of damage that stays: as they were, so that what they still tell is not lost."""
        envelope = element.envelope
        size = element.end - element.position
        cut_off = envelope is not None and size < ENVELOPE_BYTES + envelope.length
        if old is None or self.segment.header is None or (cut_off and not is_last):
            # Cut off, it would swallow a part of what follows now; without bytes the offsets are seen not to be there.
            return b""
        return old.read_at(element.position, size)

    # -- reading back --------------------------------------------------------------------------------------------------

    def _read_back(self, new: File) -> tuple[IndexBuilder, list[DamagedPlace]]:
        """Check that the new file holds what it must; return what goes into the index, and what is still damaged."""
        scanner = scan_from(new, self.header, len(self.header_bytes))
        entries = new_index(self.catalog, self.header, self.header_bytes)
        remaining: list[DamagedPlace] = []
        found: list[Envelope] = []
        if new.read_at(0, len(self.header_bytes)) != self.header_bytes:
            raise RepairError(f"the new file of {self.segment.files.store.name} does not read as it was written")
        for item in scan(scanner, self.segment.following_offset):
            if isinstance(item, DamagedPlace):
                remaining.append(item)
                continue
            self._keep_below(item.position, entries)
            found.append(item.envelope)
            envelope = item.envelope
            control_frame = item.data if envelope.kind in MARKERS else b""
            entries.add(
                item.position, envelope, envelope.encode(self.header.salt), log_time_of(item.data), control_frame
            )
        self._keep_below(new.size(), entries)
        if found != self._expected:
            raise RepairError(f"the new file of {self.segment.files.store.name} does not hold what it should")
        return entries, remaining

    def _keep_below(self, position: int, entries: IndexBuilder) -> None:
        """Put what the old index has of what stays damaged before a place into the new one."""
        while self._unreadable and self._unreadable[0][0] <= position:
            place, entry = self._unreadable.popleft()
            entries.keep(entry, place)


def new_index(catalog: SegmentCatalog, header: SegmentHeader, header_bytes: bytes) -> IndexBuilder:
    """Return what makes a segment's index anew."""
    return IndexBuilder(header.salt, SparseIndex(catalog.index_interval_bytes), entries_begin(header_bytes))


def write_whole_index(
    catalog: SegmentCatalog,
    segment: SurveyedSegment,
    header_bytes: bytes,
    entries: IndexBuilder,
    size: int | None = None,
) -> None:
    """Write a closed segment's index, durable on return; the caller holds the lock on files. Raises OSError.

    Args:
        catalog: the segments.
        segment: as it was surveyed.
        header_bytes: its header.
        entries: of its envelopes.
        size: of its store file in bytes; None: the index is to fit the old store file and the new one, so no reader may
            use its entries for either. They stay for a repair, which goes by their order, and so does the copy of the
            header, which may be the only one.
    """
    settled = size is not None
    mark = (len(header_bytes), segment.files.base_offset) if size is None else (size, segment.following_offset)
    write_index(catalog.disk, segment.files, header_bytes, entries, *mark, settled=settled).close()
    catalog.disk.sync_directory(segment.files.directory)


def entries_of(
    catalog: SegmentCatalog, header: SegmentHeader, header_bytes: bytes, elements: Iterable[Element]
) -> IndexBuilder:
    """Return what makes the index of a segment in which these elements stand, and stay where they are."""
    entries = new_index(catalog, header, header_bytes)
    for element in elements:
        if isinstance(element, Kept):
            frame, envelope = element.frame, element.envelope
            entries.add(frame.position, envelope, envelope.encode(header.salt), element.log_time, frame.data)
        elif element.entry is not None:
            entries.keep(element.entry, element.position)
    return entries


def regenerated_header(fit: Fit, number: int, catalog: SegmentCatalog, salt: Salt) -> SegmentHeader | None:
    """Return a header for a segment both copies of whose header are lost, with a salt of its own.

    None where not all that stood in the run before it is there: what the log had would not be known.

    Raises:
        OSError: as the disk gives it.
    """
    survey = fit.survey
    first = survey.segments[0]
    following = survey.next_header
    if first.header is not None:
        state = LogState.of_header(first.header)
        state.go_on(first.header, following.running or 0)
    else:
        state = LogState(following.directory_id, following.cluster_name, first.files.base_offset)
        state.origins.update(survey.start)
        if not survey.start_is_known:
            return None
    for place, element in enumerate(survey.elements):
        if element.segment >= number:
            break
        if isinstance(element, Kept) and place not in fit.placed:
            envelope, data = element.frame.envelope, element.frame.data
            if envelope.length and not data:
                # Only then: what is written from the index may have no store file.
                with closing(catalog.disk.open(survey.segments[element.segment].files.store)) as store:
                    data = store.read_at(element.frame.position + ENVELOPE_BYTES, envelope.length)
            frame = StoredFrame(element.frame.position, envelope, data).frame_without_payload
            state.read_back(envelope.kind, envelope.base_offset, frame, following.created)
        else:
            if isinstance(element, Damaged) and not fit.fills(place):
                if place in fit.gaps.counted:
                    return None
                if element.envelope is None:
                    return None
            for placed in fit.placed.get(place, []):
                content = placed.content
                if isinstance(content, Fetched):
                    shown = Frame(content.header, b"")
                    state.read_back(EnvelopeKind.RECORDS, placed.base_offset, shown, following.created)
                else:
                    shown = content.to_frame(state.clock.high_mark)
                    state.read_back(content.kind, placed.base_offset, shown, following.created)
    state.next_offset = survey.segments[number].files.base_offset
    # By age it goes with the next one: when it was begun is not known.
    return evolve(state.to_header(salt, following.created), running=following.running)


def _data_of(placed: Placed, header: SegmentHeader) -> bytes:
    content = placed.content
    return content.data if isinstance(content, Fetched) else content.to_frame(header.high_mark).encode()


def _envelope_of(placed: Placed, length: int, position: int) -> Envelope:
    content = placed.content
    if isinstance(content, Fetched):
        header = content.header
        return Envelope(
            EnvelopeKind.RECORDS,
            length,
            placed.base_offset,
            header.origin,
            header.base_sequence,
            header.count,
            position,
        )
    return Envelope(
        content.kind, length, placed.base_offset, content.origin, content.from_sequence, content.offsets, position
    )
