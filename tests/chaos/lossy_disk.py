"""A disk that keeps what was not synced in memory: killing the process is cutting the power.

Files' contents only: names are durable at once here. What a crash may do to directory entries, and to the order in
which pieces of a write arrive, is tested with the simulated disk of tests/log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from attrs import Factory, define, field

from proglog_trio.log.disk import File, Identity, OperatingSystemDisk


@define(eq=False)
class _Content:
    """What all open files of one path share: the writes since the last sync, in their order."""

    pending: list[tuple[int, bytes | None]] = Factory(list)
    lock: threading.Lock = Factory(threading.Lock)


@define(eq=False)
class LossyFile:
    """An open file."""

    _file: File
    _content: _Content

    def read_at(self, position: int, length: int) -> bytes:
        """See File."""
        with self._content.lock:
            if not self._content.pending:
                return self._file.read_at(position, length)
            return bytes(self._live()[position : position + length])

    def _live(self) -> bytearray:
        live = bytearray(self._file.read_at(0, self._file.size()))
        for place, data in self._content.pending:
            if data is None:
                del live[place:]
                continue
            live.extend(bytes(max(place - len(live), 0)))
            live[place : place + len(data)] = data
        return live

    def write_at(self, position: int, buffers: Sequence[bytes]) -> None:
        """See File."""
        with self._content.lock:
            self._content.pending.append((position, b"".join(buffers)))

    def size(self) -> int:
        """See File."""
        with self._content.lock:
            size = self._file.size()
            for place, data in self._content.pending:
                size = place if data is None else max(size, place + len(data))
            return size

    def identity(self) -> Identity:
        """See File."""
        return self._file.identity()

    def truncate(self, size: int) -> None:
        """See File."""
        with self._content.lock:
            self._content.pending.append((size, None))

    def sync(self) -> None:
        """See File."""
        with self._content.lock:
            for place, data in self._content.pending:
                if data is None:
                    self._file.truncate(place)
                else:
                    self._file.write_at(place, [data])
            self._content.pending.clear()
            self._file.sync()

    def close(self) -> None:
        """See File; what was not synced stays pending, as in the kernel."""
        self._file.close()


@define(eq=False)
class LossyDisk:
    """A file system."""

    _disk: OperatingSystemDisk = field(factory=OperatingSystemDisk)
    _contents: dict[tuple[int, int], _Content] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock)

    def _opened(self, path: Path, file: File) -> LossyFile:
        status = os.stat(path)  # noqa: PTH116 - the inode, whatever the file is called later
        with self._lock:
            content = self._contents.setdefault((status.st_dev, status.st_ino), _Content())
        return LossyFile(file, content)

    def make_directory(self, path: Path) -> None:
        """See Disk."""
        self._disk.make_directory(path)

    def list_directory(self, path: Path) -> list[str]:
        """See Disk."""
        return self._disk.list_directory(path)

    def create(self, path: Path) -> File:
        """See Disk."""
        file = self._opened(path, self._disk.create(path))
        with file._content.lock:
            file._content.pending.clear()
        return file

    def open(self, path: Path, *, writable: bool = False) -> File:
        """See Disk."""
        # Writable underneath: a sync through one descriptor writes what another was given.
        del writable
        return self._opened(path, self._disk.open(path, writable=True))

    def size_of(self, path: Path) -> int:
        """See Disk."""
        file = self.open(path)
        try:
            return file.size()
        finally:
            file.close()

    def identity_of(self, path: Path) -> Identity:
        """See Disk."""
        return self._disk.identity_of(path)

    def free_bytes(self, path: Path) -> int:
        """See Disk."""
        return self._disk.free_bytes(path)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        self._disk.rename(source, target)

    def remove(self, path: Path) -> None:
        """See Disk."""
        self._disk.remove(path)

    def sync_directory(self, path: Path) -> None:
        """See Disk."""
        self._disk.sync_directory(path)

    def lock(self, path: Path) -> File:
        """See Disk."""
        return self._disk.lock(path)
