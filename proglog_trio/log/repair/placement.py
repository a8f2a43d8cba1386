"""Which fetched frame goes to which offset.

Offsets that were given out keep their meaning, so a frame is put in a place only if the place is certain: its envelope
can still be read, or the offsets that are absent are exactly as many as the records that are. Where several origins'
frames stood in one place in an order that nothing tells any more, they are ordered by (log time, origin, sequence).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from attrs import Factory, define, evolve, field, frozen

from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.repair.fetched_frames import Fetched, FetchedFrames
from proglog_trio.log.repair.missing_ranges import Gaps, LostGap, Piece, Stretch, holes_of
from proglog_trio.log.repair.survey import Absent, Kept, Pin, Survey, absent_of

NOT_FETCHED = "nobody who was asked has what stood there"
UNCERTAIN = "what stood there can be had, but nothing tells at which of the offsets"
UNKNOWN = "nothing tells what stood there, and no sequence is missing that could have"
REWRITTEN_GAP = "written again by a repair: the first marker was damaged"


@frozen
class Placed:
    """A frame, or a marker, that is put in the place of an absent element, or of what was missing."""

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
    """What becomes of a run's absent elements; each has its number in the survey.

    Attributes:
        placed: what is put there, in the order of its offsets.
        dropped: no record stood there, and nothing is lost with the bytes.
        retired: the records that stood there are in the log at other offsets; these are passed over from now on.
        refused: in words, which fetched frames contradict the log.
        loose: in which something stood that no envelope names.
        uncertain: of those, where all was fetched, and did not fit.
    """

    survey: Survey
    gaps: Gaps
    placed: dict[int, list[Placed]] = Factory(dict)
    dropped: set[int] = Factory(set)
    retired: set[int] = Factory(set)
    refused: list[str] = field(factory=list)
    uncertain: set[int] = Factory(set)
    loose: set[int] = Factory(set)

    def why(self, number: int) -> str:
        """Return why an absent element stays, or a part of it."""
        if number in self.uncertain:
            return UNCERTAIN
        return NOT_FETCHED if number in self.gaps.counted or number in self.loose else UNKNOWN

    def absent(self, number: int) -> Absent:
        """Return an absent element by its number."""
        element = self.survey.elements[number]
        if not isinstance(element, Absent):
            raise TypeError(f"element {number} is not absent")
        return element

    def fills(self, number: int) -> bool:
        """Tell whether nothing is absent any more there."""
        if number in self.dropped or number in self.retired:
            return True
        placed = self.placed.get(number)
        if placed is None:
            return False
        return sum(each.size for each in placed) == self.absent(number).size

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
    loose: list[_Loose] = []
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
            if piece.exact is not None:
                _place_exactly(result, piece.exact, frames)
            else:
                holes = [number for number in holes_of(survey, piece) if result.absent(number).size]
                loose.append(_Loose(stretch, piece, frames, holes))
    for group in _groups(loose):
        numbers = {number for each in group for number in each.holes}
        result.loose |= numbers
        _place_loosely(result, group)
        if all(each.is_whole for each in group):
            result.uncertain |= {number for number in numbers if not result.fills(number)}
    following = {
        (each.content.header.origin, each.content.header.base_sequence): (number, each.content)
        for number, placed in result.placed.items()
        for each in placed
        if isinstance(each.content, Fetched)
    }
    unwritten = [
        gap for gap in gaps.lost_gaps if not _place_gap(result, gap, following.get((gap.origin, gap.to_sequence)))
    ]
    kept_open = {number for gap in unwritten for number in holes_of(survey, gap)}
    for number, element in absent_of(survey.elements):
        if element.is_nothing:
            continue
        if not element.size and number not in kept_open and number not in result.placed:
            result.dropped.add(number)
        elif number not in gaps.counted and number not in result.placed and element.envelope is not None:
            envelope = element.envelope
            # Recovery did not count it, since it was the last of its origin; the log has got the records again since.
            end = envelope.base_sequence + envelope.count
            # Held, and not only passed: a marker behind it is no copy of what is damaged here.
            if (state := held.get(envelope.origin)) is not None and state.holds(envelope.base_sequence, end):
                result.retired.add(number)
    return result


@frozen
class _Loose:
    """A piece of which no envelope says where it stood.

    Attributes:
        frames: those of it that are there.
        holes: the numbers of the absent elements in which it may have stood.
    """

    stretch: Stretch
    piece: Piece
    frames: list[Fetched]
    holes: list[int]

    @property
    def is_whole(self) -> bool:
        return sum(each.header.count for each in self.frames) == self.piece.count


def _place_exactly(result: Fit, number: int, frames: list[Fetched]) -> None:
    element = result.survey.elements[number]
    if isinstance(element, Kept):
        if element.missing is not None and frames:
            result.placed[number] = _put_in_place(element.frame.base_offset, element.missing, frames)
        return
    envelope = result.absent(number).envelope
    if envelope is None or not frames:
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


def _groups(loose: Iterable[_Loose]) -> list[list[_Loose]]:
    """Return the pieces in groups that have no hole in common."""
    group_of: dict[int, list[_Loose]] = {}
    for each in loose:
        joined = {id(group_of[number]): group_of[number] for number in each.holes if number in group_of}
        # The smaller into the largest, so that long runs of damage do not take the square of their number.
        members = max(joined.values(), key=len, default=[])
        for others in joined.values():
            if others is not members:
                members.extend(others)
                for other in others:
                    group_of.update(dict.fromkeys(other.holes, members))
        members.append(each)
        group_of.update(dict.fromkeys(each.holes, members))
    groups = {id(members): members for members in group_of.values()}
    return list(groups.values())


def _place_loosely(result: Fit, group: list[_Loose]) -> None:
    holes = sorted({number for each in group for number in each.holes})
    if sum(result.absent(number).size for number in holes) != sum(each.piece.count for each in group):
        return
    if len(holes) == 1 and len(group) == 1:
        # One origin alone: each sequence has its offset, whether the others are there or not.
        (each,) = group
        first = result.absent(holes[0]).from_offset - each.piece.from_sequence
        placed = [Placed(first + frame.header.base_sequence, frame) for frame in each.frames]
        if placed:
            result.placed[holes[0]] = placed
        return
    if not all(each.is_whole for each in group):
        return
    filled = _fill(result, holes, group)
    if filled is not None:
        result.placed.update(filled)


def _fill(result: Fit, holes: list[int], group: list[_Loose]) -> dict[int, list[Placed]] | None:
    """Return all of a group's frames in its holes, or None if they do not fill them exactly."""
    waiting = {id(each): list(each.frames) for each in group}
    filled: dict[int, list[Placed]] = {}
    for number in holes:
        absent = result.absent(number)
        here: list[Fetched] = []
        for each in group:
            if each.holes[-1] == number:
                here += waiting[id(each)]
                waiting[id(each)] = []
        room = absent.size - sum(each.header.count for each in here)
        optional = [each for each in group if number in each.holes and each.holes[-1] != number]
        pinned = _pinned(result.survey, number)
        while room > 0:
            heads = [waiting[id(each)] for each in optional if waiting[id(each)]]
            if not heads:
                return None
            queue = min(heads, key=lambda frames: _order(frames[0], pinned))
            frame = queue.pop(0)
            here.append(frame)
            room -= frame.header.count
        if room < 0:
            return None
        here.sort(key=lambda frame: _order(frame, pinned))
        offset = absent.from_offset
        filled[number] = []
        for frame in here:
            filled[number].append(Placed(offset, frame))
            offset += frame.header.count
    return None if any(waiting.values()) else filled


def _pinned(survey: Survey, number: int) -> tuple[Origin, int] | None:
    """Return which frame the index says stood first in an absent element."""
    before = survey.elements[number - 1] if number else None
    return (before.origin, before.base_sequence) if isinstance(before, Pin) else None


def _order(frame: Fetched, pinned: tuple[Origin, int] | None) -> tuple[bool, int, Origin, int]:
    header = frame.header
    return (header.origin, header.base_sequence) != pinned, header.log_time, header.origin, header.base_sequence


def _place_gap(result: Fit, gap: LostGap, following: tuple[int, Fetched] | None) -> bool:
    """Put a gap marker in its place again; False: what it must say is not known, or where it stood.

    Args:
        result: the fit, with all records in their places.
        gap: the marker.
        following: the frame that is put behind it, and in which absent element, if one is.
    """
    next_crc = gap.next_crc if following is None else following[1].header.previous_header_crc
    holes = holes_of(result.survey, gap)
    if next_crc is None or not holes:
        return False
    if len(holes) > 1 and any(result.absent(number).size and not result.fills(number) for number in holes):
        # What is still missing may have stood before it or after it.
        return False
    if following is not None and following[0] in holes:
        number = following[0]
    else:
        before = [number for number in holes if any(_comes_before(each, gap) for each in result.placed.get(number, []))]
        empty = [number for number in holes if not result.absent(number).size]
        number = max([*before, *empty[:1]], default=holes[0])
    marker = GapMarker(gap.origin, gap.from_sequence, gap.to_sequence, next_crc, REWRITTEN_GAP)
    there = result.placed.get(number, [])
    place = next((index for index, each in enumerate(there) if _comes_after(each, gap)), len(there))
    if place < len(there):
        offset = there[place].base_offset
    elif there:
        offset = there[-1].next_offset
    else:
        absent = result.absent(number)
        if absent.size:
            # Records are absent there as well: where among them it stood will be known once they are there.
            return False
        offset = absent.from_offset
    result.placed[number] = [*there[:place], Placed(offset, marker), *there[place:]]
    return True


def _comes_after(placed: Placed, gap: LostGap) -> bool:
    content = placed.content
    if isinstance(content, GapMarker):
        return content.origin == gap.origin and content.from_sequence >= gap.to_sequence
    return content.header.origin == gap.origin and content.header.base_sequence >= gap.to_sequence


def _comes_before(placed: Placed, gap: LostGap) -> bool:
    content = placed.content
    if isinstance(content, GapMarker):
        return content.origin == gap.origin and content.to_sequence <= gap.from_sequence
    return content.header.origin == gap.origin and content.header.next_sequence <= gap.from_sequence
