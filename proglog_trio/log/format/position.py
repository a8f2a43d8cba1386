"""Positions: a place in the log that any node understands.

A position says, for each origin, which sequences its holder has: [low, next). To clients it is opaque bytes: one byte
of version, a msgpack map of origin (16 bytes) to [low, next], an annex, and a CRC-32C of all that precedes it. A reader
ignores further elements of an entry. The annex is empty or one more msgpack object, which is its holder's own affair (a
consumer keeps there what it has delivered); a log ignores it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Self

import msgpack
from attrs import field, frozen

from proglog_trio.errors import PositionError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.origin import ORIGIN_BYTES, Origin

POSITION_VERSION = 1
LARGEST_POSITION_BYTES = 1 << 20
_CHECKSUM = struct.Struct(">I")
_HIGHEST = 2**64 - 1


@frozen
class Range:
    """The sequences [low, next) of one origin."""

    low: int
    next: int


@frozen
class Position:
    """Per origin, the sequences that a log or a consumer has.

    Attributes:
        ranges: one range an origin; an origin that is missing here has none.
    """

    ranges: Mapping[Origin, Range] = field(factory=dict)

    @classmethod
    def empty(cls) -> Self:
        """Return the position before every record."""
        return cls()

    def next_sequence(self, origin: Origin) -> int:
        """Return the first sequence of this origin that comes after the position."""
        held = self.ranges.get(origin)
        return 0 if held is None else held.next

    def covers(self, origin: Origin, base_sequence: int, count: int) -> bool:
        """Tell whether all of these records come before the position."""
        return base_sequence + count <= self.next_sequence(origin)

    def advanced(self, origin: Origin, base_sequence: int, next_sequence: int) -> Self:
        """Return the position after the records [base_sequence, next_sequence) of an origin as well.

        It never moves back. Where it had nothing of the origin, its low becomes base_sequence.
        """
        held = self.ranges.get(origin)
        if held is None:
            moved = Range(base_sequence, next_sequence)
        elif next_sequence > held.next:
            moved = Range(held.low, next_sequence)
        else:
            return self
        return type(self)({**self.ranges, origin: moved})

    def encode(self, annex: bytes = b"") -> bytes:
        """Return the position's bytes, the same for equal positions.

        Args:
            annex: what its holder keeps with it: nothing, or one msgpack object.
        """
        body = {origin.data: [held.low, held.next] for origin, held in sorted(self.ranges.items())}
        data: bytes = bytes([POSITION_VERSION]) + msgpack.packb(body, use_bin_type=True) + annex
        return data + _CHECKSUM.pack(crc32c(data))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the position of these bytes, without its annex.

        Raises:
            PositionError: they are damaged, of a newer version, or no position at all.
        """
        return cls.decode_with_annex(data)[0]

    @classmethod
    def decode_with_annex(cls, data: bytes) -> tuple[Self, bytes]:
        """Return the position of these bytes and its annex, as it stands; raises as decode."""
        if len(data) > LARGEST_POSITION_BYTES:
            raise PositionError(f"a position of {len(data)} bytes is larger than {LARGEST_POSITION_BYTES}")
        if len(data) < 1 + CHECKSUM_BYTES:
            raise PositionError(f"{len(data)} bytes are no position")
        if crc32c(data[:-CHECKSUM_BYTES]) != _CHECKSUM.unpack(data[-CHECKSUM_BYTES:])[0]:
            raise PositionError("the position does not match its CRC")
        if data[0] != POSITION_VERSION:
            raise PositionError(f"the position has version {data[0]}, this program reads version {POSITION_VERSION}")
        packed = data[1:-CHECKSUM_BYTES]
        try:
            # The size bounds what an array or a map may claim to have, too.
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=max(len(packed), 1))
            unpacker.feed(packed)
            body = unpacker.unpack()
            begin = unpacker.tell()
            if begin < len(packed):
                unpacker.skip()
            if unpacker.tell() < len(packed):
                raise PositionError(f"{len(packed) - unpacker.tell()} bytes follow the position's annex")
        except (ValueError, TypeError, RecursionError, msgpack.OutOfData) as error:
            raise PositionError(f"the position is not msgpack: {error}") from None
        if not isinstance(body, dict):
            raise PositionError("the position is no map of origins")
        return cls(dict(_entry(origin, held) for origin, held in body.items())), packed[begin:]


def _entry(origin: object, held: object) -> tuple[Origin, Range]:
    if not isinstance(origin, bytes) or len(origin) != ORIGIN_BYTES:
        raise PositionError("the position names an origin that is not 16 bytes")
    if not isinstance(held, list) or len(held) < 2:
        raise PositionError(f"the position's range of origin {origin.hex()} is no pair")
    low, following = held[:2]
    for number in (low, following):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _HIGHEST:
            raise PositionError(f"the position's range of origin {origin.hex()} is no pair of sequences")
    if low > following:
        raise PositionError(f"the position's range of origin {origin.hex()} ends before it begins")
    return Origin(origin), Range(low, following)
