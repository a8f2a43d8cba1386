"""How long nodes have run on a data directory: the only age that no wall clock can get wrong.

Wall clocks are wrong by years at boot and jump both ways. What a node can tell for certain is how long it ran, by the
system's monotonic clock; that is never more than what truly passed. So age is counted in *running time*: milliseconds
that nodes have run on this directory, all openings together. It stands still while no node runs.

The file `running-time` in the data directory keeps it over restarts. It has two places of one fixed size, written in
turn, so that a torn write leaves the other. Integers big endian: magic (4 bytes), version (u16), reserved (u16), the
directory id (8 bytes), running time (u64, milliseconds), wall clock (u64, milliseconds since the Unix epoch), the
offset and the running time of `Unmarked` (two u64), CRC-32C of all that (u32). A file that is missing, damaged or of
another directory costs running time, which makes what is old look younger and nothing look older.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from attrs import Factory, define, field, frozen

from proglog_trio.log.disk import Disk
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES
from proglog_trio.log.format.segment_header import SegmentHeader

RUNNING_TIME_FILE = "running-time"
_MAGIC = b"\x93PLR"
_VERSION = 1
_STAMP = struct.Struct(f">4sHH{DIRECTORY_ID_BYTES}sQQQQ")
_CHECKSUM = struct.Struct(">I")
_PLACES = (0, 512)
"""Where the two stamps stand, in sectors of their own."""


CLOCK_JUMP_MILLISECONDS = 10_000
"""What the wall clock goes on more or less than running time between two looks is a jump from here on."""


@frozen
class Unmarked:
    """Segments whose headers do not say when they were begun, because a program of before wrote them.

    Attributes:
        base_offset: of the newest of them, and there are none after it that were seen at that time.
        running: they had been begun when nodes had run for so long, in milliseconds.
    """

    base_offset: int
    running: int


_NOTHING_UNMARKED = Unmarked(0, 0)


@frozen
class Stamp:
    """What the file keeps.

    Attributes:
        directory_id: whose it is.
        running: the running time, in milliseconds.
        wall: what the wall clock said then, in milliseconds since the Unix epoch; for people, nothing goes by it.
        unmarked: see Unmarked.
    """

    directory_id: bytes
    running: int
    wall: int
    unmarked: Unmarked = _NOTHING_UNMARKED

    def encode(self) -> bytes:
        """Return the stamp's bytes."""
        unmarked = self.unmarked
        data = _STAMP.pack(
            _MAGIC, _VERSION, 0, self.directory_id, self.running, self.wall, unmarked.base_offset, unmarked.running
        )
        return data + _CHECKSUM.pack(crc32c(data))

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Return the stamp of these bytes; None if they are none."""
        if (
            len(data) != _STAMP.size + CHECKSUM_BYTES
            or crc32c(data[:-CHECKSUM_BYTES]) != _CHECKSUM.unpack(data[-4:])[0]
        ):
            return None
        magic, version, _, directory_id, running, wall, base_offset, at = _STAMP.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            return None
        return cls(directory_id, running, wall, Unmarked(base_offset, at))


def read_stamp(disk: Disk, directory: Path, directory_id: bytes) -> tuple[Stamp | None, int]:
    """Return the newest stamp in a data directory, and the place of the file where the next one goes.

    Raises:
        OSError: as the disk gives it, but for a file that is not there.
    """
    try:
        file = disk.open(directory / RUNNING_TIME_FILE)
    except FileNotFoundError:
        return None, 0
    try:
        found = [Stamp.decode(file.read_at(place, _STAMP.size + CHECKSUM_BYTES)) for place in _PLACES]
    finally:
        file.close()
    stamps = [
        (stamp.running, number)
        for number, stamp in enumerate(found)
        if stamp is not None and stamp.directory_id == directory_id
    ]
    if not stamps:
        return None, 0
    _, newest = max(stamps)
    return found[newest], 1 - newest


@define
class RunningTime:
    """The running time of a directory that is open. Any thread may ask for it.

    Attributes:
        clock: seconds, monotonic.
        before: the running time when the directory was opened, in milliseconds.
        last_stamp: what the file said then; None: nothing that can be used.
        unmarked: see Unmarked.
    """

    _disk: Disk
    _directory: Path
    _directory_id: bytes
    clock: Callable[[], float]
    before: int
    last_stamp: Stamp | None
    unmarked: Unmarked
    _next_place: int
    _opened: float = field(init=False)
    # Noting is done in threads, by the background and by closing.
    _lock: threading.Lock = Factory(threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._opened = self.clock()

    @classmethod
    def open(cls, disk: Disk, directory: Path, active: SegmentHeader, clock: Callable[[], float]) -> Self:
        """Go on where the last opening ended, as far as that is known. Blocks; changes nothing on the disk.

        Args:
            disk: has the directory.
            directory: the data directory, of which the caller holds the lock.
            active: the header of its newest segment.
            clock: seconds, monotonic.
        """
        try:
            stamp, next_place = read_stamp(disk, directory, active.directory_id)
        except OSError:
            stamp, next_place = None, 0  # Nothing gets older by that; noting it will tell what is wrong.
        before = max(stamp.running if stamp is not None else 0, active.running or 0)
        unmarked = stamp.unmarked if stamp is not None else _NOTHING_UNMARKED
        if active.running is None and unmarked.base_offset != active.base_offset:
            unmarked = Unmarked(active.base_offset, before)
        return cls(disk, directory, active.directory_id, clock, before, stamp, unmarked, next_place)

    def milliseconds(self) -> int:
        """Return the running time."""
        return self.before + max(int((self.clock() - self._opened) * 1000), 0)

    def begun(self, header: SegmentHeader) -> int | None:
        """Return at what running time a segment had been begun at the latest; None if nothing tells."""
        if header.running is not None:
            return header.running
        return self.unmarked.running if header.base_offset <= self.unmarked.base_offset else None

    def note(self, wall_milliseconds: int) -> None:
        """Keep the running time of now over a restart; durable on return. Blocks.

        Raises:
            OSError: as the disk gives it; what was kept before still is.
        """
        with self._lock:
            stamp = Stamp(self._directory_id, self.milliseconds(), max(wall_milliseconds, 0), self.unmarked)
            path = self._directory / RUNNING_TIME_FILE
            is_new = False
            try:
                file = self._disk.open(path, writable=True)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                file, is_new = self._disk.create(path), True
            try:
                file.write_at(_PLACES[self._next_place], [stamp.encode()])
                file.sync()
            finally:
                file.close()
            if is_new:
                self._disk.sync_directory(self._directory)
            self._next_place = 1 - self._next_place


@define
class WallClockWatch:
    """Notices when the wall clock was set between two looks.

    Attributes:
        running, wall: what running time and wall clock said at the last look, in milliseconds.
    """

    running: int
    wall: int

    def look(self, running: int, wall: int) -> int:
        """Return by how many milliseconds the wall clock was set since the last look; 0 if it went as it should."""
        jump = wall - self.wall - (running - self.running)
        self.running, self.wall = running, wall
        return jump if abs(jump) > CLOCK_JUMP_MILLISECONDS else 0
