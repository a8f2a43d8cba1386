"""Which sequences of each origin are missing from a surveyed run, and between which of its frames they stood.

Per origin the sound frames, the envelopes of damaged ones (their own, or those that the index has) and gap markers form
a chain from the state before the run to the state after it. What the chain skips is missing. It has a place where
nothing else can have stood there; otherwise nothing tells where it stood, and it stays damaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from attrs import Factory, define, evolve, frozen

from proglog_trio.log.format.envelope import IN_OFFSETS, EnvelopeKind
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.repair.elements import Damaged, Element, Kept
from proglog_trio.log.repair.survey import Survey


@frozen
class Missing:
    """What a repair wants from a peer: the frames with the sequences [from_sequence, to_sequence) of an origin.

    Attributes:
        from_offset, to_offset: they stood somewhere in these offsets of this log.
    """

    origin: Origin
    from_sequence: int
    to_sequence: int
    from_offset: int
    to_offset: int


@frozen
class Piece:
    """Consecutive missing sequences of one origin, with no frame across either end.

    Attributes:
        exact: the number of the element that held exactly this, by its envelope or because nothing else can have stood
            there; None: that is not known.
        after, before: it stood in elements between those with these numbers.
    """

    from_sequence: int
    to_sequence: int
    exact: int | None
    after: int
    before: int

    @property
    def count(self) -> int:
        """How many records."""
        return self.to_sequence - self.from_sequence


@frozen
class Stretch:
    """Missing sequences between two frames whose header CRCs are known, or are the ends of the run.

    Attributes:
        left_crc: what the first frame's previous_header_crc must be; None: not known.
        right_crc: what the last frame's header CRC must be; None: not known.
    """

    origin: Origin
    left_crc: int | None
    right_crc: int | None
    pieces: tuple[Piece, ...]

    @property
    def from_sequence(self) -> int:
        """The first missing sequence."""
        return self.pieces[0].from_sequence

    @property
    def to_sequence(self) -> int:
        """The sequence after the last missing one."""
        return self.pieces[-1].to_sequence


@define
class Gaps:
    """All that is missing from a run.

    Attributes:
        stretches: of records.
        are_markers_missing: the state after the run has gaps of which no marker shows where it stood.
        counted: the numbers of damaged elements with an envelope that the state after the run takes for present.
    """

    stretches: list[Stretch] = Factory(list)
    are_markers_missing: bool = False
    counted: set[int] = Factory(set)


@frozen
class _Mark:
    """One link of an origin's chain; number and element are None for a gap of which no marker stands anywhere."""

    number: int | None
    base: int
    next: int
    element: Element | None


def find_missing(survey: Survey) -> Gaps:
    """Return what is missing from a run."""
    found = Gaps()
    marks: dict[Origin, list[_Mark]] = {}
    for number, element in enumerate(survey.elements):
        for origin, mark in _mark(survey, number, element):
            marks.setdefault(origin, []).append(mark)
    for origin in sorted({*survey.end, *marks}):
        start = survey.start.get(origin, OriginState())
        end = survey.end.get(origin, OriginState())
        chain = _chain(marks.get(origin, []), start, end)
        left_crc = start.last_header_crc if survey.start_is_known or not start.next else None
        found.are_markers_missing |= any(mark.number is None for mark in chain)
        _Follower(survey, origin, found, start.next, left_crc).follow(chain, end)
    _place_alone(survey, found)
    return found


def _place_alone(survey: Survey, found: Gaps) -> None:
    """Give those pieces their place that alone can have stood in a damaged place, and fill it."""
    around = {
        (stretch.origin, piece): [number for number in damage_around(survey, piece) if survey.damaged(number).size]
        for stretch in found.stretches
        for piece in stretch.pieces
        if piece.exact is None
    }
    claims = Counter(number for numbers in around.values() for number in numbers)
    alone = {
        claim: numbers[0]
        for claim, numbers in around.items()
        if len(numbers) == 1 and claims[numbers[0]] == 1 and survey.damaged(numbers[0]).size == claim[1].count
    }
    found.stretches = [
        evolve(
            stretch,
            pieces=tuple(
                evolve(piece, exact=alone.get((stretch.origin, piece), piece.exact)) for piece in stretch.pieces
            ),
        )
        for stretch in found.stretches
    ]


def _mark(survey: Survey, number: int, element: Element) -> Iterator[tuple[Origin, _Mark]]:
    envelope = element.envelope
    if envelope is None:
        return
    if isinstance(element, Kept) and element.gap is not None:
        yield envelope.origin, _Mark(number, element.gap.from_sequence, element.gap.to_sequence, element)
        return
    if envelope.kind in IN_OFFSETS:
        yield envelope.origin, _Mark(number, envelope.base_sequence, envelope.base_sequence + envelope.count, element)
    elif envelope.kind is EnvelopeKind.GAP:
        for first, following in survey.end.get(envelope.origin, OriginState()).gaps:
            if first == envelope.base_sequence:
                yield envelope.origin, _Mark(number, first, following, element)


def _chain(marks: Sequence[_Mark], start: OriginState, end: OriginState) -> list[_Mark]:
    """Return the marks that lead from one state to the other, with the gaps that have none.

    From the end, since what is damaged at the end of what recovery read was not counted, and its sequences may stand in
    the log again further on.
    """
    chain: list[_Mark] = []
    limit = end.next
    for mark in reversed(marks):
        if mark.next <= limit and mark.base >= start.next:
            chain.append(mark)
            limit = mark.base
    chain.reverse()
    known = {(mark.base, mark.next) for mark in chain}
    for first, following in end.gaps:
        if first < start.next or (first, following) in known:
            continue
        if not any(mark.base < following and first < mark.next for mark in chain):
            place = next((place for place, mark in enumerate(chain) if mark.base >= following), len(chain))
            chain.insert(place, _Mark(None, first, following, None))
    return chain


@define
class _Follower:
    """Follows one origin's chain and notes what it skips."""

    survey: Survey
    origin: Origin
    found: Gaps
    cursor: int
    left_crc: int | None
    after: int = -1
    pieces: list[Piece] = Factory(list)

    def follow(self, chain: list[_Mark], end: OriginState) -> None:
        for place, mark in enumerate(chain):
            # Not a slice: a chain has as many marks as the index has entries, and each would copy all that follow.
            numbers = (number for each in range(place, len(chain)) if (number := chain[each].number) is not None)
            self._skip_to(mark.base, next(numbers, len(self.survey.elements)))
            self._follow_mark(mark)
            if mark.number is not None:
                self.after = mark.number
        self._skip_to(end.next, len(self.survey.elements))
        self._close(end.last_header_crc)

    def _skip_to(self, sequence: int, before: int) -> None:
        if sequence > self.cursor:
            self.pieces.append(Piece(self.cursor, sequence, None, self.after, before))
            self.cursor = sequence

    def _follow_mark(self, mark: _Mark) -> None:
        element = mark.element
        if isinstance(element, Kept) and element.missing is not None and mark.number is not None:
            # What was missing before it may be fetched with it: both ends of the stretch are known.
            self.pieces.append(Piece(mark.base, mark.next, mark.number, mark.number, mark.number))
            self._close(element.missing.previous_header_crc)
            self.left_crc = element.missing.previous_header_crc
        elif isinstance(element, Kept):
            is_gap = element.gap is not None
            self._close(None if is_gap else element.previous_header_crc)
            self.left_crc = element.gap.previous_header_crc if element.gap is not None else element.header_crc
        elif isinstance(element, Damaged) and element.envelope is not None and mark.number is not None:
            self.found.counted.add(mark.number)
            if element.envelope.kind is EnvelopeKind.GAP:
                self._pass_gap()
            else:
                self._miss_frame(mark, mark.number, element.header)
        else:
            self._pass_gap()
        self.cursor = mark.next

    def _pass_gap(self) -> None:
        """Go past a marker that cannot be read: the chain of CRCs, which goes on with what it says, ends here."""
        self._close(None)
        self.left_crc = None

    def _miss_frame(self, mark: _Mark, number: int, header: FrameHeader | None) -> None:
        piece = Piece(mark.base, mark.next, number, number, number)
        if header is None:
            self.pieces.append(piece)
            return
        # Its own header can be read, so nothing but the very same frame will do.
        self._close(header.previous_header_crc)
        self.left_crc = header.previous_header_crc
        self.pieces.append(piece)
        self._close(header.header_crc)
        self.left_crc = header.header_crc

    def _close(self, right_crc: int | None) -> None:
        if self.pieces:
            self.found.stretches.append(Stretch(self.origin, self.left_crc, right_crc, tuple(self.pieces)))
            self.pieces = []


def damage_around(survey: Survey, piece: Piece) -> list[int]:
    """Return the numbers of the elements without an envelope in which a piece may have stood."""
    return [
        number
        for number in range(piece.after + 1, piece.before)
        if isinstance(element := survey.elements[number], Damaged) and element.envelope is None
    ]


def _offsets_of(element: Element) -> tuple[int, int] | None:
    """Return the offsets [first, following) that something takes that may be fetched."""
    if isinstance(element, Damaged):
        return element.from_offset, element.to_offset
    if element.missing is not None:
        return element.frame.base_offset, element.frame.next_offset
    return None


def wanted(survey: Survey, found: Gaps) -> list[Missing]:
    """Return what to fetch: the missing sequences of stretches in which some have a place."""
    listed: list[Missing] = []
    for stretch in found.stretches:
        numbers = [piece.exact for piece in stretch.pieces if piece.exact is not None]
        places = [place for number in numbers if (place := _offsets_of(survey.elements[number])) is not None]
        if any(first < following for first, following in places):
            listed.append(
                Missing(
                    stretch.origin,
                    stretch.from_sequence,
                    stretch.to_sequence,
                    min(first for first, _ in places),
                    max(following for _, following in places),
                )
            )
    return listed
