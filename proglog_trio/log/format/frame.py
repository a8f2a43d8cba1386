"""Portable frames: the only form in which records are stored and travel.

The origin writes a frame's header once, the producer its payload; both are byte-identical on every node from then on.
All integers are big endian. A header grows at its end only, before its CRC: a reader uses the fields it knows and
skips the rest. docs/reference/log-format.md has the layout byte by byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Self

from attrs import evolve, frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.origin import Origin

FRAME_MAGIC = b"\x93PLF"
FRAME_VERSION = 1
_FIELDS = struct.Struct(">4sHHHHI16sQIQQQIII")
_LOG_TIME = struct.Struct(">Q")
_LOG_TIME_POSITION = 44
_CHECKSUM = struct.Struct(">I")
FRAME_HEADER_BYTES = _FIELDS.size + CHECKSUM_BYTES
LONGEST_FRAME_HEADER_BYTES = 4096

MUST_UNDERSTAND_CODEC = 0x0007
"""How the payload is compressed; 0: not at all. No other codec is given out yet."""
MUST_UNDERSTAND_CONTROL = 0x0008
"""The payload is no batch of records, but a message to the log itself."""
KNOWN_MUST_UNDERSTAND = MUST_UNDERSTAND_CONTROL
"""The bits that this program understands."""


@frozen
class FrameHeader:
    """The header of a portable frame.

    Attributes:
        origin, base_sequence, count: the records are (origin, base_sequence) up to (origin, base_sequence + count - 1).
        log_time: when the origin appended it, see clock.py; strictly increasing within the origin.
        producer_id, producer_sequence: names the batch for retries; producer_id 0: none.
        previous_header_crc: the header CRC of the frame before this one in the same origin, 0 for the first.
        payload_length, payload_crc: in bytes; CRC-32C as the producer computed it.
        must_understand: attribute bits without which the payload cannot be read.
        may_ignore: attribute bits that a reader may not know.
        stream: which stream of the origin this belongs to; 0.
        extension: fields of a newer writer, kept as they are.
        version: of the layout.
    """

    origin: Origin
    base_sequence: int
    count: int
    log_time: int
    payload_length: int
    payload_crc: int
    producer_id: int = 0
    producer_sequence: int = 0
    previous_header_crc: int = 0
    must_understand: int = 0
    may_ignore: int = 0
    stream: int = 0
    extension: bytes = b""
    version: int = FRAME_VERSION
    header_crc: int = 0

    @property
    def header_length(self) -> int:
        """The header's length in bytes, its CRC included."""
        return FRAME_HEADER_BYTES + len(self.extension)

    @property
    def frame_length(self) -> int:
        """The whole frame's length in bytes."""
        return FRAME_HEADER_BYTES + len(self.extension) + self.payload_length

    @property
    def next_sequence(self) -> int:
        """The sequence after this frame's last record."""
        return self.base_sequence + self.count

    @property
    def is_control(self) -> bool:
        """Whether the payload is a message to the log instead of records."""
        return bool(self.must_understand & MUST_UNDERSTAND_CONTROL)

    def encode(self) -> bytes:
        """Return the header's bytes, with its CRC computed anew."""
        fields = (
            _FIELDS.pack(
                FRAME_MAGIC,
                self.version,
                self.header_length,
                self.must_understand,
                self.may_ignore,
                self.stream,
                self.origin.data,
                self.base_sequence,
                self.count,
                self.log_time,
                self.producer_id,
                self.producer_sequence,
                self.previous_header_crc,
                self.payload_length,
                self.payload_crc,
            )
            + self.extension
        )
        return fields + _CHECKSUM.pack(crc32c(fields))

    def sealed(self) -> Self:
        """Return this header with header_crc set to what encode writes."""
        return evolve(self, header_crc=_CHECKSUM.unpack(self.encode()[-CHECKSUM_BYTES:])[0])

    @classmethod
    def decode(cls, data: bytes | memoryview, start: int = 0) -> Self:
        """Return the header that begins at data[start].

        Raises:
            FrameError: it is cut off, damaged, or of a version or attribute that this program does not know.
        """
        if len(data) - start < FRAME_HEADER_BYTES:
            raise FrameError(f"a frame header is cut off after {len(data) - start} of {FRAME_HEADER_BYTES} bytes")
        (
            magic,
            version,
            header_length,
            must_understand,
            may_ignore,
            stream,
            origin,
            base_sequence,
            count,
            log_time,
            producer_id,
            producer_sequence,
            previous_header_crc,
            payload_length,
            payload_crc,
        ) = _FIELDS.unpack_from(data, start)
        if magic != FRAME_MAGIC:
            raise FrameError(f"no frame begins here: the bytes are {magic.hex()}, not {FRAME_MAGIC.hex()}")
        if not FRAME_HEADER_BYTES <= header_length <= LONGEST_FRAME_HEADER_BYTES:
            raise FrameError(f"a frame header says that it has {header_length} bytes")
        end = start + header_length - CHECKSUM_BYTES
        if len(data) < end + CHECKSUM_BYTES:
            raise FrameError(f"a frame header is cut off after {len(data) - start} of {header_length} bytes")
        header_crc: int = _CHECKSUM.unpack_from(data, end)[0]
        if crc32c(bytes(data[start:end])) != header_crc:
            raise FrameError("a frame header does not match its CRC")
        if version != FRAME_VERSION:
            raise FrameError(f"a frame has version {version}, this program reads version {FRAME_VERSION}")
        return cls(
            Origin(origin),
            base_sequence,
            count,
            log_time,
            payload_length,
            payload_crc,
            producer_id,
            producer_sequence,
            previous_header_crc,
            must_understand,
            may_ignore,
            stream,
            bytes(data[start + _FIELDS.size : end]),
            version,
            header_crc,
        )


def log_time_of(data: bytes) -> int:
    """Return the log time of the frame that data begins with, which is known to be sound; 0 of no frame."""
    if not data:
        return 0
    found: int = _LOG_TIME.unpack_from(data, _LOG_TIME_POSITION)[0]
    return found


def check_understood(must_understand: int) -> None:
    """Raise FrameError if any of these must-understand bits is one that this program does not know."""
    unknown = must_understand & ~KNOWN_MUST_UNDERSTAND
    if unknown:
        raise FrameError(f"the must-understand attribute bits {unknown:#06x} are not known to this program")


@frozen
class Frame:
    """A whole portable frame.

    Attributes:
        header: what it says of itself.
        payload: the bytes that the producer packed.
    """

    header: FrameHeader
    payload: bytes

    @property
    def length(self) -> int:
        """The frame's length in bytes."""
        return self.header.frame_length

    def encode(self) -> bytes:
        """Return the frame's bytes."""
        return self.header.encode() + self.payload


def decode_frame(data: bytes | memoryview, start: int = 0) -> Frame:
    """Return the frame that begins at data[start], its header's and its payload's CRC checked.

    It has bytes of its own: a view of data may go.

    Raises:
        FrameError: it is cut off or damaged, or says something that this program does not understand.
    """
    header = FrameHeader.decode(data, start)
    check_understood(header.must_understand)
    begin = start + header.header_length
    end = begin + header.payload_length
    if len(data) < end:
        raise FrameError(f"a frame is cut off after {len(data) - start} of {header.frame_length} bytes")
    payload = bytes(data[begin:end])
    if crc32c(payload) != header.payload_crc:
        raise FrameError(f"the payload of {header.origin} sequence {header.base_sequence} does not match its CRC")
    return Frame(header, payload)


def iterate_frames(data: bytes) -> Iterator[Frame]:
    """Yield the frames that stand one after the other in data; raises FrameError at the first that is not whole."""
    start = 0
    while start < len(data):
        frame = decode_frame(data, start)
        yield frame
        start += frame.length
