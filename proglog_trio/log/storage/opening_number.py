"""The number of an opening of a data directory: what is said of a later one replaces what was said of an earlier one.

A counter kept in the directory, and not the time: clocks are wrong at boot, and go back. The counter's 44 bits are
followed by 20 random ones, so that two copies of a directory that are opened equally often differ all the same.

Layout of the file, integers big endian: magic (4 bytes), counter (u64), CRC-32C of what precedes it (u32).
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

from proglog_trio.log.disk import Disk, has_no_room, write_whole
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c

OPENINGS_FILE = "openings"
_MAGIC = b"\x93PLO"
_FIELDS = struct.Struct(">4sQ")
_RANDOM_BITS = 20
_HIGHEST_COUNTER = 2**44 - 1


def next_opening(disk: Disk, directory: Path, rng: random.Random, above: int = 0) -> int:
    """Raise the counter of a directory, durably if there is room, and return the number of this opening. Blocks.

    Args:
        disk: the file system.
        directory: the data directory; the caller holds its lock.
        rng: makes the random bits.
        above: a number that was heard of; the new one is greater, if there is any.

    Raises:
        OSError: as the disk gives it, but for want of room.
    """
    counter = max(_read(disk, directory / OPENINGS_FILE), above >> _RANDOM_BITS) + 1
    # The highest is only reached by a number that no counter gave; then the random bits have to do.
    counter = min(counter, _HIGHEST_COUNTER)
    try:
        write_whole(disk, directory / OPENINGS_FILE, _sealed(_FIELDS.pack(_MAGIC, counter)))
    except OSError as error:
        if not has_no_room(error):
            raise
        # The next opening may have this counter again. It differs in its random bits, and is told if it is the lesser.
    return counter << _RANDOM_BITS | rng.getrandbits(_RANDOM_BITS)


def _read(disk: Disk, path: Path) -> int:
    """Return the counter that is kept; 0 where there is none, or it is damaged: who knows more will say so."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return 0
    try:
        data = file.read_at(0, _FIELDS.size + CHECKSUM_BYTES)
    finally:
        file.close()
    if len(data) != _FIELDS.size + CHECKSUM_BYTES or _sealed(data[: _FIELDS.size]) != data or data[:4] != _MAGIC:
        return 0
    counter: int = _FIELDS.unpack_from(data)[1]
    return min(counter, _HIGHEST_COUNTER)


def _sealed(data: bytes) -> bytes:
    return data + crc32c(data).to_bytes(CHECKSUM_BYTES, "big")
