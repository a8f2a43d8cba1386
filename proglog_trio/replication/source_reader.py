"""Reading the frames that a puller wants. Everything here blocks on the disk: it is for worker threads.

Two readers go through the log for one puller: one at its end, for origins of which the puller has all but the newest
frames, and one behind it, for those that are being caught up with; so a long way to go delays nothing that is new.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, define, frozen

from ..log.envelope import Envelope, EnvelopeKind
from ..log.log import Log
from ..log.origin import Origin
from ..log.position import Position, Range
from ..log.reader import Bounds, LogReader
from ..log.segment_header import OriginState
from .messages import Ended, EndReason, OriginRange, Want

_HIGHEST = 2**64 - 1
_STEPS = 64
"""So many reads that give nothing wanted are done before the caller has a turn."""


@frozen
class WantChanges:
    """What the puller wants otherwise than before; stops come first."""

    stops: tuple[Origin, ...] = ()
    wants: tuple[Want, ...] = ()


@frozen
class SourceAnswer:
    """What one read gave.

    Attributes:
        frames: portable frames, those of one origin in their order and without a hole.
        ended: origins that cannot go on.
        read_to: the log's end when it was read.
        is_done: nothing that is wanted and below that is left.
    """

    frames: tuple[bytes, ...]
    ended: tuple[Ended, ...]
    read_to: int
    is_done: bool


@define(repr=False)
class _Lane:
    """One reader and the origins that it reads for."""

    reader: LogReader | None = None
    origins: set[Origin] = Factory(set)

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None


@define(repr=False)
class FrameSource:
    """Reads for one puller; one call at a time.

    Attributes:
        log: where to read.
    """

    log: Log
    _cursors: dict[Origin, int] = Factory(dict)
    _tail: _Lane = Factory(_Lane)
    _catch_up: _Lane = Factory(_Lane)

    def read(self, changes: WantChanges, most_bytes: int) -> SourceAnswer:
        """Return the next frames that are wanted.

        Args:
            changes: what is wanted otherwise since the last call.
            most_bytes: of frames, from each of the two readers; a single frame may be larger.

        Raises:
            OSError: as the disk gives it.
        """
        bounds = self.log.bounds()
        self._change(changes, bounds)
        frames: list[bytes] = []
        ended: list[Ended] = []
        tail_done = self._read_lane(self._tail, most_bytes, bounds, frames, ended)
        catch_up_done = self._read_lane(self._catch_up, most_bytes, bounds, frames, ended)
        if catch_up_done and self._catch_up.origins:
            self._join_tail(bounds)
        return SourceAnswer(tuple(frames), tuple(ended), bounds.next_offset, tail_done and catch_up_done)

    def close(self) -> None:
        """Close the readers."""
        self._tail.close()
        self._catch_up.close()

    def _change(self, changes: WantChanges, bounds: Bounds) -> None:
        for origin in changes.stops:
            self._drop(origin)
        restart = False
        for want in changes.wants:
            self._drop(want.origin)
            self._cursors[want.origin] = want.from_sequence
            state = bounds.origins.get(want.origin)
            if state is None or want.from_sequence >= state.next:
                self._tail.origins.add(want.origin)
            else:
                self._catch_up.origins.add(want.origin)
                restart = True
        if self._tail.origins and self._tail.reader is None:
            self._tail.reader = self.log.reader_at_offset(bounds.next_offset, skip_missing=True)
        if restart or not self._catch_up.origins:
            self._catch_up.close()
        if restart:
            self._catch_up.reader = self._open_catch_up(bounds.origins)

    def _drop(self, origin: Origin) -> None:
        self._cursors.pop(origin, None)
        self._tail.origins.discard(origin)
        self._catch_up.origins.discard(origin)

    def _open_catch_up(self, origins: Mapping[Origin, OriginState]) -> LogReader:
        # As if the puller had everything that is not wanted here.
        ranges = {
            origin: Range(0, self._cursors[origin] if origin in self._catch_up.origins else _HIGHEST)
            for origin in origins
        }
        return self.log.reader_at_position(Position(ranges), skip_missing=True)

    def _join_tail(self, bounds: Bounds) -> None:
        """Everything below the log's end is read: what comes next is the other reader's."""
        if self._tail.reader is None:
            self._tail.reader = self.log.reader_at_offset(bounds.next_offset, skip_missing=True)
        self._tail.origins |= self._catch_up.origins
        self._catch_up.origins.clear()
        self._catch_up.close()

    def _read_lane(self, lane: _Lane, most_bytes: int, bounds: Bounds, frames: list[bytes], ended: list[Ended]) -> bool:
        """Read until there is enough, or the end; tell whether it is the end."""
        reader = lane.reader
        if reader is None:
            return True
        if not lane.origins:
            lane.close()
            return True
        reader.wanted = lambda envelope: self._wants(lane, envelope)
        size = 0
        for _ in range(_STEPS):
            if reader.next_offset >= bounds.next_offset:
                break
            for stored in reader.read(most_bytes - size, bounds.next_offset).frames:
                if self._take(lane, stored.envelope, bounds, ended):
                    frames.append(stored.data)
                    size += len(stored.data)
            if size >= most_bytes * 3 // 4:
                return reader.next_offset >= bounds.next_offset
        if reader.next_offset < bounds.next_offset:
            return False
        for origin in sorted(lane.origins):
            state = bounds.origins.get(origin)
            if state is not None and self._cursors[origin] < state.next:
                self._end(lane, origin, None, bounds, ended)
        return True

    def _wants(self, lane: _Lane, envelope: Envelope) -> bool:
        return (
            envelope.kind is EnvelopeKind.RECORDS
            and envelope.origin in lane.origins
            and envelope.base_sequence + envelope.count > self._cursors[envelope.origin]
        )

    def _take(self, lane: _Lane, envelope: Envelope, bounds: Bounds, ended: list[Ended]) -> bool:
        if not self._wants(lane, envelope):
            return False
        origin = envelope.origin
        if envelope.base_sequence > self._cursors[origin]:
            self._end(lane, origin, envelope.base_sequence, bounds, ended)
            return False
        self._cursors[origin] = envelope.base_sequence + envelope.count
        return True

    def _end(self, lane: _Lane, origin: Origin, resumes_at: int | None, bounds: Bounds, ended: list[Ended]) -> None:
        cursor = self._cursors.pop(origin)
        lane.origins.discard(origin)
        held = OriginRange.of_state(bounds.origins.get(origin, OriginState()))
        is_known = cursor < held.low or held.gap_at(cursor) is not None
        ended.append(Ended(origin, cursor, resumes_at, EndReason.MISSING if is_known else EndReason.DAMAGED))
