"""Walking through a segment's file: frame after frame, damage named and stepped over.

Everything that reads a segment (recovery, readers, the index, verification) reads it through here. Only envelopes are
trusted to say where a frame ends; where one cannot be read, the walk goes on at the next that can.
"""

from __future__ import annotations

from typing import Final

from attrs import define

from proglog_trio.errors import EnvelopeError, FrameError
from proglog_trio.log.disk import File
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, MARKERS, Envelope, EnvelopeKind, Salt, find_envelope
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame, check_frame
from proglog_trio.log.storage.sparse_index import Place

CHUNK_BYTES: Final = 1 << 20
LARGE_FRAME_BYTES: Final = 1 << 16
"""A frame of so many bytes is read by itself: cutting it out of a chunk costs more than a read more does."""


def scan_from(
    store: File,
    header: SegmentHeader,
    header_length: int,
    place: Place | None = None,
    *,
    end: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    envelopes_only: bool = False,
) -> SegmentScanner:
    """Return a scanner of a segment from a place on; None, or one within the header: from the first envelope on.

    Args:
        store: the segment's store file.
        header: its header, whichever copy it is from.
        header_length: how many bytes of the file it takes.
        place: where an envelope begins.
        end: see SegmentScanner.
        chunk_bytes: likewise.
        envelopes_only: likewise.
    """
    start = Place(header.base_offset, 0) if place is None else place
    position = max(start.position, header_length)
    return SegmentScanner(store, header.salt, position, start.offset, end, chunk_bytes, envelopes_only)


@define
class SegmentScanner:
    """A walk through one segment's file, from an envelope on.

    Attributes:
        file: the segment's store file.
        salt: the segment's.
        position: where the next envelope is expected.
        expected_offset: the offset that the next frame should have.
        end: the walk does not go beyond this place; None: the file's end, as it is when it is reached.
        chunk_bytes: how much is read at a time.
        envelopes_only: step from envelope to envelope, neither reading nor checking what stands behind them.
    """

    file: File
    salt: Salt
    position: int
    expected_offset: int
    end: int | None = None
    chunk_bytes: int = CHUNK_BYTES
    envelopes_only: bool = False
    _buffer: bytes = b""
    _buffer_position: int = 0
    # Another large frame likely follows a large one: of what stands after it, the envelope alone is read then.
    _after_large: bool = False

    def _have(self, position: int, length: int, ahead: int | None = None) -> int:
        """Make the buffer hold [position, position + length) as far as the file does; return how much it holds.

        Where it is read from the file, so much is read ahead: chunk_bytes, unless something else is said.
        """
        start = position - self._buffer_position
        held = len(self._buffer) - start
        if start < 0 or held < length:
            wanted = max(length, self.chunk_bytes if ahead is None else ahead)
            if self.end is not None:
                wanted = min(wanted, self.end - position)
            self._buffer = self.file.read_at(position, wanted) if wanted > 0 else b""
            self._buffer_position = position
            held = len(self._buffer)
        return held

    def step(self) -> StoredFrame | DamagedPlace | None:
        """Return what stands at the walk's place and go past it; None at the end."""
        held = self._have(self.position, ENVELOPE_BYTES, ENVELOPE_BYTES if self._after_large else None)
        if held <= 0:
            return None
        try:
            envelope = Envelope.decode(self._buffer, self.position - self._buffer_position, self.salt)
        except EnvelopeError as error:
            return self._damaged(None, self._find_next(self.position + 1), str(error))
        if envelope.base_offset < self.expected_offset:
            detail = f"an envelope has offset {envelope.base_offset}, below the {self.expected_offset} expected"
            return self._damaged(None, self._find_next(self.position + 1), detail)
        frame_position = self.position + ENVELOPE_BYTES
        if self.envelopes_only:
            return self._sound(envelope, b"")
        data = self._frame_bytes(frame_position, envelope.length)
        if len(data) < envelope.length:
            detail = f"the frame is cut off after {len(data)} of {envelope.length} bytes"
            return self._damaged(envelope, None, detail)
        if envelope.kind is EnvelopeKind.RECORDS or envelope.kind in MARKERS:
            try:
                check_frame(data, envelope)
            except FrameError as error:
                return self._damaged(envelope, frame_position + envelope.length, str(error))
        return self._sound(envelope, data)

    def _frame_bytes(self, position: int, length: int) -> bytes:
        """Return the bytes [position, position + length), as far as there are any."""
        start = position - self._buffer_position
        self._after_large = length >= LARGE_FRAME_BYTES and start + length > len(self._buffer)
        if self._after_large:
            return self.file.read_at(position, length if self.end is None else min(length, max(self.end - position, 0)))
        if length:
            self._have(position, length)
            start = position - self._buffer_position
        return self._buffer[start : start + length]

    def _sound(self, envelope: Envelope, data: bytes) -> StoredFrame:
        found = StoredFrame(self.position, envelope, data)
        self.position = found.end
        self.expected_offset = envelope.next_offset
        return found

    def _damaged(self, envelope: Envelope | None, end: int | None, detail: str) -> DamagedPlace:
        """Go past damage that ends at the given place, or with the file."""
        position, expected = self.position, self.expected_offset
        next_offset: int | None
        if end is None:
            self.position = max(position + 1, self.file.size() if self.end is None else self.end)
            next_offset = None
        else:
            self.position = end
            next_offset = self.expected_offset = self._offset_at(end, envelope)
        return DamagedPlace(position, self.position, envelope, expected, next_offset, detail)

    def _offset_at(self, position: int, damaged: Envelope | None) -> int:
        if damaged is not None:
            return damaged.next_offset
        self._have(position, ENVELOPE_BYTES)
        return Envelope.decode(self._buffer, position - self._buffer_position, self.salt).base_offset

    def _find_next(self, position: int) -> int | None:
        """Return where the next envelope at position or later begins whose offset can follow what came before."""
        while self._have(position, max(self.chunk_bytes, ENVELOPE_BYTES)) >= ENVELOPE_BYTES:
            start = position - self._buffer_position
            found = find_envelope(self._buffer, start, self.salt)
            if found is None:
                # An envelope may begin in what is left of this chunk and end in the next.
                last = len(self._buffer) - ENVELOPE_BYTES + 1
                position = self._buffer_position + max(last, start + 1)
                continue
            place = self._buffer_position + found
            if Envelope.decode(self._buffer, found, self.salt).base_offset >= self.expected_offset:
                return place
            position = place + 1
        return None
