"""Which sequences of an origin a reader has passed without giving them.

A puller must not store the frame after such a place as the one that follows what it has. The place shows in the next
frame of the origin, in a gap marker, or, where neither comes, in the header of the next segment.

What a place lacks may be a gap, missing, damaged or retired: a marker tells the first two from the others, and nothing
that a reader meets tells those apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, define, frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.format.envelope import MARKERS, EnvelopeKind
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.format.stored_frame import StoredFrame


@frozen
class SequenceGap:
    """The sequences [from_sequence, to_sequence) of an origin, which a reader cannot give.

    Attributes:
        marked: a marker stands for them: a gap, or missing. Otherwise they are damaged or retired.
        next_header_crc: if marked, the header CRC of the frame before to_sequence; see GapMarker.
        at_present: they are missing: the log may yet get them.
    """

    origin: Origin
    from_sequence: int
    to_sequence: int
    marked: bool = False
    next_header_crc: int | None = None
    at_present: bool = False


@define
class SequenceGapFinder:
    """Follows what a reader passes and finds the sequences that are not among it.

    Attributes:
        start: where the reader begins; what lies before it is not looked for.
    """

    start: Position
    # Of each origin that has shown up the sequence that comes next; it only grows. Others are where start has them.
    _next: dict[Origin, int] = Factory(dict)

    def next_sequence(self, origin: Origin) -> int:
        """Return the sequence of an origin that should come next."""
        known = self._next.get(origin)
        return self.start.next_sequence(origin) if known is None else known

    def pass_frame(self, found: StoredFrame) -> list[SequenceGap]:
        """Go past a frame that is read, given or not, and return the gaps before it and the one that it marks."""
        envelope = found.envelope
        origin = envelope.origin
        if envelope.kind is EnvelopeKind.RECORDS:
            gaps = self._reach(origin, envelope.base_sequence)
            following = envelope.base_sequence + envelope.count
        elif envelope.kind in MARKERS:
            try:
                marker = GapMarker.of_frame(found.frame)
            except FrameError:
                return []  # The program that wrote it is at fault; the next frame shows what it stood for.
            gaps = self._reach(origin, envelope.base_sequence)
            following = marker.to_sequence
            first = max(self.next_sequence(origin), marker.from_sequence)
            if first < following:
                crc, at_present = marker.previous_header_crc, marker.at_present
                gaps.append(SequenceGap(origin, first, following, True, crc, at_present))
        else:
            return []
        # Not below what is known: frames from before start are read as well, where they stand between later ones.
        self._next[origin] = max(self.next_sequence(origin), following)
        return gaps

    def enter_segment(self, origins: Mapping[Origin, OriginState]) -> list[SequenceGap]:
        """Begin a segment before which the log had these origins, and return the gaps that this shows."""
        return [gap for origin, state in origins.items() for gap in self._reach(origin, state.next)]

    def _reach(self, origin: Origin, sequence: int) -> list[SequenceGap]:
        first = self.next_sequence(origin)
        if sequence <= first:
            return []
        self._next[origin] = sequence
        return [SequenceGap(origin, first, sequence)]
