"""What stands at a place of a segment: a frame behind its envelope, or bytes that cannot be read."""

from __future__ import annotations

import struct

from attrs import frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, MARKERS, Envelope
from proglog_trio.log.format.frame import FRAME_MAGIC, Frame, FrameHeader, decode_frame

# The fields of a frame's header that an envelope repeats: magic, header length, origin, base sequence, count, and the
# payload's length and CRC; see frame.py.
_REPEATED = struct.Struct(">4s2xH8x16sQI28xII")


@frozen
class StoredFrame:
    """A portable frame as it stands in a log, checked.

    Attributes:
        position: where its envelope begins in the segment's file.
        envelope: what the log says of it.
        data: the whole portable frame; empty for envelopes that have none behind them.
    """

    position: int
    envelope: Envelope
    data: bytes

    @property
    def base_offset(self) -> int:
        """The local offset of its first record."""
        return self.envelope.base_offset

    @property
    def next_offset(self) -> int:
        """The local offset after its last record."""
        return self.envelope.next_offset

    @property
    def header(self) -> FrameHeader:
        """The frame's header, decoded."""
        return FrameHeader.decode(self.data)

    @property
    def frame(self) -> Frame:
        """The whole frame, decoded."""
        return decode_frame(self.data)

    def without_data(self) -> StoredFrame:
        """Return this without the frame's bytes, to be kept."""
        return StoredFrame(self.position, self.envelope, b"")

    @property
    def frame_without_payload(self) -> Frame | None:
        """The frame with its header alone (a marker whole), or None if there is none behind the envelope."""
        if not self.data:
            return None
        return self.frame if self.envelope.kind in MARKERS else Frame(self.header, b"")

    @property
    def end(self) -> int:
        """Where in the file the next envelope begins."""
        return self.position + ENVELOPE_BYTES + self.envelope.length


@frozen
class DamagedPlace:
    """Bytes of a segment that cannot be read.

    Attributes:
        position, end: the bytes [position, end) of the segment's file.
        envelope: what stood there, if its envelope can still be read.
        expected_offset: the offset at which the damage begins.
        next_offset: the offset at which the next readable frame begins, or None when there is none in this segment.
        detail: what is wrong, in words.
        is_missing_index: nothing but the index file is missing, or its end; it is made anew from the segment's.
    """

    position: int
    end: int
    envelope: Envelope | None
    expected_offset: int
    next_offset: int | None
    detail: str
    is_missing_index: bool = False

    def ends_below(self, durable: int) -> bool:
        """Tell whether the damage lies wholly below a place of the file, and what stood there is not cut off."""
        return self.end <= durable and not (self.envelope is not None and self.next_offset is None)

    def __str__(self) -> str:
        if self.is_missing_index:
            return self.detail
        place = f"bytes {self.position} to {self.end}"
        if self.envelope is not None and self.envelope.count:
            last = self.envelope.base_sequence + self.envelope.count - 1
            place += f", sequences {self.envelope.base_sequence} to {last} of origin {self.envelope.origin}"
        return f"{self.detail} ({place})"


def check_frame(data: bytes, envelope: Envelope) -> None:
    """Check a frame against its own CRCs and its envelope, without decoding more than that needs.

    Raises:
        FrameError: naming what does not match.
    """
    if len(data) < _REPEATED.size:
        raise FrameError(f"a frame of {len(data)} bytes is too short for its header")
    magic, header_length, origin, base_sequence, count, payload_length, payload_crc = _REPEATED.unpack_from(data)
    if magic != FRAME_MAGIC:
        raise FrameError("the frame's magic number is damaged")
    checked = header_length - CHECKSUM_BYTES
    if header_length + payload_length != len(data) or checked < _REPEATED.size:
        raise FrameError("the frame's length does not match its envelope")
    if crc32c(data[:checked]) != int.from_bytes(data[checked:header_length], "big"):
        raise FrameError("the frame's header does not match its CRC")
    if (origin, base_sequence, count) != (envelope.origin.data, envelope.base_sequence, envelope.count):
        raise FrameError("the frame's header does not match its envelope")
    if crc32c(data[header_length:]) != payload_crc:
        raise FrameError("the frame's payload does not match its CRC")
