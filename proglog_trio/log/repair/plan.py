"""Repairing a closed segment with frames that other logs have.

Portable frames are the same everywhere, so what a disk has damaged here can be had from any log that holds it. A plan
says what is missing, by origin and sequence; the caller fetches what can be had; rebuild puts it in its place. This
knows no network. Whatever is wrong, one bit or a whole file, the segment's files are written anew: segment_rewrite.py.

Everything here blocks on the disk: use it from a worker thread. For the active segment, let the log go on in a new one
first (Log.roll), or use run.py.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from attrs import define, evolve, field, frozen

from proglog_trio.log.format.envelope import SALT_BYTES, Salt
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import MissingRange, OriginState, SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.repair.elements import Damaged, Kept, damaged_of, joined_places, missing_of
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.missing_ranges import Gaps, Missing, find_missing, wanted
from proglog_trio.log.repair.placement import Fit, Placed, fit
from proglog_trio.log.repair.segment_rewrite import (
    Rebuilt,
    SegmentRebuild,
    entries_of,
    regenerated_header,
    write_whole_index,
)
from proglog_trio.log.repair.survey import Survey, SurveyedSegment, survey_run
from proglog_trio.log.state import Bounds
from proglog_trio.log.storage.catalog import SegmentCatalog

_NONE: Mapping[Origin, Sequence[MissingRange]] = MappingProxyType({})
NOT_WRITTEN = "the segment's files could not be written anew yet"


@frozen
class RepairOutcome:
    """What an attempt to repair did.

    Attributes:
        segments: the segments that were looked at.
        rewritten: those whose files were written anew.
        repaired_offsets: how many offsets can be read again.
        remaining: what is still damaged in them, and why.
        refused: in words, which of the fetched frames were not taken.
        offsets: the offsets [from, to) of the segments that were looked at.
        missing: what is missing at present in them, by origin.
        gaps: the sequences [from, to) that were missing at present and have been given up, now or before.
        filled_offsets: how many offsets were filled in which records had been missing at present.
    """

    segments: tuple[SegmentFiles, ...]
    rewritten: tuple[SegmentFiles, ...]
    repaired_offsets: int
    remaining: tuple[tuple[SegmentFiles, DamagedPlace, str], ...]
    refused: tuple[str, ...]
    offsets: tuple[int, int]
    missing: Mapping[Origin, Sequence[MissingRange]]
    gaps: Mapping[Origin, Sequence[tuple[int, int]]]
    filled_offsets: int = 0


@define
class RepairPlan:
    """What a segment lacks. It holds for as long as no other repair changes the segment's files.

    Attributes:
        missing: what to fetch; empty where it can be repaired from what is here, or not at all.
    """

    catalog: SegmentCatalog
    survey: Survey
    gaps: Gaps
    held: Mapping[Origin, OriginState]
    missing: tuple[Missing, ...]
    _rng: random.Random = field(factory=random.SystemRandom)

    @property
    def is_sound(self) -> bool:
        """Whether nothing at all is wrong."""
        elements = self.survey.elements
        faults = any(segment.faults for segment in self.survey.segments)
        return not faults and all(
            isinstance(each, Kept) and each.missing is None and not each.is_restored for each in elements
        )

    def rebuild(
        self, fetched: FetchedFrames, given_up: Mapping[Origin, Sequence[MissingRange]] = _NONE
    ) -> RepairOutcome:
        """Repair what can be repaired with these frames, and tell the log's registry of damage. Blocks.

        Each segment is either as it was or as it should be, whenever this ends, by an error or by a crash.

        Args:
            fetched: what peers sent.
            given_up: what is missing at present and becomes a gap, where it was not fetched.

        Raises:
            RepairError: see SegmentRebuild.run.
            OSError: as the disk gives it.
        """
        with self.catalog.repair_lock:
            return self._rebuild(fetched, given_up)

    def _rebuild(self, fetched: FetchedFrames, given_up: Mapping[Origin, Sequence[MissingRange]]) -> RepairOutcome:
        result = fit(self.survey, self.gaps, fetched, self.held)
        for number, element, marker in missing_of(self.survey.elements):
            pieces = result.placed.get(number, [Placed(element.frame.base_offset, marker)])
            after = [_given_up(piece, given_up) for piece in pieces]
            if after != pieces:
                result.placed[number] = after
        rewritten: list[SegmentFiles] = []
        remaining: list[tuple[SegmentFiles, DamagedPlace, str]] = []
        repaired = 0
        # Before anything is written: what they are made from stands where it was surveyed.
        headers = {
            number: self._new_header(result, number)
            for number, segment in enumerate(self.survey.segments)
            if segment.header is None and self._changes(result, number)
        }
        for number, segment in enumerate(self.survey.segments):
            reason: str | None = None
            new_header = headers.get(number)
            if isinstance(new_header, str):
                rebuilt, reason = None, new_header
            else:
                rebuilt = self._rebuild_segment(result, number, segment, new_header)
            damaged = self._damaged(number)
            if rebuilt is not None:
                rewritten.append(segment.files)
                left = _with_reasons(rebuilt.remaining, damaged, result)
                repaired += sum(found.size for each, found in damaged.items() if each in result.retired)
                repaired += sum(placed.records for each in damaged for placed in result.placed.get(each, []))
            elif segment.files in self.catalog.segments:
                left = joined_places((found, reason or result.why(each)) for each, found in damaged.items())
                left += [(fault, reason or NOT_WRITTEN) for fault in segment.faults]
            else:
                left = []  # Retention removed it.
            remaining += [(segment.files, place, why) for place, why in left]
        segments = tuple(segment.files for segment in self.survey.segments)
        self.catalog.damage.settle(segments, remaining)
        refused = (*fetched.refused, *result.refused)
        missing, gaps, filled = self._still_missing(result, rewritten)
        offsets = self.survey.segments[0].files.base_offset, self.survey.segments[-1].following_offset
        return RepairOutcome(
            segments, tuple(rewritten), repaired, tuple(remaining), refused, offsets, missing, gaps, filled
        )

    def _still_missing(
        self, result: Fit, rewritten: Collection[SegmentFiles]
    ) -> tuple[dict[Origin, list[MissingRange]], dict[Origin, list[tuple[int, int]]], int]:
        """Return what is missing at present now, what was given up, now or before, and how much was filled."""
        left: dict[Origin, list[MissingRange]] = {}
        gaps: dict[Origin, list[tuple[int, int]]] = {}
        filled = 0
        for number, element, marker in missing_of(self.survey.elements):
            placed = [Placed(element.frame.base_offset, marker)]
            if self.survey.segments[element.segment].files in rewritten and number in result.placed:
                placed = result.placed[number]
            for each in placed:
                filled += each.records
                if not isinstance(each.content, GapMarker):
                    continue
                content = each.content
                if content.final:
                    gaps.setdefault(content.origin, []).append((content.from_sequence, content.to_sequence))
                else:
                    place = MissingRange(content.from_sequence, content.to_sequence, each.base_offset)
                    left.setdefault(content.origin, []).append(place)
        for each_kept in self.survey.elements:
            # A header of before still names them as missing, and so does the log once it is reopened.
            if isinstance(each_kept, Kept) and each_kept.gap is not None and each_kept.gap.in_place:
                gap = each_kept.gap
                gaps.setdefault(gap.origin, []).append((gap.from_sequence, gap.to_sequence))
        return left, gaps, filled

    def _changes(self, result: Fit, number: int) -> bool:
        """Tell whether anything is put into a segment."""
        return any(
            result.changes(each) or (isinstance(element, Kept) and element.is_restored)
            for each, element in enumerate(self.survey.elements)
            if element.segment == number
        )

    def _damaged(self, number: int) -> dict[int, Damaged]:
        """Return what is damaged in a segment, by its number among the elements."""
        return {each: found for each, found in damaged_of(self.survey.elements) if found.segment == number}

    def _new_header(self, result: Fit, number: int) -> SegmentHeader | str:
        """Return a new header for a segment without one, or why it gets none yet."""
        if self.survey.segments[number].size and not all(result.fills(each) for each in self._damaged(number)):
            return "its header is lost, and what could be had does not fill it: the old file stays"
        header = regenerated_header(result, number, self.catalog, Salt(self._rng.randbytes(SALT_BYTES)))
        return "its header is lost, and the segments before it are not whole yet" if header is None else header

    def _rebuild_segment(
        self, result: Fit, number: int, segment: SurveyedSegment, new_header: SegmentHeader | None
    ) -> Rebuilt | None:
        """Write a segment's files anew if that repairs anything; None: they are as they were."""
        if new_header is not None:
            return SegmentRebuild(self.catalog, result, number, new_header, new_header.encode()).run()
        if segment.header is None or segment.header_bytes is None:
            return None
        if self._changes(result, number) or any(fault.end for fault in segment.faults):
            return SegmentRebuild(self.catalog, result, number, segment.header, segment.header_bytes).run()
        return self._rewrite_index(number, segment, segment.header, segment.header_bytes) if segment.faults else None

    def _rewrite_index(
        self, number: int, segment: SurveyedSegment, header: SegmentHeader, header_bytes: bytes
    ) -> Rebuilt | None:
        elements = [element for element in self.survey.elements if element.segment == number]
        with self.catalog.files_lock:
            if segment.files not in self.catalog.segments:
                return None
            entries = entries_of(self.catalog, header, header_bytes, elements)
            write_whole_index(self.catalog, segment, header_bytes, entries, segment.size)
        places = joined_places((found, "") for found in self._damaged(number).values())
        return Rebuilt(segment.files, tuple(place for place, _ in places))


def _with_reasons(
    places: Iterable[DamagedPlace], damaged: Mapping[int, Damaged], result: Fit
) -> list[tuple[DamagedPlace, str]]:
    """Return what is damaged in a segment that was written anew, and why: by the element that had its first offset."""
    numbers = list(damaged)
    first_offsets = [found.from_offset for found in damaged.values()]
    left: list[tuple[DamagedPlace, str]] = []
    for place in places:
        at = bisect_right(first_offsets, place.expected_offset) - 1
        has_it = at >= 0 and place.expected_offset <= damaged[numbers[at]].to_offset
        left.append((place, result.why(numbers[at]) if has_it else NOT_WRITTEN))
    return left


def _given_up(piece: Placed, given_up: Mapping[Origin, Sequence[MissingRange]]) -> Placed:
    content = piece.content
    if not isinstance(content, GapMarker):
        return piece
    ranges = given_up.get(content.origin, ())
    # What is only a part of it stays: one marker says one thing.
    within = any(
        each.from_sequence <= content.from_sequence and content.to_sequence <= each.to_sequence for each in ranges
    )
    return evolve(piece, content=evolve(content, final=True)) if within else piece


def plan_repair(catalog: SegmentCatalog, bounds: Bounds, files: SegmentFiles) -> RepairPlan | None:
    """Return what a closed segment lacks; None if it is the active one, or no longer in the log. Blocks.

    Args:
        catalog: the segments.
        bounds: what the log holds.
        files: the segment.

    Raises:
        OSError: as the disk gives it.
    """
    survey = survey_run(catalog, bounds, files)
    if survey is None:
        return None
    gaps = find_missing(survey)
    return RepairPlan(catalog, survey, gaps, bounds.origins, tuple(wanted(survey, gaps)))
