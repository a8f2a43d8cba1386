"""What a data directory holds of each origin, small enough to be compared: one pass, 20 bytes a frame.

A frame is its base sequence, its count and a 64-bit digest of all its bytes. Where it stands is looked up again when
a difference is to be shown.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import Factory, define, frozen

from proglog_trio.errors import DataDirectoryError, FrameError, SegmentError
from proglog_trio.log.disk import Disk, OperatingSystemDisk
from proglog_trio.log.format.envelope import MARKERS, EnvelopeKind
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.inspect.segments import open_each, segments_of, size_of_all
from proglog_trio.log.inspect.verify import durable_position, is_live
from proglog_trio.log.storage.scanner import scan_from
from proglog_trio.log.storage.segment import read_segment_header
from proglog_trio.log.storage.segment_check import scan

DIGEST_BYTES = 8
Progress = Callable[[int, int], None]


def digest_of(data: bytes) -> int:
    """Return the digest by which a frame's bytes are compared."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), "big")


@define
class OriginTable:
    """The frames of one origin in one log, in the order of their sequences.

    Attributes:
        low: retention removed what lies below.
        bases, counts, digests: one entry a frame.
        gaps: the sequences [from, to) for which there are gap markers.
        missing: those that are missing at present.
    """

    low: int = 0
    bases: array[int] = Factory(lambda: array("Q"))
    counts: array[int] = Factory(lambda: array("I"))
    digests: array[int] = Factory(lambda: array("Q"))
    gaps: list[tuple[int, int]] = Factory(list)
    missing: list[tuple[int, int]] = Factory(list)

    @property
    def next(self) -> int:
        """The sequence after the last frame."""
        return self.bases[-1] + self.counts[-1] if self.bases else self.low


@define
class FrameTable:
    """The frames of a data directory.

    Attributes:
        directory: the data directory.
        cluster_name: of the newest segment.
        origins: per origin its frames.
        frames: how many in all.
        damaged_places: how many places cannot be read; `log verify` names them.
        bytes_read: of the store files.
    """

    directory: Path
    disk: Disk = Factory(OperatingSystemDisk)
    cluster_name: str = ""
    origins: dict[Origin, OriginTable] = Factory(dict)
    frames: int = 0
    damaged_places: int = 0
    bytes_read: int = 0

    def read(self, progress: Progress | None = None) -> None:
        """Read the whole directory; progress is called with the bytes that are read and the bytes there are.

        Raises:
            DataDirectoryError: there is no log, it is of a newer format, or it cannot be read.
        """
        for _, item in _scan_directory(self.disk, self.directory, self._begin, progress):
            if isinstance(item, DamagedPlace):
                self.damaged_places += 1
            else:
                self._add(item)

    def _begin(self, cluster_name: str, origins: dict[Origin, OriginState] | None, size: int) -> None:
        """Add what a segment's header says; origins is what was there before the oldest."""
        self.cluster_name = cluster_name
        self.bytes_read += size
        for origin, state in (origins or {}).items():
            self.origins.setdefault(origin, OriginTable(low=state.next))

    def _add(self, item: StoredFrame) -> None:
        envelope = item.envelope
        if envelope.kind in MARKERS:
            try:
                marker = GapMarker.of_frame(item.frame)
            except FrameError:
                self.damaged_places += 1
                return
            table = self.origins.setdefault(marker.origin, OriginTable())
            ranges = table.missing if marker.at_present else table.gaps
            ranges.append((marker.from_sequence, marker.to_sequence))
        elif envelope.kind is EnvelopeKind.RECORDS:
            table = self.origins.setdefault(envelope.origin, OriginTable())
            if envelope.base_sequence < table.next:
                self.damaged_places += 1  # Out of its order: its writer is at fault.
                return
            table.bases.append(envelope.base_sequence)
            table.counts.append(envelope.count)
            table.digests.append(digest_of(item.data))
            self.frames += 1


@frozen
class FramePlace:
    """Where a frame stands.

    Attributes:
        file: the store file.
        position: the byte at which its envelope begins.
        offset: of its first record.
        sequence: of its first record.
    """

    file: Path
    position: int
    offset: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.file} at byte {self.position}, offset {self.offset}, sequence {self.sequence}"


def find_frame(disk: Disk, directory: Path, origin: Origin, base_sequence: int) -> FramePlace | None:
    """Return where the frame of an origin with a base sequence stands, or None if it is gone meanwhile.

    Raises:
        DataDirectoryError: the directory cannot be read.
    """
    for files, item in _scan_directory(disk, directory, None, None, envelopes_only=True):
        if isinstance(item, StoredFrame) and item.envelope.kind is EnvelopeKind.RECORDS:
            envelope = item.envelope
            if (envelope.origin, envelope.base_sequence) == (origin, base_sequence):
                return FramePlace(files.store, item.position, envelope.base_offset, base_sequence)
    return None


def _scan_directory(
    disk: Disk,
    directory: Path,
    begin: Callable[[str, dict[Origin, OriginState] | None, int], None] | None,
    progress: Progress | None,
    *,
    envelopes_only: bool = False,
) -> Iterator[tuple[SegmentFiles, StoredFrame | DamagedPlace]]:
    segments = segments_of(disk, directory)
    total = size_of_all(disk, segments)
    live = is_live(disk, directory)
    done = 0
    for files, store, following in open_each(disk, segments):
        try:
            try:
                header, header_bytes, _ = read_segment_header(disk, files, store)
            except SegmentError as error:
                yield files, DamagedPlace(0, 0, None, files.base_offset, following, str(error))
                continue
            if begin is not None:
                is_lowest = files is segments[0]
                begin(header.cluster_name, dict(header.origins) if is_lowest else None, store.size())
            scanner = scan_from(store, header, len(header_bytes), envelopes_only=envelopes_only)
            if live and following is None:
                scanner.end = durable_position(disk, files, header)
            for item in scan(scanner, following):
                yield files, item
                if progress is not None:
                    progress(done + scanner.position, total)
            done += store.size()
        except OSError as error:
            raise DataDirectoryError(f"{files.store} cannot be read: {error}") from None
