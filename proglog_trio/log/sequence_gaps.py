"""Which sequences of an origin a reader has passed without giving them.

Whoever pulls from a log must not take the frame after a hole for the one that follows what it has. The hole shows in
the next frame of the origin, in a gap marker, or, where none comes, in the header of the next segment.
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
class Hole:
    """The sequences [from_sequence, to_sequence) of an origin, which a reader cannot give.

    Attributes:
        marked: there is a marker for them: the log never had them. Otherwise they are damaged, or were removed.
        next_header_crc: for a marked hole, the header CRC of the frame before to_sequence; see GapMarker.
        at_present: the log may yet get them.
    """

    origin: Origin
    from_sequence: int
    to_sequence: int
    marked: bool = False
    next_header_crc: int | None = None
    at_present: bool = False


@define
class HoleFinder:
    """Follows what a reader gives and finds the holes in it.

    Attributes:
        start: where the reader begins; what lies before it is no hole.
    """

    start: Position
    _next: dict[Origin, int] = Factory(dict)

    def next_sequence(self, origin: Origin) -> int:
        """Return the sequence of an origin that should come next."""
        known = self._next.get(origin)
        return self.start.next_sequence(origin) if known is None else known

    def take(self, found: StoredFrame) -> list[Hole]:
        """Take note of a frame that is read, given or not, and return the holes before it, or that it marks."""
        envelope = found.envelope
        origin = envelope.origin
        if envelope.kind is EnvelopeKind.RECORDS:
            holes = self._reach(origin, envelope.base_sequence)
            following = envelope.base_sequence + envelope.count
        elif envelope.kind in MARKERS:
            try:
                marker = GapMarker.of_frame(found.frame)
            except FrameError:
                return []  # Whoever wrote it is at fault; the next frame shows the hole.
            holes = self._reach(origin, envelope.base_sequence)
            following = marker.to_sequence
            first = max(self.next_sequence(origin), marker.from_sequence)
            if first < following:
                crc, at_present = marker.previous_header_crc, marker.at_present
                holes.append(Hole(origin, first, following, True, crc, at_present))
        else:
            return []
        self._next[origin] = max(self.next_sequence(origin), following)
        return holes

    def enter(self, origins: Mapping[Origin, OriginState]) -> list[Hole]:
        """Take note that the reader begins a segment, before which the log had these origins; return the holes."""
        return [hole for origin, state in origins.items() for hole in self._reach(origin, state.next)]

    def _reach(self, origin: Origin, sequence: int) -> list[Hole]:
        first = self.next_sequence(origin)
        if sequence <= first:
            return []
        self._next[origin] = sequence
        return [Hole(origin, first, sequence)]
