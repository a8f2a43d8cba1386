"""Which fetched frame goes to which offset.

Offsets that were given out keep their meaning, so a frame is put in a place only if the place is known: by its
envelope, which the store file or the index still has, or because it alone can have stood between its neighbours. What
neither tells stays as it is, and is named as damaged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import cached_property

from attrs import Factory, define, evolve, field, frozen

from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.repair.elements import Kept, damaged_of
from proglog_trio.log.repair.fetched_frames import Fetched, FetchedFrames
from proglog_trio.log.repair.missing_ranges import Gaps, Piece, damage_around
from proglog_trio.log.repair.survey import Survey

NOT_FETCHED = "no peer that was asked has what stood there"
UNCERTAIN = "neither the segment nor its index tells at which of the offsets each record stood"
UNKNOWN = "nothing tells what stood there, and no sequence is missing that could have"


@frozen
class Placed:
    """A frame, or a marker, that is put in the place of a damaged element, or of what was missing."""

    base_offset: int
    content: Fetched | GapMarker

    @property
    def next_offset(self) -> int:
        """The offset after it."""
        return self.base_offset + self.size

    @property
    def size(self) -> int:
        """How many offsets it uses."""
        return self.content.header.count if isinstance(self.content, Fetched) else self.content.offsets

    @property
    def records(self) -> int:
        """How many records it puts there."""
        return self.content.header.count if isinstance(self.content, Fetched) else 0


@define
class Fit:
    """What becomes of a run's damaged elements; each has its number in the survey.

    Attributes:
        placed: what is put there, in the order of its offsets.
        dropped: no record stood there, and nothing is lost with the bytes.
        retired: the records that stood there are in the log at other offsets; these are passed over from now on.
        refused: in words, which fetched frames contradict the log.
        uncertain: in which records of several origins stood in an order that nothing tells.
    """

    survey: Survey
    gaps: Gaps
    placed: dict[int, list[Placed]] = Factory(dict)
    dropped: set[int] = Factory(set)
    retired: set[int] = Factory(set)
    refused: list[str] = field(factory=list)
    uncertain: set[int] = Factory(set)

    def why(self, number: int) -> str:
        """Return why a damaged element stays, or a part of it."""
        if number in self.uncertain:
            return UNCERTAIN
        return NOT_FETCHED if number in self.fetchable else UNKNOWN

    @cached_property
    def fetchable(self) -> set[int]:
        """Of which is known what stood there."""
        exact = (piece.exact for stretch in self.gaps.stretches for piece in stretch.pieces if piece.exact is not None)
        return self.gaps.counted.union(exact)

    def fills(self, number: int) -> bool:
        """Tell whether nothing is damaged any more there."""
        if number in self.dropped or number in self.retired:
            return True
        placed = self.placed.get(number)
        if placed is None:
            return False
        return sum(each.size for each in placed) == self.survey.damaged(number).size

    def changes(self, number: int) -> bool:
        """Tell whether anything is written there."""
        return number in self.placed or number in self.dropped or number in self.retired


def fit(survey: Survey, gaps: Gaps, fetched: FetchedFrames, held: Mapping[Origin, OriginState]) -> Fit:
    """Return which fetched frames go where.

    Args:
        survey: the run.
        gaps: what is missing from it.
        fetched: what peers sent.
        held: what the log has of every origin, what it has passed without having it told apart.
    """
    result = Fit(survey, gaps)
    for stretch in gaps.stretches:
        chosen = deque(frame for _, frame in sorted(fetched.fitting(stretch, result.refused).items()))
        for piece in stretch.pieces:
            frames: list[Fetched] = []
            while chosen and chosen[0].header.base_sequence < piece.to_sequence:
                frames.append(chosen.popleft())
            if frames and frames[-1].header.next_sequence > piece.to_sequence:
                result.refused.append(
                    f"sequence {piece.to_sequence} of {stretch.origin} begins a frame here, and is inside one at a peer"
                )
                frames.pop()
            if piece.exact is None:
                result.uncertain.update(damage_around(survey, piece))
            elif frames:
                _place(result, piece.exact, piece, frames)
    for number, element in damaged_of(survey.elements):
        if not element.size and number not in gaps.counted and not gaps.are_markers_missing:
            # No record stood there, and no marker either.
            result.dropped.add(number)
        elif number not in gaps.counted and number not in result.placed and element.envelope is not None:
            envelope = element.envelope
            # Recovery did not count it, since it was the last of its origin; the log has got the records again since.
            end = envelope.base_sequence + envelope.count
            # Held, and not only passed: a marker behind it is no copy of what is damaged here.
            if (state := held.get(envelope.origin)) is not None and state.holds(envelope.base_sequence, end):
                result.retired.add(number)
    return result


def _place(result: Fit, number: int, piece: Piece, frames: list[Fetched]) -> None:
    element = result.survey.elements[number]
    if isinstance(element, Kept):
        if element.missing is not None:
            result.placed[number] = _put_in_place(element.frame.base_offset, element.missing, frames)
        return
    envelope = element.envelope
    if envelope is None:
        # One origin alone: each sequence has its offset, whether the others are there or not.
        first = element.from_offset - piece.from_sequence
        result.placed[number] = [Placed(first + frame.header.base_sequence, frame) for frame in frames]
        return
    if envelope.kind is EnvelopeKind.MISSING:
        # Its marker is damaged, so nothing tells what would have to stand behind a part of them.
        if sum(frame.header.count for frame in frames) == envelope.count:
            first = envelope.base_offset - envelope.base_sequence
            result.placed[number] = [Placed(first + frame.header.base_sequence, frame) for frame in frames]
        return
    header = frames[0].header
    said = (envelope.base_sequence, envelope.count, envelope.length)
    if (header.base_sequence, header.count, len(frames[0].data)) == said:
        result.placed[number] = [Placed(envelope.base_offset, frames[0])]
    else:
        result.refused.append(
            f"the frame at sequence {header.base_sequence} of {header.origin} has {header.count} records and "
            f"{len(frames[0].data)} bytes at a peer, by its envelope it had {envelope.count} and {envelope.length} here"
        )


def _put_in_place(base_offset: int, marker: GapMarker, frames: Iterable[Fetched]) -> list[Placed]:
    """Return the frames where they belong, and markers for what is still missing between them."""
    placed: list[Placed] = []
    first = base_offset - marker.from_sequence
    cursor = marker.from_sequence

    def leave(to_sequence: int, previous_header_crc: int) -> None:
        if cursor < to_sequence:
            rest = evolve(
                marker, from_sequence=cursor, to_sequence=to_sequence, previous_header_crc=previous_header_crc
            )
            placed.append(Placed(first + cursor, rest))

    for frame in frames:
        leave(frame.header.base_sequence, frame.header.previous_header_crc)
        placed.append(Placed(first + frame.header.base_sequence, frame))
        cursor = frame.header.next_sequence
    leave(marker.to_sequence, marker.previous_header_crc)
    return placed
