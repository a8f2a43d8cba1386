"""A disk in memory that forgets what was not synced.

It implements proglog_trio.log.disk.Disk. What a running program sees is the live state; what a power cut
leaves is the durable state plus any mix of what was under way: each write since the file's last sync kept, dropped or
torn, each directory entry made since the directory's last sync kept or dropped.
"""

from __future__ import annotations

import enum
import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import Factory, define, evolve, field, frozen

SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The machine stops here. No Exception, so that nothing under test handles it."""


class Loss(enum.Enum):
    """What becomes of that which was not synced."""

    KEEP = "keep"
    """Nothing, yet: the process was killed, the machine goes on, and what is not synced may be lost later."""
    DROP = "drop"
    """All is lost."""
    MIX = "mix"
    """Anything: kept, dropped and torn pieces, not only in their order."""


@frozen
class _Change:
    """A write (data at position) or a truncation (data None) of one file.

    Attributes:
        state: "pending"; "durable" after a sync; "unknown" after a failed one: the kernel takes it for written.
    """

    position: int
    data: bytes | None
    state: str = "pending"


def _apply(content: bytearray, position: int, data: bytes | None) -> None:
    if data is None:
        del content[position:]
        content.extend(bytes(position - len(content)))
        return
    if len(content) < position:
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


@define(eq=False)
class _Inode:
    """One file's content: what was durable, and what happened since."""

    durable: bytes = b""
    live: bytearray = Factory(bytearray)
    changes: list[_Change] = Factory(list)

    def change(self, position: int, data: bytes | None) -> None:
        _apply(self.live, position, data)
        self.changes.append(_Change(position, data))

    def sync(self) -> None:
        self.changes = [
            evolve(change, state="durable") if change.state == "pending" else change for change in self.changes
        ]
        if all(change.state == "durable" for change in self.changes):
            self.durable, self.changes = bytes(self.live), []

    def fail_sync(self) -> None:
        self.changes = [
            evolve(change, state="unknown") if change.state == "pending" else change for change in self.changes
        ]

    def settle(self, loss: Loss, rng: random.Random) -> None:
        """Take on the state after a power cut."""
        content = bytearray(self.durable)
        for change in self.changes:
            if change.state == "durable":
                _apply(content, change.position, change.data)
            elif loss is Loss.MIX:
                _apply_torn(content, change, rng)
        self.live = content
        self.durable, self.changes = bytes(content), []


def _apply_torn(content: bytearray, change: _Change, rng: random.Random) -> None:
    fate = rng.choice(("keep", "drop", "tear", "tear"))
    if fate == "drop":
        return
    if fate == "keep" or change.data is None:
        _apply(content, change.position, change.data)
        return
    extends_from = len(content)
    for position, piece in _pieces(change.position, change.data, rng):
        piece_fate = rng.choice(("keep", "keep", "drop", "garbage"))
        if piece_fate == "keep":
            _apply(content, position, piece)
        elif piece_fate == "garbage" and position >= extends_from:
            # Blocks that the file has got but that were not written hold zeros, or what was on the disk before.
            old = bytes(len(piece)) if rng.random() < 0.5 else rng.randbytes(len(piece))
            _apply(content, position, old)


def _pieces(position: int, data: bytes, rng: random.Random) -> Iterator[tuple[int, bytes]]:
    """Cut a write at sectors, or at any bytes, and give the pieces in any order."""
    if rng.random() < 0.5:
        cuts = {
            place - position for place in range(position - position % SECTOR_BYTES, position + len(data), SECTOR_BYTES)
        }
    else:
        cuts = {rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 4))}
    edges = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    pieces = [(position + start, data[start:end]) for start, end in itertools.pairwise(edges)]
    rng.shuffle(pieces)
    yield from pieces


@frozen
class _EntryChange:
    """A change of directory entries: the link made, the one taken away."""

    made: Path | None
    removed: Path | None
    inode: _Inode

    def touches(self, directory: Path) -> bool:
        return any(path is not None and path.parent == directory for path in (self.made, self.removed))

    def apply(self, entries: dict[Path, _Inode]) -> None:
        if self.removed is not None and (self.made is None or entries.get(self.removed) is self.inode):
            entries.pop(self.removed, None)
        if self.made is not None:
            entries[self.made] = self.inode


@define(eq=False)
class SimulatedFile:
    """An open file; use after its close, or after a crash, is a mistake of the program under test."""

    disk: SimulatedDisk
    path: Path
    inode: _Inode
    writable: bool
    is_lock: bool = False
    is_open: bool = True

    def _check(self, *, writing: bool = False) -> None:
        assert self.is_open, f"{self.path} is used after its close"
        if self.disk.is_dead:
            raise PowerCut
        if writing and not self.writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))

    def read_at(self, position: int, length: int) -> bytes:
        self._check()
        assert position >= 0
        assert length >= 0
        return bytes(self.inode.live[position : position + length])

    def write_at(self, position: int, buffers: Sequence[bytes]) -> None:
        self._check(writing=True)
        data = b"".join(buffers)
        fault = self.disk.take_fault("write")
        room = self.disk.room_for(self.inode, position, len(data))
        if fault is not None:
            room = min(room, self.disk.rng.randrange(len(data) + 1))
        if room < len(data) or fault is not None:
            self.disk.begin("write", lambda: self.inode.change(position, data[:room]))
            number = fault if fault is not None else errno.ENOSPC
            raise OSError(number, os.strerror(number), str(self.path))
        if data:
            self.disk.begin("write", lambda: self.inode.change(position, data))

    def size(self) -> int:
        self._check()
        return len(self.inode.live)

    def identity(self) -> tuple[int, int]:
        return 0, id(self.inode)

    def truncate(self, size: int) -> None:
        self._check(writing=True)
        self.disk.raise_fault("truncate", self.path)
        self.disk.begin("truncate", lambda: self.inode.change(size, None))

    def sync(self) -> None:
        self._check()
        self.disk.begin("sync", None)
        if (fault := self.disk.take_fault("sync")) is not None:
            self.inode.fail_sync()
            raise OSError(fault, os.strerror(fault), str(self.path))
        self.inode.sync()

    def close(self) -> None:
        assert self.is_open, f"{self.path} is closed twice"
        self.is_open = False
        self.disk.open_files.discard(self)


@define(eq=False)
class SimulatedDisk:
    """A file system in memory.

    Attributes:
        rng: decides what a failed write leaves.
        operations: how many operations that change something there were.
        cut_at: the power goes off in the middle of the operation of this number.
        is_dead: it went off; restart brings it back.
        capacity: how many bytes fit; None: any number.
        open_files: to find what was not closed.
        trace: the names of operations that were done, in their order.
        faults_met: how many operations failed since they were told to.
    """

    rng: random.Random = field(factory=lambda: random.Random(0))
    operations: int = 0
    cut_at: int | None = None
    is_dead: bool = False
    capacity: int | None = None
    open_files: set[SimulatedFile] = field(factory=set)
    trace: list[str] = field(factory=list)
    faults_met: int = 0
    _directories: set[Path] = field(factory=lambda: {Path("/")})
    _entries: dict[Path, _Inode] = field(factory=dict)
    _durable_entries: dict[Path, _Inode] = field(factory=dict)
    _entry_changes: list[_EntryChange] = field(factory=list)
    _faults: dict[str, tuple[int, int]] = field(factory=dict)

    # -- faults and crashes --------------------------------------------------------------------------------------------

    def fail(self, kind: str, number: int, after: int = 0) -> None:
        """Let an operation of this kind fail with an errno, after so many that succeed."""
        self._faults[kind] = (after, number)

    def take_fault(self, kind: str) -> int | None:
        """Count an operation down; return the errno with which it fails, if it does."""
        if kind not in self._faults:
            return None
        after, number = self._faults[kind]
        if after:
            self._faults[kind] = (after - 1, number)
            return None
        del self._faults[kind]
        self.faults_met += 1
        return number

    def raise_fault(self, kind: str, path: Path) -> None:
        """Raise the OSError that is due."""
        if (fault := self.take_fault(kind)) is not None:
            raise OSError(fault, os.strerror(fault), str(path))

    def clear_faults(self) -> None:
        """Let everything succeed."""
        self._faults.clear()
        self.capacity = self.cut_at = None

    def begin(self, kind: str, apply: Callable[[], None] | None) -> None:
        """Do an operation; when the power goes off in it, it is one of those of which anything may be left."""
        if self.is_dead:
            raise PowerCut
        self.operations += 1
        self.trace.append(kind)
        cut = self.operations == self.cut_at
        if apply is not None:
            apply()
        if cut:
            self.is_dead = True
            raise PowerCut

    def restart(self, loss: Loss, rng: random.Random) -> None:
        """Stop everything that uses the disk and bring it back with what the crash left."""
        if loss is not Loss.KEEP:
            entries = dict(self._durable_entries)
            for change in self._entry_changes:
                if loss is Loss.MIX and rng.random() < 0.5:
                    change.apply(entries)
            for inode in entries.values():
                inode.settle(loss, rng)
            self._entries, self._durable_entries, self._entry_changes = entries, dict(entries), []
        for file in self.open_files:
            file.is_open = False
        self.open_files = set()
        self.is_dead = False
        self.clear_faults()

    def copy(self) -> SimulatedDisk:
        """Return a disk with a copy of every file as it is now, all of it durable."""
        copies = {path: _Inode(bytes(inode.live), bytearray(inode.live)) for path, inode in self._entries.items()}
        return SimulatedDisk(self.rng, directories=set(self._directories), entries=copies, durable_entries=dict(copies))

    # -- what a test looks at and damages ------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """Return all files' paths."""
        return sorted(self._entries)

    def content(self, path: Path) -> bytes:
        """Return a file's live content."""
        return bytes(self._entries[path].live)

    def put(self, path: Path, content: bytes) -> None:
        """Give a file another content, durable at once."""
        inode = self._entries.get(path)
        if inode is None:
            inode = self._entries[path] = self._durable_entries[path] = _Inode()
        inode.durable, inode.live, inode.changes = content, bytearray(content), []

    def flip(self, path: Path, position: int, bits: int) -> None:
        """Change some bits of one byte."""
        content = bytearray(self.content(path))
        content[position] ^= bits
        self.put(path, bytes(content))

    def delete(self, path: Path) -> None:
        """Take a file away."""
        del self._entries[path]
        self._durable_entries.pop(path, None)

    # -- Disk ----------------------------------------------------------------------------------------------------------

    def room_for(self, inode: _Inode, position: int, length: int) -> int:
        """Return how many of these bytes fit on the disk."""
        if self.capacity is None:
            return length
        used = self.used_bytes
        growth = max(position + length - len(inode.live), 0)
        return length - min(max(used + growth - self.capacity, 0), length)

    def make_directory(self, path: Path) -> None:
        if self.is_dead:
            raise PowerCut
        self.raise_fault("make_directory", path)
        for directory in (path, *path.parents):
            if directory in self._entries:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory))
        if path not in self._directories:
            self.begin("make_directory", None)
            self._directories.update((path, *path.parents))

    def list_directory(self, path: Path) -> list[str]:
        if self.is_dead:
            raise PowerCut
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return [entry.name for entry in self._entries if entry.parent == path]

    def create(self, path: Path) -> SimulatedFile:
        self.raise_fault("create", path)
        self.list_directory(path.parent)
        if path in self._entries:
            file = self._opened(path, self._entries[path], writable=True)
            self.begin("truncate", lambda: file.inode.change(0, None))
            return file
        inode = _Inode()
        self._change_entries("create", _EntryChange(path, None, inode))
        return self._opened(path, inode, writable=True)

    def open(self, path: Path, *, writable: bool = False) -> SimulatedFile:
        if self.is_dead:
            raise PowerCut
        self.raise_fault("open", path)
        return self._opened(path, self._find(path), writable=writable)

    def size_of(self, path: Path) -> int:
        if self.is_dead:
            raise PowerCut
        return len(self._find(path).live)

    def identity_of(self, path: Path) -> tuple[int, int]:
        if self.is_dead:
            raise PowerCut
        return 0, id(self._find(path))

    def free_bytes(self, path: Path) -> int:
        self.list_directory(path)
        if self.capacity is None:
            return 1 << 60
        return max(self.capacity - self.used_bytes, 0)

    @property
    def used_bytes(self) -> int:
        """How many bytes all files have."""
        return sum(len(inode.live) for inode in self._entries.values())

    def rename(self, source: Path, target: Path) -> None:
        self.raise_fault("rename", source)
        self.list_directory(target.parent)
        self._change_entries("rename", _EntryChange(target, source, self._find(source)))

    def remove(self, path: Path) -> None:
        self.raise_fault("remove", path)
        self._change_entries("remove", _EntryChange(None, path, self._find(path)))

    def sync_directory(self, path: Path) -> None:
        self.list_directory(path)
        self.begin("sync_directory", None)
        self.raise_fault("sync_directory", path)
        for change in self._entry_changes:
            if change.touches(path):
                change.apply(self._durable_entries)
        self._entry_changes = [change for change in self._entry_changes if not change.touches(path)]

    def lock(self, path: Path) -> SimulatedFile:
        if self.is_dead:
            raise PowerCut
        self.raise_fault("lock", path)
        if any(file.is_lock and file.path == path for file in self.open_files):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        if path not in self._entries:
            self._change_entries("create", _EntryChange(path, None, _Inode()))
        file = self._opened(path, self._entries[path], writable=True)
        file.is_lock = True
        return file

    def _find(self, path: Path) -> _Inode:
        if path not in self._entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._entries[path]

    def _opened(self, path: Path, inode: _Inode, *, writable: bool) -> SimulatedFile:
        file = SimulatedFile(self, path, inode, writable)
        self.open_files.add(file)
        return file

    def _change_entries(self, kind: str, change: _EntryChange) -> None:
        def apply() -> None:
            change.apply(self._entries)
            self._entry_changes.append(change)

        self.begin(kind, apply)
