"""Reading the frames that a puller wants. Everything here blocks on the disk: it is for worker threads.

Two readers go through the log for one puller: one at its end, for origins of which the puller has all but the newest
frames, and one behind it, for those that are being caught up with; so a long way to go delays nothing that is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from attrs import Factory, define, frozen

from proglog_trio.log.format.envelope import Envelope, EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.log import Log
from proglog_trio.log.reader import LogReader
from proglog_trio.log.state import Bounds
from proglog_trio.replication.messages import Ended, EndReason, OriginRange, Want

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
        pieces: portable frames, one after the other, those of one origin in their order, each the next of the one
            before; a frame may be in several pieces.
        count: how many frames they are.
        ended: origins that cannot go on.
        read_to: the log's end when it was read.
        is_done: nothing that is wanted and below that is left.
    """

    pieces: tuple[bytes, ...]
    count: int
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
    # Up to where the log is read for the origins at its end.
    _tail_offset: int = 0
    # The next sequence of each origin that is wanted; each of them is in just one of the lanes, and nothing else is.
    _cursors: dict[Origin, int] = Factory(dict)
    _tail: _Lane = Factory(_Lane)
    _catch_up: _Lane = Factory(_Lane)

    def read(self, changes: WantChanges, max_bytes: int) -> SourceAnswer:
        """Return the next frames that are wanted.

        Args:
            changes: what is wanted otherwise since the last call.
            max_bytes: of frames, from each of the two readers; a single frame may be larger.

        Raises:
            OSError: as the disk gives it.
        """
        # Read once: an origin's end and the log's must be of one moment, or what was appended between them would seem
        # to be missing.
        bounds = self.log.bounds()
        self._change(changes, bounds)
        self._place_tail()
        frames: list[bytes] = []
        ended: list[Ended] = []
        tail_done = self._read_lane(self._tail, max_bytes, bounds, frames, ended)
        if self._tail.reader is not None:
            self._tail_offset = self._tail.reader.next_offset
        catch_up_done = self._read_lane(self._catch_up, max_bytes, bounds, frames, ended)
        if catch_up_done and self._catch_up.origins:
            self._join_tail(bounds)
        return SourceAnswer(tuple(frames), len(frames), tuple(ended), bounds.next_offset, tail_done and catch_up_done)

    def read_recent(self, max_bytes: int) -> SourceAnswer | None:
        """Return what is new from memory, if that is all that is wanted; None: it has to be read.

        It does not block, and is called in the log's thread, while no read is under way.
        """
        log, lane = self.log, self._tail
        if self._catch_up.origins or not lane.origins or self._tail_offset < log.durable.tail_cache.start_offset:
            return None
        bounds = Bounds(log.lowest_offset, log.next_offset, log.origins)
        pieces: list[bytes] = []
        ended: list[Ended] = []
        count = size = 0
        for frame in log.durable.tail_cache.since(self._tail_offset):
            # Not before the first: one that is larger than that would never be sent.
            if pieces and size + frame.length > max_bytes:
                return SourceAnswer(tuple(pieces), count, tuple(ended), bounds.next_offset, is_done=False)
            if self._accept(lane, frame, bounds, ended):
                pieces += frame.buffers
                size += frame.length
                count += 1
            self._tail_offset = frame.base_offset + frame.count
        self._tail_offset = bounds.next_offset
        self._end_what_is_missing(lane, bounds, ended)
        return SourceAnswer(tuple(pieces), count, tuple(ended), bounds.next_offset, is_done=True)

    @property
    def is_at_the_end(self) -> bool:
        """Whether what comes next is in memory."""
        return not self._catch_up.origins and self._tail_offset >= self.log.durable.tail_cache.start_offset

    def close(self) -> None:
        """Close the readers."""
        self._tail.close()
        self._catch_up.close()

    def _change(self, changes: WantChanges, bounds: Bounds) -> None:
        for origin in changes.stops:
            self._drop(origin)
        restart = False
        if not self._tail.origins:
            # What came while no origin was read here concerns none.
            self._tail_offset = bounds.next_offset
        for want in changes.wants:
            self._drop(want.origin)
            self._cursors[want.origin] = want.from_sequence
            state = bounds.origins.get(want.origin)
            # All that is to come of it comes at the log's end.
            if state is None or want.from_sequence >= state.next:
                self._tail.origins.add(want.origin)
            else:
                self._catch_up.origins.add(want.origin)
                restart = True
        if restart or not self._catch_up.origins:
            self._catch_up.close()
        if restart:
            # From the lowest place of all that are caught up with: those that were further are read past once more.
            self._catch_up.reader = self._open_catch_up(bounds.origins)

    def _place_tail(self) -> None:
        """Have a reader at the log's end where one is needed; what came from memory need not be read again."""
        reader = self._tail.reader
        if reader is not None and (not self._tail.origins or reader.next_offset != self._tail_offset):
            self._tail.close()
        if self._tail.origins and self._tail.reader is None:
            self._tail.reader = self.log.reader_at_offset(self._tail_offset, skip_missing=True)

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
        if not self._tail.origins:
            self._tail_offset = bounds.next_offset
        # The tail may be behind that; its cursors drop what was read here already.
        self._tail.origins |= self._catch_up.origins
        self._catch_up.origins.clear()
        self._catch_up.close()

    def _read_lane(self, lane: _Lane, max_bytes: int, bounds: Bounds, frames: list[bytes], ended: list[Ended]) -> bool:
        """Read until there is enough, or the end; tell whether it is the end."""
        reader = lane.reader
        if reader is None:
            return True
        if not lane.origins:
            lane.close()
            return True
        size = 0
        for _ in range(_STEPS):
            if reader.next_offset >= bounds.next_offset:
                break
            # What is not wanted is passed over by its envelope, without its payload being read.
            chunk = reader.read(max_bytes - size, bounds.next_offset, partial(self._wants, lane))
            for stored in chunk.frames:
                if self._accept(lane, stored.envelope, bounds, ended):
                    frames.append(stored.data)
                    size += len(stored.data)
            # Nearly full is enough: a read for the little that is left costs as much as one for a whole answer.
            if size >= max_bytes * 3 // 4:
                return reader.next_offset >= bounds.next_offset
        if reader.next_offset < bounds.next_offset:
            return False
        self._end_what_is_missing(lane, bounds, ended)
        return True

    def _end_what_is_missing(self, lane: _Lane, bounds: Bounds, ended: list[Ended]) -> None:
        """The log is read to its end: what has not shown up by then is not there."""
        for origin in sorted(lane.origins):
            state = bounds.origins.get(origin)
            if state is not None and self._cursors[origin] < state.next:
                # It may be there when it is asked for again; this is what holds of what there is now.
                self._end(lane, origin, state.next, bounds, ended)

    def _wants(self, lane: _Lane, frame: Envelope | PendingFrame) -> bool:
        return (
            frame.kind is EnvelopeKind.RECORDS
            and frame.origin in lane.origins
            and frame.base_sequence + frame.count > self._cursors[frame.origin]
        )

    def _accept(self, lane: _Lane, frame: Envelope | PendingFrame, bounds: Bounds, ended: list[Ended]) -> bool:
        if not self._wants(lane, frame):
            return False
        origin = frame.origin
        if frame.base_sequence > self._cursors[origin]:
            # What lies between is not in the log, or cannot be read. The puller decides whether to go on behind it.
            self._end(lane, origin, frame.base_sequence, bounds, ended)
            return False
        self._cursors[origin] = frame.base_sequence + frame.count
        return True

    def _end(self, lane: _Lane, origin: Origin, resumes_at: int, bounds: Bounds, ended: list[Ended]) -> None:
        cursor = self._cursors.pop(origin)
        lane.origins.discard(origin)
        held = OriginRange.of_state(bounds.origins.get(origin, OriginState()))
        # What the log knows that it does not have is a gap, missing or retired; everything else has become unreadable.
        is_known = held.knows_not_to_hold(cursor)
        ended.append(Ended(origin, cursor, resumes_at, EndReason.MISSING if is_known else EndReason.DAMAGED))
