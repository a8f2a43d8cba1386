"""Gap markers: control frames with which a log says which sequences of an origin it will never have.

A marker stands in one log only. Its frame has the origin's id, the first missing sequence as base sequence and a
count of 0; its payload is the msgpack array [next sequence, CRC of the header before that, reason].
"""

from __future__ import annotations

from typing import Self

import msgpack
from attrs import frozen

from ..errors import FrameError
from .checksum import crc32c
from .frame import MUST_UNDERSTAND_CONTROL, Frame, FrameHeader
from .origin import Origin

_HIGHEST = 2**64 - 1


@frozen
class GapMarker:
    """The sequences [from_sequence, to_sequence) of an origin are not in this log.

    Attributes:
        previous_header_crc: the header CRC of the frame that ends at to_sequence, so that the chain goes on; see
            frame.py.
        reason: in words.
    """

    origin: Origin
    from_sequence: int
    to_sequence: int
    previous_header_crc: int
    reason: str

    def to_frame(self, log_time: int) -> Frame:
        """Return the marker's control frame."""
        payload = msgpack.packb([self.to_sequence, self.previous_header_crc, self.reason], use_bin_type=True)
        header = FrameHeader(
            self.origin,
            self.from_sequence,
            0,
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
        if not numbers or not frame.header.base_sequence < to_sequence <= _HIGHEST or not isinstance(reason, str):
            raise FrameError("a gap marker names no range of sequences")
        if not 0 <= previous_header_crc < 2**32:
            raise FrameError("a gap marker has a CRC of more than 32 bits")
        return cls(frame.header.origin, frame.header.base_sequence, to_sequence, previous_header_crc, reason)
