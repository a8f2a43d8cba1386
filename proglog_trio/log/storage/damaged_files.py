"""`damaged/`: where opening keeps what it could not read, within bounds.

What is in there may be worth something to an operator, who need not look: the oldest goes first, by the
offsets in the names, since clocks may be wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import Factory, define, field, frozen

from proglog_trio.log.disk import Disk, File, sync, sync_directory
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.storage.scanner import CHUNK_BYTES

DAMAGED_DIRECTORY = "damaged"
_NAME = re.compile(r"(\d{20})(?:-(\d+)\.tail|\.store|\.index)(?:\.(\d+))?", re.ASCII)


@frozen
class MovedAside:
    """Bytes that recovery moved out of the log.

    Attributes:
        path: where they are now.
        size: how many bytes.
        segment, position: where they stood.
        from_offset: the offset at which they began.
        detail: why they could not be read.
    """

    path: Path
    size: int
    segment: Path
    position: int
    from_offset: int
    detail: str


@define
class Aside:
    """The directory `damaged/` of a data directory.

    Attributes:
        directory: where it is; made when something is moved there.
        max_bytes, max_files: how much is kept; what was moved last stays, however large it is.
        removed: the files that went to make room, with their sizes.
        trouble: why some could not go, if that is so.
    """

    disk: Disk
    directory: Path
    max_bytes: int
    max_files: int
    removed: list[tuple[Path, int]] = field(factory=list)
    trouble: OSError | None = None
    _newest: set[str] = Factory(set)

    def save_tail(self, store: File, files: SegmentFiles, position: int) -> tuple[Path, int]:
        """Copy what stands in a store file from a position on; durable on return. Returns where, and how many bytes.

        Raises:
            OSError: nothing is left of the copy.
        """
        size = store.size() - position
        self.disk.make_directory(self.directory)
        path = self._free_name(f"{files.store.stem}-{position}.tail")
        file = self.disk.create(path)
        try:
            written = 0
            while written < size:
                data = store.read_at(position + written, min(CHUNK_BYTES, size - written))
                file.write_at(written, [data])
                written += len(data)
            sync(file)
        except OSError:
            # Or each attempt to open a directory on a full disk would leave another piece.
            self.disk.remove(path)
            raise
        finally:
            file.close()
        sync_directory(self.disk, self.directory)
        self._newest = {path.name}
        self.trim()
        return path, size

    def move_segment(self, files: SegmentFiles, detail: str) -> MovedAside:
        """Move a whole segment away, of which there may be the index alone; durable on return. Raises OSError."""
        self.disk.make_directory(self.directory)
        present = self.disk.list_directory(files.directory)
        sources = [path for path in (files.store, files.index) if path.name in present]
        size = self.disk.size_of(sources[0])
        moved = [self._free_name(path.name) for path in sources]
        for source, path in zip(sources, moved, strict=True):
            self.disk.rename(source, path)
        self._newest = {path.name for path in moved}
        sync_directory(self.disk, self.directory)
        sync_directory(self.disk, files.directory)
        self.trim()
        return MovedAside(moved[0], size, sources[0], 0, files.base_offset, detail)

    def trim(self) -> None:
        """Remove the oldest files while there are too many, or too many bytes; trouble says what was in the way.

        Files of other names are let alone.
        """
        try:
            self._trim(self.disk.list_directory(self.directory))
        except FileNotFoundError:
            return
        except OSError as error:
            # The log itself is well, and can be opened.
            self.trouble = error

    def _trim(self, names: list[str]) -> None:
        ours = sorted((name for name in names if _NAME.fullmatch(name)), key=_age)
        sizes = {name: self.disk.size_of(self.directory / name) for name in ours}
        count, kept = len(ours), sum(sizes.values())
        for name in ours:
            if count <= self.max_files and kept <= self.max_bytes:
                break
            if name in self._newest:
                continue
            self.disk.remove(self.directory / name)
            self.removed.append((self.directory / name, sizes[name]))
            count -= 1
            kept -= sizes[name]
        if self.removed:
            self.disk.sync_directory(self.directory)

    def _free_name(self, name: str) -> Path:
        """Return a path for a file of this name: behind all that had the name before, so that it is the youngest."""
        numbers = [
            int(number or 0)
            for taken in self.disk.list_directory(self.directory)
            if (match := _NAME.fullmatch(taken)) is not None
            for number in [match.group(3)]
            if taken.removesuffix(f".{number}") == name
        ]
        return self.directory / (f"{name}.{max(numbers) + 1}" if numbers else name)


def _age(name: str) -> tuple[int, int, int]:
    """Return what grows from file to file in the order in which they came: offset, position, number."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no name that opening gives")
    offset, position, number = match.groups()
    return int(offset), int(position or 0), int(number or 0)
