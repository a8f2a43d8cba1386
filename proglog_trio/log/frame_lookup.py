"""Portable frames by origin and sequence: what a peer asks for that repairs its own log.

Everything here blocks on the disk: use it from a worker thread.
"""

from __future__ import annotations

from attrs import Factory, define, frozen

from proglog_trio.errors import FrameError, SegmentError
from proglog_trio.log.disk import File
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame, check_frame
from proglog_trio.log.reader import place_of_sequence
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.scanner import scan_from

MAX_SCANNED_BYTES = 256 << 20
"""One call looks through this much of the store files at most; the next goes on after it."""


@frozen
class FoundFrames:
    """Some frames of one origin.

    Attributes:
        frames: portable frames, whole and sound, in the order of their sequences; between them some may be missing.
        next_sequence: where to go on asking; to_sequence or above: the log has no more of what was asked for.
    """

    frames: list[bytes]
    next_sequence: int


def find_frames(
    catalog: SegmentCatalog, origin: Origin, from_sequence: int, to_sequence: int, max_bytes: int
) -> FoundFrames:
    """Return the frames of an origin that hold any of the sequences [from_sequence, to_sequence).

    Args:
        catalog: the segments.
        origin: whose records.
        from_sequence: the first of the records.
        to_sequence: the one after the last; a frame is returned whole.
        max_bytes: how many bytes of frames to return at most; one frame may be larger.

    Raises:
        OSError: as the disk gives it.
    """
    search = _Search(catalog, origin, from_sequence, to_sequence, max_bytes)
    search.run()
    return FoundFrames(search.frames, search.cursor)


@define
class _Search:
    catalog: SegmentCatalog
    origin: Origin
    cursor: int
    to_sequence: int
    max_bytes: int
    frames: list[bytes] = Factory(list)
    size: int = 0
    scanned: int = 0

    def run(self) -> None:
        if self.cursor >= self.to_sequence:
            return
        begun = self.cursor
        _, first = place_of_sequence(self.catalog, self.origin, self.cursor)
        files: SegmentFiles | None = first
        while files is not None:
            after = self.catalog.after(files)
            following = None if after is None else self._next_before(after)
            if following is None or following > self.cursor:
                try:
                    if not self._search_segment(files):
                        return
                except (SegmentError, FileNotFoundError):
                    pass  # Damaged as a whole, which a reader of it will report, or removed by retention.
                # What did not show up below this is damaged.
                self.cursor = min(max(self.cursor, following or 0), self.to_sequence)
            if self.cursor >= self.to_sequence or (self.scanned > MAX_SCANNED_BYTES and self.cursor > begun):
                return
            files = after
        self.cursor = self.to_sequence

    def _next_before(self, files: SegmentFiles) -> int | None:
        """Return the origin's next sequence before a segment, or None if its header cannot be read."""
        try:
            return self.catalog.load(files).header.origins.get(self.origin, OriginState()).next
        except (SegmentError, FileNotFoundError):
            return None

    def _search_segment(self, files: SegmentFiles) -> bool:
        """Take the frames of one segment; tell whether to go on in the next."""
        store, read = self.catalog.open(files)
        try:
            begin = read.index.before_sequence(self.origin, self.cursor)
            scanner = scan_from(store, read.header, read.header_length, begin, envelopes_only=True)
            position = scanner.position
            while True:
                # Only what is durable: a peer must never have what this log may lose.
                scanner.end = self.catalog.durable_end(files)
                item = scanner.step()
                if item is None:
                    self.scanned += scanner.position - position
                    return True
                if isinstance(item, StoredFrame) and not self._add(files, store, item):
                    return False
        finally:
            store.close()

    def _add(self, files: SegmentFiles, store: File, found: StoredFrame) -> bool:
        envelope = found.envelope
        following = envelope.base_sequence + envelope.count
        if envelope.kind is not EnvelopeKind.RECORDS or envelope.origin != self.origin or following <= self.cursor:
            return True
        if envelope.base_sequence >= self.to_sequence:
            self.cursor = self.to_sequence
            return False
        if self.frames and self.size + envelope.length > self.max_bytes:
            self.cursor = max(self.cursor, envelope.base_sequence)
            return False
        data = store.read_at(found.position + ENVELOPE_BYTES, envelope.length)
        try:
            check_frame(data, envelope)
        except FrameError as error:
            place = DamagedPlace(
                found.position, found.end, envelope, envelope.base_offset, envelope.next_offset, str(error)
            )
            self.catalog.damage.report(files, place, "read")
        else:
            self.frames.append(data)
            self.size += len(data)
        self.cursor = following
        return self.cursor < self.to_sequence
