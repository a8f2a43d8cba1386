"""The few operations on files that the log needs, behind a protocol.

`OperatingSystemDisk` is the real one. Tests bring one of their own that loses, keeps or tears what was not synced.
Every operation blocks; errors are OSErrors.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

_BUFFERS_PER_WRITE = min(1024, os.sysconf("SC_IOV_MAX"))

Identity = tuple[int, int]
"""What a file keeps whatever it is called, and no other file has while it exists: its device and its inode."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NotWritten(OSError):
    """Writing failed, and it is certain that nothing of what was to be written is on the disk."""


class ReserveReached(NotWritten):
    """Less is free than is kept free: nothing was written."""


class SyncFailed(OSError):
    """A sync failed: what the kernel still holds is not known, and a second sync would not tell (never try again)."""


def has_no_room(error: OSError) -> bool:
    """Tell whether writing failed for want of room: there may be some later, without anything being mended."""
    return not isinstance(error, SyncFailed) and error.errno in _NO_ROOM


def sync(file: File) -> None:
    """Sync a file; raises SyncFailed."""
    try:
        file.sync()
    except OSError as error:
        raise SyncFailed(*error.args) from error


def sync_directory(disk: Disk, path: Path) -> None:
    """Sync a directory; raises SyncFailed."""
    try:
        disk.sync_directory(path)
    except OSError as error:
        raise SyncFailed(*error.args) from error


def write_whole(disk: Disk, path: Path, data: bytes) -> None:
    """Write a small file so that it is either as it was or as it should be, durable on return. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    file = disk.create(temporary)
    try:
        file.write_at(0, [data])
        sync(file)
    finally:
        file.close()
    disk.rename(temporary, path)
    sync_directory(disk, path.parent)


class File(Protocol):
    """An open file."""

    def read_at(self, position: int, length: int) -> bytes:
        """Return length bytes from position on; fewer only at the file's end."""

    def write_at(self, position: int, buffers: Sequence[bytes]) -> None:
        """Write all of the buffers, one after the other, from position on. A failure may leave a part written."""

    def size(self) -> int:
        """Return the file's size in bytes."""

    def identity(self) -> Identity:
        """Return which file it is."""

    def truncate(self, size: int) -> None:
        """Cut the file."""

    def sync(self) -> None:
        """Return when all that was written is durable (fdatasync)."""

    def close(self) -> None:
        """Close it; nothing is synced."""


class Disk(Protocol):
    """A file system."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and its parents, unless it is there; the new entries are durable on return."""

    def list_directory(self, path: Path) -> list[str]:
        """Return the names in a directory."""

    def create(self, path: Path) -> File:
        """Make an empty file, in place of an old one, open for reading and writing."""

    def open(self, path: Path, *, writable: bool = False) -> File:
        """Open a file that is there."""

    def size_of(self, path: Path) -> int:
        """Return a file's size in bytes."""

    def identity_of(self, path: Path) -> Identity:
        """Return which file has this name now."""

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes a program without privileges can still write to the disk that a directory is on."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file, in place of an old target."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def sync_directory(self, path: Path) -> None:
        """Return when the directory's entries are durable."""

    def lock(self, path: Path) -> File:
        """Take an exclusive lock that ends when the file is closed; raises BlockingIOError if another has it."""


@frozen
class OperatingSystemFile:
    """A file descriptor; closed by close alone."""

    descriptor: int
    path: Path = field(default=Path())

    def read_at(self, position: int, length: int) -> bytes:
        """See File."""
        data = os.pread(self.descriptor, length, position)
        if len(data) == length or not data:
            return data
        # A read may be short for reasons other than the end (a signal, more than 2 GiB).
        parts = [data]
        missing = length - len(data)
        while missing:
            part = os.pread(self.descriptor, missing, position + length - missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def write_at(self, position: int, buffers: Sequence[bytes]) -> None:
        """See File."""
        for first in range(0, len(buffers), _BUFFERS_PER_WRITE):
            some = buffers[first : first + _BUFFERS_PER_WRITE]
            wanted = sum(map(len, some))
            written = os.pwritev(self.descriptor, some, position)
            position += written
            if written < wanted:
                rest = memoryview(b"".join(some))[written:]
                while rest:
                    written = os.pwrite(self.descriptor, rest, position)
                    position += written
                    rest = rest[written:]

    def size(self) -> int:
        """See File."""
        return os.fstat(self.descriptor).st_size

    def identity(self) -> Identity:
        """See File."""
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    def truncate(self, size: int) -> None:
        """See File."""
        os.ftruncate(self.descriptor, size)

    def sync(self) -> None:
        """See File."""
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        """See File."""
        os.close(self.descriptor)


@frozen
class OperatingSystemDisk:
    """The real file system."""

    def make_directory(self, path: Path) -> None:
        """See Disk."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self.sync_directory(directory.parent)

    def list_directory(self, path: Path) -> list[str]:
        """See Disk."""
        return [entry.name for entry in path.iterdir()]

    def create(self, path: Path) -> File:
        """See Disk."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return OperatingSystemFile(os.open(path, flags, 0o644), path)

    def open(self, path: Path, *, writable: bool = False) -> File:
        """See Disk."""
        return OperatingSystemFile(os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC), path)

    def size_of(self, path: Path) -> int:
        """See Disk."""
        return path.stat().st_size

    def identity_of(self, path: Path) -> Identity:
        """See Disk."""
        status = path.stat()
        return status.st_dev, status.st_ino

    def free_bytes(self, path: Path) -> int:
        """See Disk."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """See Disk."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """See Disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> File:
        """See Disk."""
        file = OperatingSystemFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), path)
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        return file
