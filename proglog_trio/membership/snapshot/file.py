"""The file of a snapshot. Everything here blocks, and raises OSError as the system gives it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from attrs import define

from proglog_trio.membership.whole_file import sync_directory

MAX_FILE_BYTES = 64 * 1024 * 1024
"""More is not read: all members that a node can know, with the longest names and tags, take less."""
NEW_SUFFIX = ".new"
ASIDE_SUFFIX = ".aside"
"""Where a file is put that is not this member's; one that was put there before is replaced."""
_MODE = 0o644


@define(eq=False)
class SnapshotFile:
    """A file that is appended to, and replaced as a whole.

    Used by one thread at a time.

    Attributes:
        path: where it is.
    """

    path: Path
    # What is appended to; None until the file was first written anew.
    _descriptor: int | None = None
    # Device and inode of the file that was read or written last; None: there was none.
    _identity: tuple[int, int] | None = None

    def read(self) -> bytes:
        """Return what is in the file; nothing if there is none."""
        try:
            with self.path.open("rb") as file:
                self._identity = _identity(os.fstat(file.fileno()))
                return file.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return b""

    def put_aside(self) -> Path:
        """Rename the file, so that it is lost to nobody; return its new path."""
        # Before: where it cannot be renamed it is left alone.
        self._identity = None
        aside = self.path.with_name(self.path.name + ASIDE_SUFFIX)
        self.path.replace(aside)
        return aside

    def replace(self, data: bytes | bytearray) -> None:
        """Write all anew, durably: the file is either as it was or has this.

        A file that is not the one that was read or written before is left alone, with FileExistsError: the directory
        may have been replaced by another.
        """
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path.stat()) != self._identity:
                raise FileExistsError(errno.EEXIST, "another file has its place", str(self.path))
        new = self.path.with_name(self.path.name + NEW_SUFFIX)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, _MODE)
        try:
            _write(descriptor, data)
            os.fsync(descriptor)
            new.replace(self.path)
            self._identity = _identity(os.fstat(descriptor))
            sync_directory(self.path.parent)
        except BaseException:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """Append to the file; a failure may leave a part of it there."""
        if self._descriptor is None or os.fstat(self._descriptor).st_nlink == 0:
            # Somebody has removed it: what is appended would be gone with it.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        _write(self._descriptor, data)

    def sync(self) -> None:
        """Return when all that was appended is durable."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; nothing is synced."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _write(descriptor: int, data: bytes | bytearray) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
