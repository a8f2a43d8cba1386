"""What lies before an offset, as a position: found by the index, without walking through what stands before it.

Of each origin the index knows the last frame that it has noted before the offset. Those of the same origin that it has
not noted stand less than the index's interval behind that one, so a stretch of that length is walked for each origin,
envelopes alone, and nothing else. Where the index and the file do not tell the same, the whole segment is walked.

Everything here blocks on the disk: use it from a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define

from proglog_trio.errors import SegmentError
from proglog_trio.log.disk import File
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, IN_OFFSETS
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.state import position_of
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.scanner import SegmentScanner, scan_from
from proglog_trio.log.storage.segment import ReadSegment
from proglog_trio.log.storage.sparse_index import Place

_LEAST_CHUNK_BYTES = 4096

Origins = Callable[[], Mapping[Origin, OriginState]]


def position_before(catalog: SegmentCatalog, origins: Origins, files: SegmentFiles, offset: int) -> Position:
    """Return what lies before the frame that holds an offset, as a position.

    Where the segment cannot be read, that is everything before the next one that can: so much will be left out.

    Args:
        catalog: the segments.
        origins: gives what the log has per origin.
        files: the segment in which the offset stands, or would.
        offset: below the log's end.
    """
    reading: SegmentFiles | None = files
    while reading is not None and reading.base_offset <= catalog.noted_offset:
        try:
            store, read = catalog.open(reading)
        except (SegmentError, FileNotFoundError):
            reading = catalog.after(reading)
            continue
        try:
            search = _Search(catalog, reading, store, read, offset)
            ranges = search.by_index()
            if ranges is None:
                ranges = search.by_walk()
        finally:
            store.close()
        return _past_gaps(Position(ranges), origins())
    return position_of(origins())


def _past_gaps(position: Position, origins: Mapping[Origin, OriginState]) -> Position:
    """Return a position that lies behind the marked gaps that begin where it stands.

    What a log will never have lies before every place in it: a reader that begins here misses nothing that this log
    could give, nor does it when it asks another by this position.
    """
    for origin, state in origins.items():
        for first, following in state.gaps:
            if first == position.next_sequence(origin):
                position = position.advanced(origin, first, following)
    return position


@define
class _Search:
    catalog: SegmentCatalog
    files: SegmentFiles
    store: File
    read: ReadSegment
    offset: int

    def by_walk(self) -> dict[Origin, Range]:
        """Walk from the segment's beginning."""
        ranges = self._ranges_before()
        scanner = self._scan_from(None)
        while (item := scanner.step()) is not None:
            if isinstance(item, DamagedPlace) or item.envelope.kind not in IN_OFFSETS:
                continue
            if item.next_offset > self.offset:
                break
            envelope = item.envelope
            _extend(ranges, envelope.origin, envelope.base_sequence, envelope.base_sequence + envelope.count)
        return ranges

    def by_index(self) -> dict[Origin, Range] | None:
        """Walk behind what the index has noted; None: it does not suffice."""
        interval = self.read.index.interval_bytes
        start = self.read.index.before_offset(self.offset)
        if start is None:
            return None
        end = self._frame_of_offset(start, start.position + interval)
        if end is None:
            return None
        ranges = self._ranges_before()
        scanner: SegmentScanner | None = None
        noted = self.read.index.last_before(end)
        for origin, first_sequence, _ in noted:
            ranges.setdefault(origin, Range(first_sequence, first_sequence))
        for _, _, place in sorted(noted, key=lambda found: found[2].position):
            limit = min(place.position + interval, end.position)
            if scanner is None or scanner.position < place.position:
                scanner = self._scan_from(place)
            while scanner.position < limit:
                item = scanner.step()
                if item is None or isinstance(item, DamagedPlace):
                    return None
                envelope = item.envelope
                if envelope.kind in IN_OFFSETS:
                    if envelope.origin not in ranges:
                        return None
                    _extend(ranges, envelope.origin, envelope.base_sequence, envelope.base_sequence + envelope.count)
        return ranges

    def _frame_of_offset(self, start: Place, unnoted_end: int) -> Place | None:
        """Return where the frame begins that holds the offset; None if the index may not be whole."""
        scanner = self._scan_from(start)
        while scanner.position < unnoted_end:
            place = Place(scanner.expected_offset, scanner.position)
            item = scanner.step()
            if item is None or isinstance(item, DamagedPlace):
                return None
            if item.envelope.kind in IN_OFFSETS and item.next_offset > self.offset:
                return place if item.base_offset == place.offset <= self.offset else None
        return None

    def _ranges_before(self) -> dict[Origin, Range]:
        return {
            origin: Range(min(state.low, state.next), state.next)
            for origin, state in self.read.header.origins.items()
            if state.next
        }

    def _scan_from(self, place: Place | None) -> SegmentScanner:
        return scan_from(
            self.store,
            self.read.header,
            self.read.header_length,
            place,
            end=self.catalog.durable_end(self.files),
            chunk_bytes=max(self.read.index.interval_bytes + ENVELOPE_BYTES, _LEAST_CHUNK_BYTES),
            envelopes_only=True,
        )


def _extend(ranges: dict[Origin, Range], origin: Origin, base_sequence: int, next_sequence: int) -> None:
    held = ranges.get(origin)
    if held is None:
        ranges[origin] = Range(base_sequence, next_sequence)
    elif next_sequence > held.next:
        ranges[origin] = Range(held.low, next_sequence)
