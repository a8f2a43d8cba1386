"""What a surveyed segment consists of: what is sound and stays, and what cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from attrs import evolve, frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.format.envelope import MARKERS, Envelope, EnvelopeKind
from proglog_trio.log.format.frame import Frame, FrameHeader, decode_frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.storage.index import IndexEntry


@frozen
class Kept:
    """Something that is known whole, and stays: it can be read, or needs nothing but what the index has of it.

    Attributes:
        segment: its number in the run.
        frame: without its bytes, but for a marker's.
        log_time: of its frame; 0 where there is none.
        header_crc, previous_header_crc: of a frame of records.
        gap: the marker, if it is one of a gap.
        missing: the marker, if it is one of what is missing at present, which stays until that is put in its place.
        is_restored: it cannot be read, and is written from the index. Never a frame of records.
    """

    segment: int
    frame: StoredFrame
    log_time: int = 0
    header_crc: int = 0
    previous_header_crc: int = 0
    gap: GapMarker | None = None
    missing: GapMarker | None = None
    is_restored: bool = False

    @property
    def envelope(self) -> Envelope:
        """Its envelope."""
        return self.frame.envelope


@frozen
class Damaged:
    """Offsets [from_offset, to_offset) that cannot be read; none where something without records is damaged.

    Attributes:
        segment: its number in the run.
        position, end: the bytes [position, end) of the old file; none where the file lacks them.
        envelope: what stood there, by the envelope itself or by the index; then of a frame of records, or of a marker
            that an index of the old version does not have. None: neither tells.
        header: the frame's header, if that is sound too: then the payload alone is damaged.
        detail: what is wrong, in words.
        entry: what the index says of it.
        is_piece: it was cut out of a larger damage as the index says, or is what is left of that.
    """

    segment: int
    position: int
    end: int
    from_offset: int
    to_offset: int
    envelope: Envelope | None
    header: FrameHeader | None
    detail: str
    entry: IndexEntry | None = None
    is_piece: bool = False

    @property
    def size(self) -> int:
        """How many offsets."""
        return self.to_offset - self.from_offset

    def place(self) -> DamagedPlace:
        """Return this as the registry of damage has it."""
        return DamagedPlace(self.position, self.end, self.envelope, self.from_offset, self.to_offset, self.detail)

    def goes_on_in(self, following: Damaged) -> bool:
        """Tell whether another is the next piece of the same damage."""
        return (
            (self.is_piece and following.is_piece)
            and (self.segment, self.detail) == (following.segment, following.detail)
            and (self.end, self.to_offset) == (following.position, following.from_offset)
        )


Element = Kept | Damaged


def kept(segment: int, item: StoredFrame) -> Kept:
    """Return what stands at a place of a segment and is sound."""
    envelope = item.envelope
    if envelope.kind is EnvelopeKind.RECORDS:
        header = item.header
        return Kept(segment, item.without_data(), header.log_time, header.header_crc, header.previous_header_crc)
    if envelope.kind not in MARKERS:
        return Kept(segment, item.without_data())
    frame = item.frame
    return _kept_marker(segment, item, frame, is_restored=False)


def restored(segment: int, entry: IndexEntry) -> Kept:
    """Return what the index has the whole of: a marker, or an envelope without a frame."""
    item = StoredFrame(entry.position, entry.envelope, entry.control_frame)
    if not entry.control_frame:
        return Kept(segment, item, is_restored=True)
    return _kept_marker(segment, item, decode_frame(entry.control_frame), is_restored=True)


def _kept_marker(segment: int, item: StoredFrame, frame: Frame, *, is_restored: bool) -> Kept:
    log_time = frame.header.log_time
    marker = None
    with contextlib.suppress(FrameError):  # Its CRCs are right: its writer is at fault, and it says nothing.
        marker = GapMarker.of_frame(frame)
    if marker is not None and marker.at_present:
        return Kept(segment, item, log_time, missing=marker, is_restored=is_restored)
    return Kept(segment, item, log_time, gap=marker, is_restored=is_restored)


def missing_of(elements: list[Element]) -> Iterator[tuple[int, Kept, GapMarker]]:
    """Yield the markers of what is missing at present, with their numbers among the elements."""
    for number, element in enumerate(elements):
        if isinstance(element, Kept) and element.missing is not None:
            yield number, element, element.missing


def joined_places(damaged: Iterable[tuple[Damaged, str]]) -> list[tuple[DamagedPlace, str]]:
    """Return what stays damaged and why, as a scrub meets it: pieces of one damage that stay for one reason are one.

    Args:
        damaged: each with its reason, in the order of the log.
    """
    joined: list[tuple[DamagedPlace, str]] = []
    before: Damaged | None = None
    for element, reason in damaged:
        place = element.place()
        if before is not None and before.goes_on_in(element) and joined[-1][1] == reason:
            first = joined.pop()[0]
            # No envelope is that of them all.
            place = evolve(first, end=place.end, envelope=None, next_offset=place.next_offset)
        joined.append((place, reason))
        before = element
    return joined


def damaged_of(elements: list[Element]) -> Iterator[tuple[int, Damaged]]:
    """Yield what cannot be read, with its number among the elements."""
    for number, element in enumerate(elements):
        if isinstance(element, Damaged):
            yield number, element
