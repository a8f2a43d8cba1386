"""What a log knows apart from its files: origins, clock, producer table, next offset.

The same state is built by appending and by reading frames back, and a segment's header is a snapshot of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Self

from attrs import Factory, define, evolve, frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.format.clock import HybridClock, clamped, from_milliseconds, to_milliseconds
from proglog_trio.log.format.envelope import EnvelopeKind, Salt
from proglog_trio.log.format.frame import MUST_UNDERSTAND_CODEC, Frame, FrameHeader
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import LAST_EPOCH, Origin
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.segment_header import MissingRange, OriginState, SegmentHeader
from proglog_trio.log.producer_table import BELIEVED_IDLE_MILLISECONDS, ProducerTable, Remembered, StoredBatch


def position_of(origins: Mapping[Origin, OriginState]) -> Position:
    """Return the position after everything that a log has."""
    return Position({origin: Range(state.low, state.next) for origin, state in origins.items() if state.next})


@frozen
class Bounds:
    """What a log holds durably at one moment: the offsets [lowest_offset, next_offset), and what per origin."""

    lowest_offset: int
    next_offset: int
    origins: Mapping[Origin, OriginState]


@define
class LogState:
    """The state after some frame of the log.

    Attributes:
        directory_id, cluster_name: of the data directory.
        next_offset: what the next record gets. It goes back only where nothing was stored, and skips what a tail that
            was cut away may have used.
        clock: gives out log times.
        origins: per origin what the log has. Its next and last_header_crc are always those of one frame or marker, the
            last: the next frame of the origin is checked against both.
        producers: what producers stored last.
        own: the origin under which this opening of the directory appends; None before its first append, and again after
            a return to the wall clock. It is always a new one, so that no sequence is ever given out twice.
        running: the running time in milliseconds, see running_time.py; it is set before each change of the state.
        remembered: what the producer table took in of the newest frame, so that it can be taken back.
    """

    directory_id: bytes
    cluster_name: str
    next_offset: int = 0
    clock: HybridClock = Factory(HybridClock)
    origins: dict[Origin, OriginState] = Factory(dict)
    producers: ProducerTable = Factory(ProducerTable)
    own: Origin | None = None
    running: int = 0
    remembered: Remembered | None = None

    @classmethod
    def of_header(cls, header: SegmentHeader) -> Self:
        """Return the state that a segment's header is a snapshot of."""
        clock = HybridClock()
        clock.recall(header.high_mark)
        return cls(
            header.directory_id,
            header.cluster_name,
            header.base_offset,
            clock,
            dict(header.origins),
            ProducerTable.decode(header.producers),
            running=header.running or 0,
        )

    def go_on(self, header: SegmentHeader, running: int) -> None:
        """Go on from a header, at the running time at which the directory was opened."""
        self.running = running
        if header.running is None:
            # The times in its table are a wall clock's, which cannot be compared with running time.
            self.producers.use_all(running)

    def to_header(self, salt: Salt, wall_milliseconds: int) -> SegmentHeader:
        """Return the header of a segment that begins here."""
        return SegmentHeader(
            self.directory_id,
            self.cluster_name,
            salt,
            self.next_offset,
            wall_milliseconds,
            self.clock.high_mark,
            dict(self.origins),
            self.producers.encode(),
            self.running,
        )

    def find_stored(self, batch: Batch) -> StoredBatch | None:
        """Return what a batch repeats, or None if it is new; raises as ProducerTable.find does."""
        if not batch.producer_id:
            return None
        return self.producers.find(batch.producer_id, batch.producer_sequence, batch.payload_crc, self.running)

    def append(self, batch: Batch, wall_milliseconds: int, rng: random.Random) -> tuple[PendingFrame, Appended]:
        """Give a batch its place under this opening's own origin and return its frame and that place."""
        own = self.own
        if own is None:
            epochs = [origin.epoch for origin in self.origins if origin.directory_id == self.directory_id]
            # A copy of this directory may have claimed the last epoch there is; then the random bits have to do.
            epoch = min(max(epochs, default=-1) + 1, LAST_EPOCH)
            own = self.own = Origin.make(self.directory_id, epoch, rng)
        before = self.origins.get(own, OriginState())
        header = FrameHeader(
            own,
            before.next,
            batch.count,
            self.clock.tick(wall_milliseconds, batch.after_log_time),
            len(batch.payload),
            batch.payload_crc,
            batch.producer_id,
            batch.producer_sequence,
            before.last_header_crc,
            batch.attributes & MUST_UNDERSTAND_CODEC,
        )
        data = header.encode()
        base_offset = self.next_offset
        self._apply_records(header, int.from_bytes(data[-4:], "big"), base_offset, self.running)
        pending_frame = PendingFrame(
            EnvelopeKind.RECORDS,
            base_offset,
            own,
            header.base_sequence,
            header.count,
            (data, batch.payload),
            header.log_time,
        )
        return pending_frame, Appended(base_offset, header.count, own, header.base_sequence, header.log_time)

    def append_foreign(self, frame: Frame, data: bytes, wall_milliseconds: int) -> PendingFrame:
        """Give the next frame of another origin, pulled from a peer, its place.

        Args:
            frame: the frame, checked by decode_frame.
            data: the same frame's bytes, which are stored as they are.
            wall_milliseconds: now.

        Raises:
            FrameError: it is not the one that follows what the log has of its origin.
        """
        header = frame.header
        before = self.origins.get(header.origin, OriginState())
        if header.is_control or header.count < 1:
            raise FrameError(f"a frame of {header.origin} holds no records and cannot be pulled")
        if header.base_sequence != before.next:
            raise FrameError(
                f"a frame of {header.origin} begins at sequence {header.base_sequence}, the log's next is {before.next}"
            )
        if header.previous_header_crc != before.last_header_crc:
            raise FrameError(
                f"sequence {header.base_sequence} of {header.origin} follows a frame whose header has CRC "
                f"{header.previous_header_crc:#010x}, the log has {before.last_header_crc:#010x} there"
            )
        if header.log_time <= before.last_log_time:
            raise FrameError(f"sequence {header.base_sequence} of {header.origin} is older than the one before it")
        base_offset = self.next_offset
        self.clock.witness(header.log_time, wall_milliseconds)
        self._apply_records(header, header.header_crc, base_offset, self.running)
        return PendingFrame(
            EnvelopeKind.RECORDS,
            base_offset,
            header.origin,
            header.base_sequence,
            header.count,
            (data,),
            header.log_time,
        )

    def append_gap(self, marker: GapMarker) -> PendingFrame:
        """Note that the log does not have some sequences of an origin, from its next one on.

        Raises:
            FrameError: the marker does not begin at the origin's next sequence.
        """
        before = self.origins.get(marker.origin, OriginState())
        if marker.from_sequence != before.next:
            raise FrameError(
                f"a marker of {marker.origin} begins at {marker.from_sequence}, the log's next is {before.next}"
            )
        frame = marker.to_frame(self.clock.high_mark)
        base_offset = self.next_offset
        self._apply_marker(marker, base_offset)
        data = (frame.encode(),)
        return PendingFrame(
            marker.kind, base_offset, marker.origin, marker.from_sequence, marker.offsets, data, frame.header.log_time
        )

    def read_back(self, kind: EnvelopeKind, base_offset: int, frame: Frame | None, wall_milliseconds: int) -> None:
        """Apply what stands in the log at opening; frame is None for envelopes without one.

        Raises:
            FrameError: a gap marker that is none.
        """
        self.next_offset = max(self.next_offset, base_offset)
        if frame is None:
            return
        if kind in (EnvelopeKind.GAP, EnvelopeKind.MISSING):
            self._apply_marker(GapMarker.of_frame(frame), base_offset)
            return
        header = frame.header
        if header.origin.directory_id == self.directory_id:
            self.clock.recall(header.log_time)
        else:
            self.clock.witness(header.log_time, wall_milliseconds)
        # When it was stored only clocks tell that may be wrong, so they are believed for little.
        ago = min(max(wall_milliseconds - to_milliseconds(header.log_time), 0), BELIEVED_IDLE_MILLISECONDS)
        self._apply_records(header, header.header_crc, base_offset, max(self.running - ago, 0))

    def return_to(self, wall_milliseconds: int) -> None:
        """Give out log times from the wall clock's on again, under a new origin, although greater ones were given."""
        self.clock.high_mark = from_milliseconds(clamped(wall_milliseconds))
        self.own = None

    def _apply_records(self, header: FrameHeader, header_crc: int, base_offset: int, used: int) -> None:
        before = self.origins.get(header.origin, OriginState())
        self.origins[header.origin] = evolve(
            before,
            next=header.next_sequence,
            last_header_crc=header_crc,
            last_log_time=header.log_time,
            emptied=None,
        )
        self.next_offset = base_offset + header.count
        self.remembered = None
        if header.producer_id:
            appended = Appended(base_offset, header.count, header.origin, header.base_sequence, header.log_time)
            batch = StoredBatch(header.producer_sequence, header.payload_crc, appended)
            self.remembered = self.producers.remember(header.producer_id, batch, used)

    def go_back(
        self, next_offset: int, origins: Mapping[Origin, OriginState], remembered: Iterable[Remembered | None]
    ) -> None:
        """Go back to an earlier state: what came after it is certainly not stored, and no answer said so.

        The clock stays, so that no log time is given out twice, and so does the origin.

        Args:
            next_offset: the earlier state's.
            origins: the earlier state's.
            remembered: what the producer table took in since, the newest first.
        """
        self.next_offset = next_offset
        # In its place: the durable log, and views that were given out, hold on to the mapping.
        self.origins.clear()
        self.origins.update(origins)
        for each in remembered:
            if each is not None:
                self.producers.forget(each)

    def _apply_marker(self, marker: GapMarker, base_offset: int) -> None:
        self.remembered = None
        before = self.origins.get(marker.origin, OriginState())
        first, following = marker.from_sequence, marker.to_sequence
        after = evolve(before, next=following, last_header_crc=marker.previous_header_crc, emptied=None)
        if marker.at_present:
            missing = (*before.missing, MissingRange(first, following, base_offset))
            self.origins[marker.origin] = evolve(after, missing=missing)
        else:
            self.origins[marker.origin] = evolve(after, gaps=(*before.gaps, (first, following)))
        self.next_offset = base_offset + marker.offsets
