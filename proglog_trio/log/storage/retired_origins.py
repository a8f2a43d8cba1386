"""Where origins ended of which there is nothing left: a reader from a position before that is told what it lacks.

A log forgets such origins in the end, and one that began later never knew them; a reader's position may still name
them. So their ends are kept, in a file that is read only when a position names an origin that the log does not know.

Layout of the file, integers big endian: magic (4 bytes); for each origin, in order, the origin (16 bytes) and its end
(u64), the sequence after its last; CRC-32C of what precedes it (u32).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from attrs import frozen

from proglog_trio.errors import FormatError
from proglog_trio.log.disk import Disk, write_whole
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.origin import ORIGIN_BYTES, Origin

RETIRED_ORIGINS_FILE = "retired-origins"
MAX_RETIRED = 262_144
"""More are not kept; 50 nodes that are restarted daily take 14 years to retire as many."""
_MAGIC = b"\x93PLE"
_ROW = struct.Struct(f">{ORIGIN_BYTES}sQ")
_LONGEST_FILE_BYTES = len(_MAGIC) + MAX_RETIRED * _ROW.size + CHECKSUM_BYTES

_logger = structlog.get_logger(__name__)


@frozen(repr=False)
class RetiredOrigins:
    """The file in a data directory. Methods block, and raise OSError as the disk gives it.

    It has one writer at a time; readers may be in any thread.
    """

    disk: Disk
    directory: Path

    def ends_of(self, origins: Iterable[Origin]) -> dict[Origin, int]:
        """Return where those of some origins ended that are in the file."""
        rows = self._rows()
        return {origin: end for origin in origins if (end := _end_of(rows, origin.data)) is not None}

    def add(self, ends: Mapping[Origin, int]) -> bool:
        """Keep where origins ended, durably; the highest end of each counts. Tell whether that was news."""
        rows = self._rows()
        known = dict(_ROW.iter_unpack(rows))
        news = False
        for origin, end in ends.items():
            before = known.get(origin.data)
            if end > (before or 0) and (before is not None or len(known) < MAX_RETIRED):
                known[origin.data] = end
                news = True
        if news:
            data = _MAGIC + b"".join(_ROW.pack(*entry) for entry in sorted(known.items()))
            write_whole(self.disk, self._path, data + crc32c(data).to_bytes(CHECKSUM_BYTES, "big"))
        return news

    @property
    def _path(self) -> Path:
        return self.directory / RETIRED_ORIGINS_FILE

    def _rows(self) -> bytes:
        """Return the rows; none where there is no file, or it is damaged."""
        try:
            file = self.disk.open(self._path)
        except FileNotFoundError:
            return b""
        try:
            data = file.read_at(0, _LONGEST_FILE_BYTES)
        finally:
            file.close()
        try:
            return rows_of(data)
        except FormatError as error:
            # What is retired from now on is kept again.
            _logger.error("where old origins ended is not known any more", file=str(self._path), reason=str(error))
            return b""


def rows_of(data: bytes) -> bytes:
    """Return the rows of a file's content; raises FormatError where it is damaged."""
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if len(data) < CHECKSUM_BYTES or crc32c(body) != int.from_bytes(checksum, "big"):
        raise FormatError("the ends of retired origins do not match their CRC")
    rows = body[len(_MAGIC) :]
    if not body.startswith(_MAGIC) or len(rows) % _ROW.size:
        raise FormatError("these are no ends of retired origins")
    return rows


def _end_of(rows: bytes, origin: bytes) -> int | None:
    low, high = 0, len(rows) // _ROW.size
    while low < high:
        middle = (low + high) // 2
        found, end = _ROW.unpack_from(rows, middle * _ROW.size)
        if found == origin:
            return int(end)
        if found < origin:
            low = middle + 1
        else:
            high = middle
    return None
