"""What of a log is durable: what its readers, peers and clients are given, and nothing else.

Three things change it, all in the host thread: commits add to its end, retention takes from its start, and repair
settles what is missing in between. Readers are made in other threads and must not see offsets of one moment and origins
of another, so each change is made under the lock, and each reader begins with a copy that is taken under it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from attrs import Factory, define, evolve, field

from proglog_trio.log.counters import LogCounters
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import MissingRange, OriginState, SegmentHeader
from proglog_trio.log.pending_work import PendingWork
from proglog_trio.log.reader import LogReader
from proglog_trio.log.state import Bounds, LogState
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.retired_origins import RetiredOrigins
from proglog_trio.log.storage.running_time import RunningTime
from proglog_trio.log.tail_cache import TailCache
from proglog_trio.log.watchers import Watchers
from proglog_trio.log.writer import Roll

_NO_GAPS: Mapping[Origin, Sequence[tuple[int, int]]] = MappingProxyType({})


@define
class DurableLog:
    """The durable part of a log. Methods belong to the host thread, but for those that say that any may call them.

    Attributes:
        catalog: the segments, of which readers are made.
        lowest_offset, next_offset: the log durably holds [lowest_offset, next_offset). Neither ever goes back.
        origins: what it holds per origin; of each it is never more than what is planned of it.
        tail_cache: the newest of it, in memory.
        retired_origins: where origins ended of which nothing is left, and which this log does not know, or forgets.
        watchers: are called after each change.
    """

    catalog: SegmentCatalog
    # What is planned on top of this. What retention and repair find holds for both, so they change both at once.
    _planned: LogState
    _running_time: RunningTime
    _counters: LogCounters
    tail_cache: TailCache
    retired_origins: RetiredOrigins
    watchers: Watchers
    lowest_offset: int = field(init=False)
    next_offset: int = field(init=False)
    origins: dict[Origin, OriginState] = field(init=False)
    _lock: threading.Lock = Factory(threading.Lock)

    def __attrs_post_init__(self) -> None:
        # When a log is opened, everything that its state has is durable.
        self.lowest_offset, self.next_offset = self.catalog.segments[0].base_offset, self._planned.next_offset
        self.origins = dict(self._planned.origins)

    # -- for readers ---------------------------------------------------------------------------------------------------

    def bounds(self) -> Bounds:
        """Return what is durable at this moment; from any thread."""
        with self._lock:
            return Bounds(self.lowest_offset, self.next_offset, dict(self.origins))

    def reader_at_offset(self, offset: int, *, skip_missing: bool) -> LogReader:
        """Return a reader from an offset on; see LogReader.at_offset. Blocks; in any thread."""
        while True:
            with self._lock:
                lowest, following = self.lowest_offset, self.next_offset
                # Copied only where it is needed: a log may have many thousands of origins.
                at_end = dict(self.origins) if offset >= following else {}
            origins = partial(dict, at_end) if offset >= following else lambda: self.bounds().origins
            reader = LogReader.at_offset(self.catalog, lowest, following, origins, offset, skip_missing=skip_missing)
            if lowest == self.lowest_offset:
                return reader
            # Retention removed segments meanwhile: perhaps the one in which it would begin.
            reader.close()

    def reader_at_position(self, position: Position, *, skip_missing: bool) -> LogReader:
        """Return a reader of what does not lie before a position; see LogReader.at_position. Blocks; in any thread."""
        while True:
            bounds = self.bounds()
            unknown = [origin for origin in position.ranges if origin not in bounds.origins]
            if unknown:
                ends = self.retired_origins.ends_of(unknown).items()
                retired = {origin: OriginState(low=end, next=end) for origin, end in ends}
                bounds = evolve(bounds, origins={**bounds.origins, **retired})
            reader = LogReader.at_position(self.catalog, bounds, position, skip_missing=skip_missing)
            if bounds.lowest_offset == self.lowest_offset:
                return reader
            reader.close()

    def missing_segments(self) -> list[SegmentFiles]:
        """Return the segments in which records are missing at present, in the order of the log."""
        offsets = {each.offset for state in self.origins.values() for each in state.missing}
        found = {self.catalog.containing(offset) for offset in offsets}
        return sorted(found, key=lambda files: files.base_offset)

    # -- changes -------------------------------------------------------------------------------------------------------

    def advance(self, items: Iterable[PendingWork]) -> None:
        """Add what has become durable, the oldest first."""
        with self._lock:
            for item in items:
                self.next_offset = item.next_offset
                if isinstance(item.work, Roll):
                    self.catalog.noted_offset = item.work.header.base_offset
                elif item.changed is not None:
                    origin, state = item.changed
                    # Since the state was planned, retention may have removed segments, and a repair have filled places.
                    held = self.origins.get(origin)
                    if held is not None and held.low > state.low:
                        state = state.raised(held.low, self._running_time.milliseconds())
                    if state.missing and (planned := self._planned.origins.get(origin)) is not None:
                        missing = still_missing(state.missing, planned.missing)
                        gaps = tuple(gap for gap in planned.gaps if gap[1] <= state.next)
                        state = evolve(state, missing=missing, gaps=gaps)
                    self.origins[origin] = state
                    if isinstance(item.work, PendingFrame):
                        self.tail_cache.add(item.work)

    def forget_segments(self, count: int, oldest: SegmentHeader) -> tuple[SegmentFiles, ...]:
        """Take the oldest segments out of the log, so that their files can be removed.

        Args:
            count: how many.
            oldest: the header of the segment that is then the oldest.

        Raises:
            ValueError: that segment begins beyond what the log has been told of as durable.
        """
        if oldest.base_offset > self.catalog.noted_offset:
            raise ValueError(f"the segment from offset {oldest.base_offset} on has not been noted as durable yet")
        running = self._running_time.milliseconds()
        with self._lock:
            forgotten = self.catalog.forget(count)
            self.lowest_offset = max(self.lowest_offset, oldest.base_offset)
            for origin, before in oldest.origins.items():
                for origins in (self._planned.origins, self.origins):
                    if origin in origins:
                        origins[origin] = origins[origin].raised(before.next, running)
        self.catalog.damage.forget_below(oldest.base_offset)
        self._counters.segments_removed += len(forgotten)
        self.watchers.call_all()
        return forgotten

    def settle_missing(
        self,
        from_offset: int,
        to_offset: int,
        left: Mapping[Origin, Sequence[MissingRange]],
        gaps: Mapping[Origin, Sequence[tuple[int, int]]] = _NO_GAPS,
    ) -> dict[Origin, list[tuple[int, int]]]:
        """Replace what is missing at present in closed segments, after they were looked at or filled.

        Args:
            from_offset: where the segments begin.
            to_offset: where the next one does.
            left: what is still missing in them.
            gaps: what in them was missing once, and has been given up.

        Returns: what of the gaps was not known as such.
        """
        changed = False
        news: dict[Origin, list[tuple[int, int]]] = {}
        with self._lock:
            for origins in (self._planned.origins, self.origins):
                for origin, state in origins.items():
                    here = [each for each in state.missing if from_offset <= each.offset < to_offset]
                    if not here:
                        continue
                    # What is left cannot be more than what was missing: nothing else puts markers into closed segments.
                    missing = (*(each for each in state.missing if each not in here), *left.get(origin, ()))
                    missing = tuple(sorted(missing, key=lambda each: each.from_sequence))
                    if missing != state.missing:
                        found = {(max(first, state.low), end) for first, end in gaps.get(origin, ()) if end > state.low}
                        if found.difference(state.gaps):
                            news[origin] = sorted(found.difference(state.gaps))
                        origins[origin] = evolve(state, missing=missing, gaps=tuple(sorted({*state.gaps, *found})))
                        changed = True
        if changed:
            self.watchers.call_all()
        return news

    def forget_origins(self, origins: Iterable[Origin]) -> list[Origin]:
        """Drop what is known of origins of which the log has nothing left; return those that are dropped.

        Where they ended is to be among the retired origins by then.

        The origin that is written stays, and so does one that something waits to be committed of.
        """
        forgotten = []
        with self._lock:
            for origin in origins:
                state = self.origins.get(origin)
                if state is None or state.low < state.next or origin == self._planned.own:
                    continue
                # Only where nothing is planned on top: a commit would bring it back, as if it began there.
                if self._planned.origins.get(origin) == state:
                    del self.origins[origin], self._planned.origins[origin]
                    forgotten.append(origin)
        return forgotten


def still_missing(ranges: Iterable[MissingRange], among: Iterable[MissingRange]) -> tuple[MissingRange, ...]:
    """Return the parts of ranges that are missing among others, too."""
    among = tuple(among)
    parts = (each.clipped(other.from_sequence, other.to_sequence) for each in ranges for other in among)
    return tuple(part for part in parts if part is not None)
