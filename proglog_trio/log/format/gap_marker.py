"""Markers: control frames with which a log says which sequences of an origin it does not have.

A *gap* it will never have; what is *missing at present* may be put in its place later. A marker stands in one log only.
Its frame has the origin's id, the first sequence as base sequence, and a count of 0 for a gap, of all the sequences for
what is missing; its payload is the msgpack array [next sequence, CRC of the header before that, reason, final]. What
was missing and is given up keeps its offsets, and its marker becomes final.
"""

from __future__ import annotations

from typing import Self

import msgpack
from attrs import frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.frame import MUST_UNDERSTAND_CONTROL, Frame, FrameHeader
from proglog_trio.log.format.origin import Origin

HIGHEST_SEQUENCE = 2**64 - 1
MAX_MISSING = 2**32 - 1
"""So many sequences one marker of what is missing at present can stand for: an envelope counts with 32 bits."""


@frozen
class GapMarker:
    """The sequences [from_sequence, to_sequence) of an origin are not in this log.

    Attributes:
        in_place: the marker uses their offsets, in which they may be put; at most MAX_MISSING of them.
        final: they are given up. Always so where no offsets are used.
        previous_header_crc: the header CRC of the frame that ends at to_sequence, so that the chain goes on; see
            frame.py.
        reason: in words.
    """

    origin: Origin
    from_sequence: int
    to_sequence: int
    previous_header_crc: int
    reason: str
    in_place: bool = False
    final: bool = True

    @property
    def at_present(self) -> bool:
        """Whether the records may yet be put in the offsets that the marker uses."""
        return self.in_place and not self.final

    @property
    def offsets(self) -> int:
        """How many offsets the marker uses."""
        return self.to_sequence - self.from_sequence if self.in_place else 0

    @property
    def kind(self) -> EnvelopeKind:
        """What its envelope says."""
        return EnvelopeKind.MISSING if self.in_place else EnvelopeKind.GAP

    def to_frame(self, log_time: int) -> Frame:
        """Return the marker's control frame."""
        payload = msgpack.packb(
            [self.to_sequence, self.previous_header_crc, self.reason, self.final], use_bin_type=True
        )
        header = FrameHeader(
            self.origin,
            self.from_sequence,
            self.offsets,
            log_time,
            len(payload),
            crc32c(payload),
            must_understand=MUST_UNDERSTAND_CONTROL,
        )
        return Frame(header.sealed(), payload)

    @classmethod
    def of_frame(cls, frame: Frame) -> Self:
        """Return the marker of a control frame; raises FrameError if it is none."""
        try:
            body = msgpack.unpackb(frame.payload, raw=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise FrameError(f"a gap marker is not msgpack: {error}") from None
        if not isinstance(body, list) or len(body) < 3:
            raise FrameError("a gap marker is no array of three")
        to_sequence, previous_header_crc, reason = body[:3]
        numbers = isinstance(to_sequence, int) and isinstance(previous_header_crc, int)
        if (
            not numbers
            or not frame.header.base_sequence < to_sequence <= HIGHEST_SEQUENCE
            or not isinstance(reason, str)
        ):
            raise FrameError("a gap marker names no range of sequences")
        if not 0 <= previous_header_crc < 2**32:
            raise FrameError("a gap marker has a CRC of more than 32 bits")
        origin, from_sequence, count = frame.header.origin, frame.header.base_sequence, frame.header.count
        final = count == 0 or (len(body) > 3 and body[3] is True)
        marker = cls(origin, from_sequence, to_sequence, previous_header_crc, reason, count > 0, final)
        if count != marker.offsets:
            raise FrameError(f"a marker of {to_sequence - marker.from_sequence} missing sequences uses {count} offsets")
        return marker
