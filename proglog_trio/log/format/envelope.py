"""Local envelopes: what one log adds in front of a portable frame.

An envelope says where in this log a frame stands. It begins with a marker and ends with a CRC that both come from the
segment's random salt, so nothing that a producer sends can look like one: recovery trusts envelopes only. It also
says from where on the file was not yet durable when it was written, so that recovery can tell a damaged frame that
had been acknowledged from a tail that a crash tore.
"""

from __future__ import annotations

import enum
import struct
from typing import Self

from attrs import frozen

from proglog_trio.errors import EnvelopeError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.origin import Origin

_FIELDS = struct.Struct(">4sHHIQ16sQIQ")
_CHECKSUM = struct.Struct(">I")
ENVELOPE_BYTES = _FIELDS.size + CHECKSUM_BYTES
SALT_BYTES = 8
NO_ORIGIN = Origin(bytes(16))


class EnvelopeKind(enum.IntEnum):
    """What stands behind an envelope."""

    RECORDS = 0
    """A portable frame of records."""
    GAP = 1
    """A portable control frame that says which sequences of its origin this log does not have. No offset is used."""
    CLOSED = 2
    """Nothing: the log was closed here, and everything before is durable."""
    REOPENED = 3
    """Nothing: recovery found damage before; offsets go on at base_offset, so that none is used twice. The base
    sequence is no sequence: see Envelope.cut_off_below."""
    MISSING = 4
    """A portable control frame that says which sequences of its origin this log does not have at present. It uses as
    many offsets, in which the records are put if they turn up: then no reader has seen another order."""


_KINDS = frozenset(EnvelopeKind)
MARKERS = frozenset((EnvelopeKind.GAP, EnvelopeKind.MISSING))
"""Control frames that say what is not there."""
IN_OFFSETS = frozenset((EnvelopeKind.RECORDS, EnvelopeKind.MISSING))
"""What uses offsets, and is noted by the index in memory."""


@frozen
class Salt:
    """What makes the envelopes of one segment its own: 8 random bytes, never sent anywhere."""

    data: bytes

    @property
    def marker(self) -> bytes:
        """The 4 bytes with which each envelope begins."""
        return self.data[:4]

    @property
    def seed(self) -> int:
        """What the envelopes' CRC is continued from."""
        return int.from_bytes(self.data[4:], "big")


@frozen
class Envelope:
    """The local envelope of one frame.

    Attributes:
        kind: what stands behind it.
        length: the length of the portable frame behind it, in bytes.
        base_offset: the local offset of the first record.
        origin, base_sequence, count: the same as in the frame (for a gap: count is 0; for what is missing: how much).
        durable_before: everything before this place of the segment's file was durable when the envelope was written.
    """

    kind: EnvelopeKind
    length: int
    base_offset: int
    origin: Origin
    base_sequence: int
    count: int
    durable_before: int

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.base_offset + self.count

    @property
    def cut_off_below(self) -> int:
        """For REOPENED: the offsets from the frame before up to this one had been acknowledged, and are lost."""
        return self.base_sequence if self.kind is EnvelopeKind.REOPENED else 0

    def encode(self, salt: Salt) -> bytes:
        """Return the envelope's bytes in a segment with this salt."""
        fields = _FIELDS.pack(
            salt.marker,
            self.kind,
            0,
            self.length,
            self.base_offset,
            self.origin.data,
            self.base_sequence,
            self.count,
            self.durable_before,
        )
        return fields + _CHECKSUM.pack(crc32c(fields, salt.seed))

    @classmethod
    def decode(cls, data: bytes, start: int, salt: Salt) -> Self:
        """Return the envelope that begins at data[start]; raises EnvelopeError where there is none."""
        end = start + _FIELDS.size
        if len(data) < end + CHECKSUM_BYTES:
            raise EnvelopeError(f"an envelope is cut off after {len(data) - start} of {ENVELOPE_BYTES} bytes")
        if data[start : start + 4] != salt.marker:
            raise EnvelopeError("no envelope begins here")
        if crc32c(data[start:end], salt.seed) != _CHECKSUM.unpack_from(data, end)[0]:
            raise EnvelopeError("an envelope does not match its CRC")
        _, kind, _, length, base_offset, origin, base_sequence, count, durable_before = _FIELDS.unpack_from(data, start)
        try:
            known_kind = EnvelopeKind(kind)
        except ValueError:
            raise EnvelopeError(f"an envelope is of kind {kind}, which this program does not know") from None
        return cls(known_kind, length, base_offset, Origin(origin), base_sequence, count, durable_before)


def read_unchecked(data: bytes, start: int) -> Envelope | None:
    """Return what an envelope at data[start] would say, its marker and CRC unchecked; None where none can be."""
    if start < 0 or len(data) - start < ENVELOPE_BYTES:
        return None
    _, kind, _, length, base_offset, origin, base_sequence, count, durable_before = _FIELDS.unpack_from(data, start)
    if kind not in _KINDS:
        return None
    return Envelope(EnvelopeKind(kind), length, base_offset, Origin(origin), base_sequence, count, durable_before)


def find_envelope(data: bytes, start: int, salt: Salt) -> int | None:
    """Return where in data, at start or later, the next envelope of the segment with this salt begins, or None."""
    place = data.find(salt.marker, start)
    while place >= 0:
        try:
            Envelope.decode(data, place, salt)
        except EnvelopeError:
            place = data.find(salt.marker, place + 1)
        else:
            return place
    return None
