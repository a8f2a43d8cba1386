"""The header of a segment: what a log must know to open without reading what came before.

Layout, integers big endian: magic (4 bytes), version (u16), reserved (u16), the header's length (u32), a msgpack map,
and the CRC-32C of all that precedes it. Any version keeps magic, version, length and CRC where they are, so that an
older program can tell a newer format from damage. The map's keys are the attribute names below.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Self

import msgpack
from attrs import evolve, field, frozen

from proglog_trio.errors import DataDirectoryError, SegmentError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.envelope import SALT_BYTES, Salt
from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES, Origin

SEGMENT_MAGIC = b"\x93PLS"
SEGMENT_VERSION = 2
"""Since version 2 there are markers of what is missing at present, and origins have such ranges."""
LONGEST_SEGMENT_HEADER_BYTES = 1 << 28
_PREFIX = struct.Struct(">4sHHI")
_CHECKSUM = struct.Struct(">I")


@frozen
class MissingRange:
    """The sequences [from_sequence, to_sequence) of an origin, which a log does not have at present.

    Attributes:
        offset: where in the log from_sequence belongs; the others follow it.
    """

    from_sequence: int
    to_sequence: int
    offset: int

    def clipped(self, first: int, following: int) -> Self | None:
        """Return the part of it in [first, following), if any."""
        begin, end = max(self.from_sequence, first), min(self.to_sequence, following)
        return type(self)(begin, end, self.offset + begin - self.from_sequence) if begin < end else None


@frozen
class OriginState:
    """What a log has of one origin.

    Attributes:
        low, next: it has the sequences [low, next) but for gaps and for what is missing.
        last_header_crc: the header CRC of its last frame, 0 before the first.
        last_log_time: of that frame.
        gaps: the ranges (from, to) within [low, next) that a gap marker stands for.
        missing: those that it does not have at present.
        emptied: the running time in milliseconds (see running_time.py) at which retention had left nothing of it at the
            latest; None: something is left.
    """

    low: int = 0
    next: int = 0
    last_header_crc: int = 0
    last_log_time: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    missing: tuple[MissingRange, ...] = ()
    emptied: int | None = None

    @property
    def not_held(self) -> list[tuple[int, int]]:
        """The ranges (from, to) within [low, next) that it does not have, for whatever reason, in their order."""
        return sorted((*self.gaps, *((each.from_sequence, each.to_sequence) for each in self.missing)))

    def holds(self, first: int, following: int) -> bool:
        """Tell whether it has all of the sequences [first, following), as far as is known: damage apart."""
        if not self.low <= first or following > self.next:
            return False
        return not any(begin < following and first < end for begin, end in self.not_held)

    def raised(self, low: int, running: int) -> OriginState:
        """Return it without what lies below low, from a running time in milliseconds on."""
        low = max(self.low, low)
        gaps = tuple((max(first, low), following) for first, following in self.gaps if following > low)
        clipped = (each.clipped(low, self.next) for each in self.missing)
        missing = tuple(each for each in clipped if each is not None)
        emptied = None
        if low >= self.next:
            emptied = running if self.emptied is None else self.emptied
        return evolve(self, low=low, gaps=gaps, missing=missing, emptied=emptied)


@frozen
class SegmentHeader:
    """The header of a segment.

    Attributes:
        directory_id: of the data directory, 8 random bytes.
        cluster_name: which cluster's records these are.
        salt: of the segment's envelopes.
        base_offset: the offset of the first record in the segment.
        created: wall-clock milliseconds. For people: nothing goes by it.
        running: for how long nodes had run on the directory, in milliseconds, see running_time.py; None: a program of
            before wrote the header.
        high_mark: the clock's, see clock.py.
        origins: the state of every origin before the segment's first frame.
        producers: the producer table before it, see producer_table.py.
    """

    directory_id: bytes
    cluster_name: str
    salt: Salt
    base_offset: int
    created: int
    high_mark: int = 0
    origins: Mapping[Origin, OriginState] = field(factory=dict)
    producers: list[Any] = field(factory=list)
    running: int | None = None

    def encode(self) -> bytes:
        """Return the header's bytes."""
        # A header without it is written back as it was.
        running = {} if self.running is None else {"running": self.running}
        body = msgpack.packb(
            {
                "directory_id": self.directory_id,
                "cluster_name": self.cluster_name,
                "salt": self.salt.data,
                "base_offset": self.base_offset,
                "created": self.created,
                "high_mark": self.high_mark,
                "origins": {
                    origin.data: [
                        state.low,
                        state.next,
                        state.last_header_crc,
                        state.last_log_time,
                        [list(gap) for gap in state.gaps],
                        [[each.from_sequence, each.to_sequence, each.offset] for each in state.missing],
                        *([] if state.emptied is None else [state.emptied]),
                    ]
                    for origin, state in self.origins.items()
                },
                "producers": self.producers,
                **running,
            },
            use_bin_type=True,
        )
        length = _PREFIX.size + len(body) + CHECKSUM_BYTES
        data: bytes = _PREFIX.pack(SEGMENT_MAGIC, SEGMENT_VERSION, 0, length) + body
        return data + _CHECKSUM.pack(crc32c(data))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the header of exactly these bytes.

        Raises:
            SegmentError: they are damaged.
            DataDirectoryError: they are of a newer version.
        """
        if len(data) < _PREFIX.size + CHECKSUM_BYTES:
            raise SegmentError(f"a segment header is cut off after {len(data)} bytes")
        magic, version, _, length = _PREFIX.unpack_from(data)
        if magic != SEGMENT_MAGIC or length != len(data):
            raise SegmentError("no segment header begins here")
        if crc32c(data[:-CHECKSUM_BYTES]) != _CHECKSUM.unpack(data[-CHECKSUM_BYTES:])[0]:
            raise SegmentError("a segment header does not match its CRC")
        if version > SEGMENT_VERSION:
            raise DataDirectoryError(
                f"the log has format version {version}, this program reads version {SEGMENT_VERSION}: use a newer one"
            )
        try:
            return cls._of_body(msgpack.unpackb(data[_PREFIX.size : -CHECKSUM_BYTES], raw=False, strict_map_key=False))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise SegmentError(f"a segment header is not what its version says: {error!r}") from None

    @classmethod
    def _of_body(cls, body: dict[str, Any]) -> Self:
        salt, directory_id = body["salt"], body["directory_id"]
        for name, length in (("salt", SALT_BYTES), ("directory_id", DIRECTORY_ID_BYTES)):
            if not isinstance(body[name], bytes) or len(body[name]) != length:
                raise ValueError(f"{name} is not {length} bytes")
        return cls(
            directory_id,
            str(body["cluster_name"]),
            Salt(salt),
            int(body["base_offset"]),
            int(body["created"]),
            int(body["high_mark"]),
            {
                Origin.parse(origin): OriginState(
                    row[0],
                    row[1],
                    row[2],
                    row[3],
                    tuple((first, following) for first, following in row[4]),
                    tuple(MissingRange(*each) for each in row[5]) if len(row) > 5 else (),
                    int(row[6]) if len(row) > 6 else None,
                )
                for origin, row in body["origins"].items()
            },
            body["producers"],
            None if body.get("running") is None else int(body["running"]),
        )


def header_length(prefix: bytes) -> int:
    """Return how long the header is that begins with these bytes (at least HEADER_PREFIX_BYTES of them).

    Raises:
        SegmentError: no header begins so.
    """
    if len(prefix) < _PREFIX.size:
        raise SegmentError(f"a segment header is cut off after {len(prefix)} bytes")
    magic, _, _, length = _PREFIX.unpack_from(prefix)
    if magic != SEGMENT_MAGIC:
        raise SegmentError("no segment header begins here")
    if not _PREFIX.size + CHECKSUM_BYTES <= length <= LONGEST_SEGMENT_HEADER_BYTES:
        raise SegmentError(f"a segment header says that it has {length} bytes")
    return int(length)


HEADER_PREFIX_BYTES = _PREFIX.size
