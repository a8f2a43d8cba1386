"""What stands in a damaged segment, what does not, and between which states of the log that lies.

A segment's header says what the log had before it, the next one's what it had after. Where headers cannot be read in
either copy, the segments around them are surveyed together: a *run*, from a known state to a known state.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress

from attrs import Factory, define, field, frozen

from proglog_trio.errors import FrameError, SegmentError
from proglog_trio.log.disk import File
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, Envelope, EnvelopeKind
from proglog_trio.log.format.frame import LONGEST_FRAME_HEADER_BYTES, FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import OriginState, SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.repair.elements import Damaged, Element, Kept, kept
from proglog_trio.log.repair.index_match import match_index
from proglog_trio.log.state import Bounds
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.index import read_header_copy, read_sound_entries
from proglog_trio.log.storage.scanner import scan_from
from proglog_trio.log.storage.segment import decode_header, read_segment_header
from proglog_trio.log.storage.segment_check import file_faults


@frozen
class SurveyedSegment:
    """One segment of a run.

    Attributes:
        header, header_bytes: None if neither copy can be read.
        following_offset: where the next segment begins.
        size: of its store file in bytes; 0 if it is missing.
        faults: what is wrong with the header or the index, where it costs no records.
    """

    files: SegmentFiles
    header: SegmentHeader | None
    header_bytes: bytes | None
    following_offset: int
    size: int
    faults: tuple[DamagedPlace, ...]


@define
class Survey:
    """A run of segments.

    Attributes:
        segments: in the order of the log.
        elements: all that stands in them, in the order of the log.
        start: what the log had of each origin before the run.
        start_is_known: otherwise start tells only which sequences may be there, and no CRC.
        end: what it had after.
        next_header: of the segment after the run.
    """

    segments: list[SurveyedSegment]
    start: Mapping[Origin, OriginState]
    start_is_known: bool
    end: Mapping[Origin, OriginState]
    next_header: SegmentHeader
    elements: list[Element] = field(factory=list)

    def damaged(self, number: int) -> Damaged:
        """Return an element that cannot be read by its number; raises TypeError if it can."""
        element = self.elements[number]
        if not isinstance(element, Damaged):
            raise TypeError(f"element {number} can be read")
        return element


def read_header(catalog: SegmentCatalog, files: SegmentFiles) -> tuple[SegmentHeader, bytes] | None:
    """Return a segment's header from whichever copy can be read, also where the store file is missing; or None."""
    try:
        store = catalog.disk.open(files.store)
    except FileNotFoundError:
        try:
            index = catalog.disk.open(files.index)
        except FileNotFoundError:
            return None
        with closing(index), suppress(SegmentError):
            data = read_header_copy(index)
            return decode_header(data, files), data
        return None
    with closing(store), suppress(SegmentError):
        return read_segment_header(catalog.disk, files, store)[:2]
    return None


def survey_run(catalog: SegmentCatalog, bounds: Bounds, files: SegmentFiles) -> Survey | None:
    """Survey a closed segment, with those around it whose states are needed; None if it is no longer in the log.

    Raises:
        OSError: as the disk gives it.
    """
    # What the log has not taken note of yet would be compared with bounds that do not know of it.
    segments = catalog.noted_segments
    if files not in segments[:-1]:
        return None
    first = segments.index(files)
    headers: dict[int, tuple[SegmentHeader, bytes] | None] = {first: read_header(catalog, files)}
    while headers[first] is None and first > 0:
        first -= 1
        headers[first] = read_header(catalog, segments[first])
    last = segments.index(files)
    while True:
        last += 1
        if last == len(segments):
            return None
        active = catalog.active
        if segments[last] == active.files:
            # The active segment's header is in memory, whatever became of the file.
            next_header = active.read.header
            break
        headers[last] = read_header(catalog, segments[last])
        found = headers[last]
        if found is not None:
            next_header = found[0]
            break
    beginning = headers[first]
    if beginning is not None:
        start: Mapping[Origin, OriginState] = beginning[0].origins
    elif segments[first].base_offset == 0:
        start = {}
    else:
        start = {origin: OriginState(state.low, state.low) for origin, state in bounds.origins.items()}
    survey = Survey(
        [], start, beginning is not None or segments[first].base_offset == 0, next_header.origins, next_header
    )
    for number in range(first, last):
        _SegmentSurvey(catalog, survey, segments[number], segments[number + 1].base_offset, headers[number]).run()
    return survey


@define
class _SegmentSurvey:
    catalog: SegmentCatalog
    survey: Survey
    files: SegmentFiles
    following_offset: int
    known: tuple[SegmentHeader, bytes] | None
    cursor: int = 0
    elements: list[Element] = Factory(list)

    @property
    def number(self) -> int:
        return len(self.survey.segments)

    def run(self) -> None:
        self.cursor = self.files.base_offset
        size = 0
        faults: list[DamagedPlace] = []
        try:
            store = self.catalog.disk.open(self.files.store)
        except FileNotFoundError as error:
            self._damaged(0, 0, self.following_offset, f"the store file is missing: {error}")
        else:
            with closing(store):
                size = store.size()
                if self.known is None:
                    self._damaged(0, size, self.following_offset, "the segment's header cannot be read")
                else:
                    faults = file_faults(self.catalog.disk, self.files, store)
                    self._walk(store, *self.known)
        header, header_bytes = self.known if self.known is not None else (None, None)
        if header is not None and header_bytes is not None:
            self._match_index(header, header_bytes)
        self.survey.elements += self.elements
        self.survey.segments.append(
            SurveyedSegment(self.files, header, header_bytes, self.following_offset, size, tuple(faults))
        )

    def _walk(self, store: File, header: SegmentHeader, header_bytes: bytes) -> None:
        scanner = scan_from(store, header, len(header_bytes))
        while (item := scanner.step()) is not None:
            if isinstance(item, DamagedPlace):
                self._survey_damage(store, item)
                continue
            envelope = item.envelope
            if envelope.base_offset > self.cursor and envelope.kind is not EnvelopeKind.REOPENED:
                self._damaged(item.position, item.position, envelope.base_offset, "the file lacks them")
            self.cursor = envelope.next_offset
            self.elements.append(kept(self.number, item))
        if self.cursor < self.following_offset:
            end = max(scanner.position, len(header_bytes))
            self._damaged(end, end, self.following_offset, f"the file ends at byte {end}")

    def _damaged(self, position: int, end: int, to_offset: int, detail: str) -> None:
        self.elements.append(Damaged(self.number, position, end, self.cursor, to_offset, None, None, detail))
        self.cursor = to_offset

    def _survey_damage(self, store: File, place: DamagedPlace) -> None:
        envelope = place.envelope
        if envelope is None:
            following = self.following_offset if place.next_offset is None else place.next_offset
            self._damaged(place.position, place.end, following, place.detail)
            return
        if envelope.base_offset > self.cursor:
            self._damaged(place.position, place.position, envelope.base_offset, "the file lacks them")
        header = None
        if envelope.kind is EnvelopeKind.RECORDS:
            header = _sound_header(store, place.position + ENVELOPE_BYTES, envelope)
        following = envelope.next_offset
        self.elements.append(
            Damaged(self.number, place.position, place.end, self.cursor, following, envelope, header, place.detail)
        )
        self.cursor = following

    def _match_index(self, header: SegmentHeader, header_bytes: bytes) -> None:
        """Say of what cannot be read what the index has of it."""
        if all(isinstance(each, Kept) for each in self.elements):
            return
        try:
            index = self.catalog.disk.open(self.files.index)
        except FileNotFoundError:
            return
        with closing(index):
            entries = list(read_sound_entries(index, header_bytes, header.salt))
        self.elements = match_index(self.elements, entries)


def _sound_header(store: File, position: int, envelope: Envelope) -> FrameHeader | None:
    """Return the header of a damaged frame if it can be read and is what the envelope says."""
    try:
        header = FrameHeader.decode(store.read_at(position, min(LONGEST_FRAME_HEADER_BYTES, envelope.length)))
    except FrameError:
        return None
    said = (header.origin, header.base_sequence, header.count, header.frame_length)
    return header if said == (envelope.origin, envelope.base_sequence, envelope.count, envelope.length) else None
